"""Closing a session that has only read from its replica awaits nothing; all others are closed as usual."""

import logging

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas import RoutedSession
from modern_di_replicas.dependencies import close_session
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import AUTOCOMMIT, not_behind_a_pooler
from tests.session.conftest import Servers, serving
from tests.session.models import Account, Item


READ = select(Item.amount).where(Item.id == 1)


def engines(servers: Servers) -> list[AsyncEngine]:
    return [member.engine for member in servers.replica.topology.servers]


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
async def test_a_session_that_has_only_read_is_closed_at_once(shop_cluster: LocalCluster) -> None:
    """INVARIANT: its connection is returned, and its objects are detached."""
    async with serving(shop_cluster) as servers:
        for session in (servers.session(), servers.session()):
            item = await session.get_one(Item, 1)
            assert servers.checked_out() == 1
            assert close_session(session) is None
            assert servers.checked_out() == 0
            assert item.amount == 10
            assert item not in session


@pytest.mark.parametrize("what", ["write", "stream", "elsewhere"])
async def test_a_close_that_sends_a_statement_is_awaited(shop_cluster: LocalCluster, what: str) -> None:
    """The end of a transaction, on either server."""
    async with serving(shop_cluster) as servers:
        session = servers.session()
        await session.scalar(READ)
        if what == "write":
            await session.execute(update(Account).values(balance=Account.balance))
        elif what == "stream":
            await (await session.stream(READ)).all()
        else:
            await session.scalar(text("SELECT 1"), bind_arguments={"bind": servers.primary.sync_engine})
            await session.scalar(READ)
        closing = close_session(session)
        assert closing is not None
        assert servers.checked_out() > 0
        await closing
        assert servers.checked_out() == 0


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
@pytest.mark.parametrize("moment", ["reset", "checkin"])
async def test_a_listener_of_the_pool_may_send_something(
    shop_cluster: LocalCluster, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For example a listener that resets a setting of the unit of work; the connection is kept."""
    asked = []

    def ask(connection: DBAPIConnection, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        asked.append(cursor.fetchone())

    async with serving(shop_cluster) as servers:
        for engine in engines(servers):
            event.listen(engine.sync_engine, moment, ask)
        with caplog.at_level(logging.ERROR):
            for _ in range(4):
                async with servers.session() as session:
                    await session.scalar(READ)

    assert len(asked) == 4
    assert len(set(asked)) == 2, "two replicas, each with one connection"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_overridden_close_is_called(shop_cluster: LocalCluster) -> None:
    """The class may do anything in it."""
    closed = []

    class OwnSession(RoutedSession):
        async def close(self) -> None:
            closed.append(self)
            await super().close()

    async with serving(shop_cluster) as servers:
        async with OwnSession(servers.replica) as session:
            await session.scalar(READ)
        assert closed == [session]
