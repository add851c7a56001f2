"""Several sessions in one unit of work: one per task of a `gather`."""

import asyncio
import collections.abc
import contextlib
import dataclasses

import pytest
from modern_di import Container, Scope
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import (
    STRONG,
    ConfigurationError,
    ConsistencyToken,
    Dependencies,
    Intent,
    Monitor,
    ReplicationSettings,
    RoutedSession,
    SessionFactory,
    current_token,
)
from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Account


WHERE = text("SELECT inet_server_port()")
IN_RECOVERY = text("SELECT pg_is_in_recovery()")
WRITE = update(Account).values(balance=Account.balance)  # one row, so the order cannot change


@contextlib.asynccontextmanager
async def unit_of_work(
    cluster: LocalCluster, intent: Intent | None = None
) -> collections.abc.AsyncIterator[tuple[AsyncSession, SessionFactory, Servers]]:
    """Yield the session of a unit of work, its factory, and the servers; verify that all connections are returned."""
    async with serving(cluster) as servers:
        container = Container(groups=[Dependencies], context={ReplicationSettings: servers.settings})
        with (
            container.override(Dependencies.primary, servers.primary),
            container.override(Dependencies.replica, servers.replica),
        ):
            async with container:
                context = {Intent: intent or Intent.read()}
                async with container.build_child_container(scope=Scope.REQUEST, context=context) as unit:
                    yield unit.resolve(AsyncSession), unit.resolve(SessionFactory), servers
        assert servers.checked_out() == 0


async def test_tasks_at_once_read_from_one_replica(shop_cluster: LocalCluster) -> None:
    """INVARIANT: all use the server of the unit of work, each on its own connection, so time does not run backwards."""
    async with unit_of_work(shop_cluster) as (session, sessions, servers):

        async def read() -> int | None:
            async with sessions() as one:
                await one.execute(text("SELECT pg_sleep(0.02)"))
                port: int | None = await one.scalar(WHERE)
                return port

        ports = await asyncio.gather(*(read() for _ in range(5)))
        assert {*ports, await session.scalar(WHERE)} == {ports[0]}
        assert ports[0] in {replica.port for replica in shop_cluster.replicas}
        assert servers.checked_out() == 1


async def test_sessions_opened_after_an_escalation_start_on_the_primary(shop_cluster: LocalCluster) -> None:
    """Open sessions stay where they are."""
    async with unit_of_work(shop_cluster) as (session, sessions, _), sessions() as before, sessions() as writing:
        assert await before.scalar(IN_RECOVERY) is True
        await writing.execute(WRITE)
        assert await before.scalar(IN_RECOVERY) is True
        assert await session.scalar(IN_RECOVERY) is True
        async with sessions() as after:
            assert after.decision.server == "primary"
            assert await after.scalar(IN_RECOVERY) is False
            assert after.decision.reason == writing.decision.reason


async def test_an_escalation_before_the_first_one_counts(shop_cluster: LocalCluster) -> None:
    """The injected session belongs to the unit of work."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        await session.execute(WRITE)
        async with SessionFactory(session)() as another:
            assert await another.scalar(IN_RECOVERY) is False
        await session.rollback()


async def test_a_session_that_was_forgotten_is_closed_with_the_unit_of_work(shop_cluster: LocalCluster) -> None:
    """INVARIANT: a session that was closed explicitly is not kept until then."""
    async with unit_of_work(shop_cluster) as (_, sessions, servers):
        forgotten = sessions()
        await forgotten.scalar(WHERE)
        async with sessions() as closed:
            await closed.execute(WRITE)
        async with sessions() as closed:
            await closed.scalar(WHERE)
        assert servers.checked_out() == 1
        assert sessions._open == {forgotten}  # noqa: SLF001  # a leak shows in it alone


async def test_the_sessions_are_made_like_the_one_that_is_injected(shop_cluster: LocalCluster) -> None:
    """They have its class, and its options unless others are given."""

    class OwnSession(RoutedSession): ...

    async with serving(shop_cluster) as servers:
        session = OwnSession(servers.replica, intent=Intent.read(), autoflush=False, info={"tenant": 1})
        sessions = SessionFactory(session)
        async with sessions() as one, sessions(autoflush=True) as other:
            assert type(one) is type(other) is OwnSession
            assert (one.autoflush, other.autoflush) == (False, True)
            assert one.info == {"tenant": 1}


async def test_sessions_of_a_unit_of_work_on_the_primary_use_the_primary(shop_cluster: LocalCluster) -> None:
    """A unit of work that writes, and a read that has to see everything."""
    for intent in (Intent.write(), Intent.read(consistency=STRONG)):
        async with unit_of_work(shop_cluster, intent) as (_, sessions, _), sessions() as one:
            assert await one.scalar(IN_RECOVERY) is False
            assert one.decision.server == "primary"


async def test_the_writes_of_a_task_are_known_to_the_task_that_awaits_it(shop_cluster: LocalCluster) -> None:
    """Both have the same client: the token of a child task is the job's."""

    async def job() -> None:
        async with unit_of_work(shop_cluster, Intent.write()) as (_, sessions, _):

            async def write() -> None:
                async with sessions() as one, one.begin():
                    await one.execute(WRITE)

            assert current_token() is None
            await asyncio.gather(write(), write())
            assert current_token() is not None

    await asyncio.create_task(job())


def test_without_a_routed_session_it_is_refused() -> None:
    """A provider of the application may return any session; further ones like it could not be routed."""
    with pytest.raises(ConfigurationError) as caught:
        SessionFactory(AsyncSession())
    assert caught.value.field == "session"


async def test_waiting_sessions_read_from_the_replica_that_was_found_first(
    shop_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVARIANT: with several candidates, the tasks of one unit of work would otherwise see different states."""
    async with serving(shop_cluster) as servers, Monitor(servers.replica):
        async with RoutedSession(servers.primary) as writer, writer.begin():
            await writer.execute(WRITE)
        members = [server.engine for server in servers.replica.topology.servers if not server.is_declared_primary]
        turn = iter([*members, None, *members])

        async def find(engine: CatchUpEngine) -> object:  # noqa: ARG001
            await asyncio.sleep(0)
            return next(turn)

        monkeypatch.setattr(CatchUpEngine, "catch_up", find)
        beyond = dataclasses.replace(_token(), lsn=_token().lsn + 2**40)
        for expected in ("found", "not found"):
            session = RoutedSession(servers.replica, intent=Intent.read(after=beyond))
            sessions = SessionFactory(session)
            opened = [sessions() for _ in range(2)]
            ports = await asyncio.gather(*(one.scalar(WHERE) for one in opened))
            assert len(set(ports)) == 1, expected
            assert await session.scalar(WHERE) == ports[0]
            assert (ports[0] == shop_cluster.primary.port) is (expected == "not found")
            async with sessions() as late:
                assert await late.scalar(WHERE) == ports[0]
            await sessions.close()
            await session.close()


def _token() -> ConsistencyToken:
    token = current_token()
    assert token is not None
    return token
