"""Writes of a client while its unit of work reads."""

import collections.abc
import contextlib
import typing

import pytest
from modern_di import Container, Scope
from sqlalchemy import select, text, update

from modern_di_replicas import (
    EVENTUAL,
    Cause,
    Dependencies,
    Intent,
    Monitor,
    NoReplicaAvailable,
    PrimaryEngine,
    ReplicationSettings,
    RoutedSession,
    SessionFactory,
)
from modern_di_replicas.consistency.client import Client, current_client, request_of
from modern_di_replicas.observability import Escalated, Event
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Account
from tests.waiting import until


BALANCE = select(Account.balance).where(Account.id == 1)
IN_RECOVERY = text("SELECT pg_is_in_recovery()")


@pytest.fixture(autouse=True)
def rows_as_they_were(shop_cluster: LocalCluster) -> collections.abc.Iterator[None]:
    """Restore the account for other tests."""
    yield
    shop_cluster.primary.execute("UPDATE account SET balance = 100 WHERE id = 1")
    shop_cluster.catch_up()


@contextlib.contextmanager
def paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    """Pause the replay of the replicas."""
    cluster.catch_up()
    for server in cluster.replicas:
        server.pause_replay()
    try:
        yield
    finally:
        for server in cluster.replicas:
            server.resume_replay()
        cluster.catch_up()


@contextlib.asynccontextmanager
async def request(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.AsyncIterator[Servers]:
    """Yield the servers to a request whose client has written nothing."""
    async with serving(cluster, **settings) as servers, Monitor(servers.replica):
        with request_of(Client(is_request=True)):
            yield servers


async def add_one(primary: PrimaryEngine) -> int:
    """Write outside the session of the unit of work, and return the value in the table."""
    async with primary.begin() as connection:
        added = update(Account).where(Account.id == 1).values(balance=Account.balance + 1).returning(Account.balance)
        return typing.cast(int, await connection.scalar(added))


@pytest.mark.parametrize("reads_before", [False, True])
async def test_a_read_includes_writes_by_core_in_the_same_request(
    shop_cluster: LocalCluster, reads_before: bool
) -> None:
    """INVARIANT: the replica was chosen before the write, and must not be read while it lacks it."""
    told: list[Event] = []
    hook = type("Hook", (), {"on_event": lambda _, happened: told.append(happened)})()
    async with request(shop_cluster, hooks=[hook]) as servers, servers.session() as session:
        with paused(shop_cluster):
            if reads_before:
                assert await session.scalar(IN_RECOVERY) is True
            written = await add_one(servers.primary)
            assert await session.scalar(BALANCE) == written
        assert session.decision.cause is Cause.NOT_FRESH
    assert [happened.cause for happened in told if isinstance(happened, Escalated)] == [Cause.NOT_FRESH]


async def test_a_read_stays_on_the_replica_that_has_caught_up(shop_cluster: LocalCluster) -> None:
    """It waits as a read of the next request does, and only once per write."""
    async with request(shop_cluster, catch_up_wait=10.0) as servers, servers.session() as session:
        written = await add_one(servers.primary)
        for _ in range(2):
            assert await session.scalar(BALANCE) == written
            assert await session.scalar(IN_RECOVERY) is True
        assert session.decision.cause is Cause.REPLICA


async def test_a_read_needs_no_answer_of_a_replica_that_is_known_to_have_the_write(shop_cluster: LocalCluster) -> None:
    """The monitor knows its position."""
    async with request(shop_cluster, catch_up_wait=0.0) as servers, servers.session() as session:
        await add_one(servers.primary)
        token = current_client().token
        assert token is not None
        name = session.decision.server
        await until(lambda: servers.replica.topology.positions.reached.get(name, 0) >= token.lsn)
        assert await session.scalar(IN_RECOVERY) is True


async def test_a_commit_without_an_answer_moves_the_next_read(shop_cluster: LocalCluster) -> None:
    """INVARIANT: if the write was committed, only the primary is known to have it."""
    async with request(shop_cluster) as servers, servers.session() as session:
        assert await session.scalar(IN_RECOVERY) is True
        current_client().begin_write()
        assert await session.scalar(IN_RECOVERY) is False
        assert session.decision.cause is Cause.POSITION_UNKNOWN


async def test_without_reads_of_the_primary_there_is_an_error(shop_cluster: LocalCluster) -> None:
    """As for a read of the next request."""
    async with request(shop_cluster, primary_reads=False) as servers, servers.session() as session:
        with paused(shop_cluster):
            await add_one(servers.primary)
            with pytest.raises(NoReplicaAvailable):
                await session.scalar(BALANCE)


async def test_a_level_that_does_not_ask_for_it_stays(shop_cluster: LocalCluster) -> None:
    """`EVENTUAL` may read any replica."""
    intent = Intent.read(consistency=EVENTUAL)
    async with request(shop_cluster) as servers, servers.session(intent=intent) as session:
        with paused(shop_cluster):
            await add_one(servers.primary)
            assert await session.scalar(IN_RECOVERY) is True


async def test_a_transaction_keeps_its_snapshot_to_its_end(shop_cluster: LocalCluster) -> None:
    """INVARIANT: its statements depend on earlier ones, such as a SET LOCAL; the next transaction sees the write."""
    intent = Intent.read(isolation="REPEATABLE READ")
    async with request(shop_cluster) as servers, servers.session(intent=intent) as session:
        with paused(shop_cluster):
            before = await session.scalar(BALANCE)
            written = await add_one(servers.primary)
            assert await session.scalar(BALANCE) == before
            await session.rollback()
            assert await session.scalar(BALANCE) == written


async def test_a_shared_host_name_is_asked_on_a_new_connection(shop_cluster: LocalCluster) -> None:
    """INVARIANT: the current connection may lead to a server without the write."""
    async with request(shop_cluster) as servers, servers.session() as session:
        await session.scalar(IN_RECOVERY)
        servers.replica.topology.positions.several |= {session.decision.server}
        with paused(shop_cluster):
            written = await add_one(servers.primary)
            assert await session.scalar(BALANCE) == written
        assert session.decision.cause is Cause.NOT_FRESH


async def test_another_session_of_the_unit_of_work_has_written(shop_cluster: LocalCluster) -> None:
    """INVARIANT: an open session also sees the commits of the other one."""
    async with serving(shop_cluster) as servers, Monitor(servers.replica):
        container = Container(groups=[Dependencies], context={ReplicationSettings: servers.settings})
        context = {Intent: Intent.read()}
        with (
            request_of(Client(is_request=True)),
            container.override(Dependencies.primary, servers.primary),
            container.override(Dependencies.replica, servers.replica),
        ):
            async with container, container.build_child_container(scope=Scope.REQUEST, context=context) as unit:
                session, sessions = unit.resolve(RoutedSession), unit.resolve(SessionFactory)
                with paused(shop_cluster):
                    before = await session.scalar(BALANCE)
                    async with sessions() as other:
                        await other.execute(update(Account).values(balance=Account.balance + 1))
                        await other.commit()
                    assert await session.scalar(BALANCE) == (before or 0) + 1
