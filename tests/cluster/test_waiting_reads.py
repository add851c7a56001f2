"""`Intent.read(wait=...)`: a read waits for a replica instead of using the primary."""

import asyncio
import collections.abc
import contextlib
import datetime as dt
import time
import typing

import fastapi
import httpx
import pytest
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
from modern_di_replicas import (
    EVENTUAL,
    SESSION,
    Bounded,
    Intent,
    NoReplicaAvailable,
    ReplicaEngine,
    ReplicationSettings,
    read_intent,
    unit_of_work,
)
from modern_di_replicas.consistency.carrying import carried_token
from modern_di_replicas.testing import LocalCluster
from tests.carrying import (
    PRIMARY,
    REPLICA,
    WRITE,
    create_stock,
    in_own_task,
    read,
    replay_paused,
    settings_of,
    watched,
    write_with_core,
)
from tests.waiting import until


LONG = dt.timedelta(minutes=1)
SHORT = dt.timedelta(milliseconds=250)


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


async def read_with(container: Container, token: str | None, **options: typing.Any) -> tuple[int, bool]:
    async with unit_of_work(container, intent=Intent.read(**options), token=token) as unit:
        return await read(unit.resolve(AsyncSession))


async def write_and_carry(container: Container) -> str | None:
    await write_with_core(container)
    return carried_token(container)


async def still_waits(task: asyncio.Task[typing.Any]) -> bool:
    """Return whether a read takes longer than the longest wait of a read without `wait`."""
    return not (await asyncio.wait([task], timeout=0.4))[0]


async def serves_none(container: Container) -> None:
    topology = container.resolve(ReplicaEngine).topology
    await until(lambda: not topology.serving(None))


@pytest.mark.parametrize("level", [SESSION, Bounded(dt.timedelta(milliseconds=50))], ids=["session", "bounded"])
async def test_a_read_that_has_time_waits_for_a_replica_that_is_fresh_enough(
    stock: LocalCluster, level: typing.Any
) -> None:
    """For its wait time, and no longer."""
    async with watched(settings_of(stock, consistency=level, probe_interval=0.1)) as container:
        with replay_paused(stock):
            token = await in_own_task(write_and_carry(container))
            await asyncio.sleep(0.1)  # older than the bound
            began = time.monotonic()
            assert await in_own_task(read_with(container, token, wait=SHORT)) == (1, PRIMARY)
            assert time.monotonic() - began >= SHORT.total_seconds()
            waiting = asyncio.create_task(read_with(container, token, wait=LONG))
            assert await still_waits(waiting)
        assert await waiting == (1, REPLICA)


@pytest.mark.parametrize("primary_reads", [True, False], ids=["primary may read", "primary may not"])
async def test_a_read_that_has_time_waits_where_every_replica_is_too_far_behind(
    stock: LocalCluster, primary_reads: bool
) -> None:
    """Without `wait`, such a read uses the primary or fails at once."""
    options: dict[str, typing.Any] = {"max_lag": dt.timedelta(milliseconds=200), "probe_interval": 0.1}
    async with watched(settings_of(stock, **options, primary_reads=primary_reads)) as container:
        with replay_paused(stock):
            await in_own_task(write_with_core(container))
            await serves_none(container)
            for wait in (None, dt.timedelta(0), SHORT):
                if primary_reads:
                    assert await in_own_task(read_with(container, None, wait=wait)) == (1, PRIMARY)
                else:
                    with pytest.raises(NoReplicaAvailable):
                        await in_own_task(read_with(container, None, wait=wait))
            waiting = asyncio.create_task(read_with(container, None, wait=LONG, consistency=EVENTUAL))
            assert await still_waits(waiting)
        assert await waiting == (1, REPLICA)


async def test_a_read_that_has_time_waits_where_every_replica_is_down(stock: LocalCluster) -> None:
    """Frozen servers may return; until then only the monitor asks them."""
    async with watched(settings_of(stock, probe_interval=0.1, probe_timeout=0.3)) as container:
        for replica in stock.replicas:
            replica.freeze()
        await serves_none(container)
        assert await in_own_task(read_with(container, None)) == (0, PRIMARY)
        waiting = asyncio.create_task(read_with(container, None, wait=LONG))
        assert await still_waits(waiting)
        for replica in stock.replicas:
            replica.thaw()
        assert await waiting == (0, REPLICA)


async def test_without_replicas_nothing_is_waited_for(stock: LocalCluster) -> None:
    """For example in development, with one server."""
    async with watched(ReplicationSettings(primary=stock.primary.url)) as container:
        assert await in_own_task(read_with(container, None, wait=LONG)) == (0, PRIMARY)


async def test_a_marked_endpoint_waits(stock: LocalCluster) -> None:
    """With `@read_intent(wait=...)`; another endpoint of the same application does not wait."""
    app = fastapi.FastAPI()
    session_of = typing.Annotated[AsyncSession, FromDI(AsyncSession)]

    @app.get("/patient")
    @read_intent(wait=LONG)
    async def patient(session: session_of) -> tuple[int, bool]:
        return await read(session)

    @app.get("/hasty")
    async def hasty(session: session_of) -> tuple[int, bool]:
        return await read(session)

    @app.post("/")
    async def post(session: session_of) -> None:
        await session.execute(WRITE)
        await session.commit()

    container = Container(
        groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings_of(stock)}
    )
    modern_di_replicas.fastapi.setup_replicas(app, container)
    async with serving(app) as client:
        with replay_paused(stock):
            (await client.post("/")).raise_for_status()
            assert (await client.get("/hasty")).json() == [1, PRIMARY]
            waiting = asyncio.create_task(client.get("/patient"))
            assert await still_waits(waiting)
        assert (await waiting).json() == [1, REPLICA]


@contextlib.asynccontextmanager
async def serving(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client
