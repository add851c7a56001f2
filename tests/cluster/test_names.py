"""Slow, missing and valid host names: other lookups do not wait for them."""

import asyncio
import socket
import threading
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, RoutedSession
from modern_di_replicas.cluster.names import FIRST_PAUSE, Names
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.resolver import Resolver
from tests.session.conftest import serving
from tests.waiting import until


@not_behind_a_pooler("it looks the names up")
async def test_slow_host_names_of_replicas_do_not_delay_the_primary(
    replicated_cluster: LocalCluster, resolver: Resolver
) -> None:
    """INVARIANT: one lookup per name at a time, outside the event loop's executor, which has few threads."""
    names = [f"slow-{number}" for number in range(4)]
    url = make_url(replicated_cluster.primary.url)
    settings: dict[str, typing.Any] = {
        "primary": url.set(host="localhost").render_as_string(hide_password=False),
        "replicas": [url.set(host=name).render_as_string(hide_password=False) for name in names],
        "probe_interval": 0.05,
        "probe_timeout": 0.2,
    }
    async with serving(replicated_cluster, **settings) as servers, Monitor(servers.replica):
        for _ in range(30):
            async with servers.session() as reading:
                await reading.execute(text("SELECT 1"))
            await servers.primary.dispose()  # so that the next one opens a new connection
            async with asyncio.timeout(30), RoutedSession(servers.primary) as session:
                assert await session.scalar(text("SELECT inet_server_port()")) == url.port
    assert {resolver.most[name] for name in names} == {1}
    assert all(thread.daemon for thread in threading.enumerate() if "slow" in thread.name), "the program can end"


async def test_callers_share_a_look_up_and_late_ones_do_not_wait_again(resolver: Resolver) -> None:
    """A lookup that has already exceeded the timeout is not waited for again."""
    names = Names()
    waiting = [asyncio.create_task(names.find("slow", timeout=0.2)) for _ in range(5)]
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in errors} == {TimeoutError}
    late = asyncio.create_task(names.find("slow", timeout=0.2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert late.done()
    with pytest.raises(TimeoutError, match="the name slow"):
        await late
    assert resolver.asked["slow"] == 1
    resolver.released.set()

    async def is_refused() -> bool:
        try:
            await names.find("slow", timeout=5)
        except socket.gaierror:
            return True
        except TimeoutError:
            return False
        raise AssertionError

    await until(is_refused)


async def test_a_name_that_does_not_exist_is_not_looked_up_at_once_again(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error is raised; it is looked up again after an increasing delay."""
    names = Names()
    clock = [100.0]
    monkeypatch.setattr("modern_di_replicas.cluster.names.time.monotonic", lambda: clock[0])
    for _ in range(5):
        with pytest.raises(socket.gaierror, match="not known"):
            await names.find(["nowhere"], timeout=5)
    assert resolver.asked["nowhere"] == 1
    for pause, count in ((FIRST_PAUSE, 2), (FIRST_PAUSE, 2), (FIRST_PAUSE, 3)):
        clock[0] += pause
        with pytest.raises(socket.gaierror):
            await names.find("nowhere", timeout=5)
        assert resolver.asked["nowhere"] == count


async def test_addresses_and_sockets_are_not_looked_up(resolver: Resolver) -> None:
    """They need neither a lookup nor a thread."""
    await Names().find("127.0.0.1,::1,fe80::1%eth0,/run/postgresql,@abstract,", timeout=5)
    await Names().find(None, timeout=5)
    await Names().find(["10.0.0.1", None], timeout=5)
    assert resolver.asked == {}
    await Names().find(["localhost"], timeout=5)
    assert resolver.asked == {"localhost": 1}


def test_a_look_up_may_outlive_its_event_loop(resolver: Resolver) -> None:
    """After the application has ended, the thread ends without an error."""
    names = Names()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await names.find("slow", timeout=0.05)

    asyncio.run(give_up())
    thread = next(one for one in threading.enumerate() if one.name == "look-up slow")
    resolver.released.set()
    thread.join(10)
    assert not thread.is_alive()
