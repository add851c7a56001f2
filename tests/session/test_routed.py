"""The cost of routing, its warnings and decisions, and other abilities that a session keeps."""

import asyncio
import gc
import logging
import typing
import weakref

import pytest
import sqlalchemy
import sqlalchemy.exc
from sqlalchemy import event, select, text
from sqlalchemy.orm import ORMExecuteState, Session

from benchmarks.wire import Wire
from modern_di_replicas import STRONG, Intent, ReplicaEngine, RoutedSession, WriteOnReplicaError
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import AUTOCOMMIT, not_behind_a_pooler
from tests.session.conftest import serving
from tests.session.models import Item, Shop


KEYED = select(Item.amount).where(Item.id == 1)


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
async def test_a_keyed_read_is_one_round_trip(shop_cluster: LocalCluster) -> None:
    """INVARIANT: on the wire it is one message batch and one response; neither routing nor the pool adds any."""
    async with Wire(shop_cluster.replicas[0].port) as wire:
        url = shop_cluster.replicas[0].url.replace(str(shop_cluster.replicas[0].port), str(wire.port))
        async with serving(shop_cluster, replicas=[url]) as servers:
            for _ in range(3):  # the first ones connect and prepare
                async with servers.session() as session:
                    await session.get_one(Item, 1)
            wire.round_trips = 0
            async with servers.session() as session:
                assert (await session.get_one(Item, 1)).amount == 10
                assert session.decision.server != "primary"
            await asyncio.sleep(0)
            assert wire.round_trips == 1


@not_behind_a_pooler(AUTOCOMMIT, driver="asyncpg")
@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"])
async def test_the_isolation_is_that_of_the_settings(shop_cluster: LocalCluster, isolation: str) -> None:
    """The server is asked; in autocommit the transaction starts with the statement."""
    async with serving(shop_cluster, read_isolation=isolation) as servers, servers.session() as session:
        first, second = [await session.scalar(text("SELECT now()")) for _ in range(2)]
        level = await session.scalar(text("SHOW transaction_isolation"))

    assert (first == second) is (isolation != "AUTOCOMMIT")
    assert level == ("repeatable read" if isolation == "REPEATABLE READ" else "read committed")


async def test_one_warning_for_each_endpoint_names_it_with_the_statement_and_the_marker(
    shop_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The team is told once, with the facts to act on."""
    async with serving(shop_cluster) as servers:
        for endpoint in ("shop.a", "shop.a", "shop.b"):
            intent = Intent(access=Intent.read().access, endpoint=endpoint)
            async with servers.session(intent=intent) as session:
                await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
                await session.rollback()

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    warnings = [warning for warning in warnings if "no monitor runs" not in warning]
    assert len(warnings) == 2
    assert "shop.a" in warnings[0]
    assert "UPDATE" in warnings[0]
    assert "@write_intent" in warnings[0]
    assert "shop.b" in warnings[1]


async def test_an_error_about_a_write_names_the_same_facts(shop_cluster: LocalCluster) -> None:
    """Nothing was sent, so the session can continue to read."""
    async with serving(shop_cluster, on_write="raise") as servers, servers.session() as session:
        with pytest.raises(WriteOnReplicaError) as caught:
            await session.execute(text("UPDATE item SET amount = 0"))
        assert (caught.value.endpoint, caught.value.statement) == ("shop.show", "UPDATE")
        assert await session.scalar(KEYED) == 10
        assert session.decision.server != "primary"


async def test_the_decision_says_why(shop_cluster: LocalCluster) -> None:
    """For people: where the intent was declared, and the reason for an escalation."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        assert session.decision.reason == "GET"
        await session.execute(KEYED.execution_options(use_primary=True))
        assert session.decision.server == "primary"
        assert session.decision.reason == "GET, escalated: the execution option use_primary"


async def test_the_decision_says_why_a_read_is_on_the_primary(shop_cluster: LocalCluster) -> None:
    """It must see everything, or no replica can serve it; a write needs no reason."""
    strong, plain = Intent.read(consistency=STRONG, reason="GET"), Intent.read(reason="GET")
    async with serving(shop_cluster) as servers:
        for session, reason in (
            (servers.session(intent=strong), "GET, STRONG"),
            (RoutedSession(servers.primary, intent=plain), "GET, an engine chosen by the application"),
            (RoutedSession(servers.primary, intent=Intent.write(reason="POST")), "POST"),
        ):
            async with session:
                assert (session.decision.server, session.decision.reason) == ("primary", reason)


async def test_it_stays_on_the_primary_to_its_end(shop_cluster: LocalCluster) -> None:
    """INVARIANT: reads after an escalation and after commits too, so that time does not run backwards."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        await session.execute(KEYED.execution_options(use_primary=True))
        for end in (session.commit, session.rollback, session.commit):
            assert await session.scalar(text("SELECT pg_is_in_recovery()")) is False
            await end()


async def test_events_of_the_users_own_see_every_statement(shop_cluster: LocalCluster) -> None:
    """A session event may inspect and change a statement, on the replica as on the primary."""
    seen: list[str] = []

    async with serving(shop_cluster) as servers, servers.session() as session:

        @event.listens_for(session.sync_session, "do_orm_execute")
        def only_small(state: ORMExecuteState) -> None:
            seen.append(str(session.decision.server == "primary"))
            if state.is_select:
                state.statement = typing.cast(typing.Any, state.statement).where(Item.amount < 30)

        assert (await session.scalars(select(Item.amount).order_by(Item.id))).all() == [10, 20]
        assert (await session.scalars(select(Item.amount), execution_options={"use_primary": True})).all() == [10, 20]

    assert seen == ["False", "True"]


async def test_a_hook_at_the_begin_of_each_transaction_runs_on_both_servers(shop_cluster: LocalCluster) -> None:
    """Row-level security is set this way; after an escalation the setting applies on the primary."""
    async with serving(shop_cluster, read_isolation="READ COMMITTED") as servers, servers.session() as session:

        @event.listens_for(session.sync_session, "after_begin")
        def set_tenant(sync: Session, transaction: object, connection: typing.Any) -> None:  # noqa: ARG001  # the event's signature
            connection.execute(text("SET LOCAL app.tenant = 'a'"))

        tenant = text("SELECT current_setting('app.tenant')")
        assert await session.scalar(tenant) == "a"
        assert session.decision.server != "primary"
        session.add(Shop(id=2, name="b"))
        await session.flush()
        assert await session.scalar(tenant) == "a"
        assert session.decision.server == "primary"
        await session.rollback()


async def test_a_session_on_the_primary_is_an_ordinary_one(shop_cluster: LocalCluster) -> None:
    """It needs no routing."""
    async with serving(shop_cluster) as servers, RoutedSession(servers.primary) as session:
        assert not isinstance(session.sync_session, ReplicaSession)
        assert session.decision.server == "primary"
        assert await session.scalar(KEYED) == 10


async def test_it_escalates_into_a_connection_that_a_test_put_in_the_place_of_the_primary(
    shop_cluster: LocalCluster,
) -> None:
    """INVARIANT: a test's rolled-back transaction contains the escalated writes as well."""
    async with serving(shop_cluster) as servers:
        async with servers.primary.connect() as connection:
            transaction = await connection.begin()
            async with servers.session(primary=connection) as session:
                assert await session.scalar(KEYED) == 10
                session.add(Item(id=901, shop_id=1, amount=1))
                await session.commit()
            assert await connection.scalar(text("SELECT count(*) FROM item WHERE id = 901")) == 1
            await transaction.rollback()
        async with RoutedSession(servers.primary) as session:
            assert await session.get(Item, 901) is None


async def test_an_error_of_a_flush_inside_a_read_is_the_primarys(shop_cluster: LocalCluster) -> None:
    """The autoflush has already moved the unit of work: its error is raised, and does not count as a lost replica."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        session.add(Item(id=1, shop_id=1, amount=1))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            await session.scalar(KEYED)
        await session.rollback()


async def test_a_flush_without_changes_is_not_a_write(shop_cluster: LocalCluster) -> None:
    """An attribute is set to its current value: no warning, and no error."""
    async with serving(shop_cluster, on_write="raise") as servers, servers.session() as session:
        item = await session.get_one(Item, 1)
        item.amount = 10
        await session.flush()
        assert await session.scalar(KEYED) == 10


async def test_an_engine_with_other_execution_options_still_routes(shop_cluster: LocalCluster) -> None:
    """INVARIANT: an engine with other options must still escalate; for one replica and for all."""
    async with serving(shop_cluster) as servers:
        for engine in (servers.replica, servers.replica.choose()):
            tenant = engine.execution_options(schema_translate_map={None: "tenant"})
            async with RoutedSession(tenant, expire_on_commit=False) as session:
                assert await session.scalar(KEYED) == 77
                assert session.decision.server != "primary"
                session.add(Item(id=2, shop_id=1, amount=78))
                await session.flush()
                assert session.decision.server == "primary"
                assert await session.scalar(select(Item.amount).where(Item.id == 2)) == 78
                assert await session.scalar(text("SELECT count(*) FROM tenant.item")) == 2
                await session.rollback()


async def test_an_engine_with_options_of_one_request_is_freed_after_it(shop_cluster: LocalCluster) -> None:
    """INVARIANT: otherwise every later statement on the replica would pass through its listeners."""
    async with serving(shop_cluster) as servers:
        tenant = servers.replica.execution_options(schema_translate_map={None: "tenant"})
        async with RoutedSession(tenant, expire_on_commit=False) as session:
            assert [amount async for amount in await session.stream_scalars(KEYED)] == [77]
            chosen = weakref.ref(session.sync_session.bind)
        del session, tenant
        gc.collect()
        assert chosen() is None


async def test_a_session_on_an_engine_with_another_isolation_level_uses_the_primary(
    shop_cluster: LocalCluster,
) -> None:
    """A replica has the isolation level of the settings, on which re-running on the primary relies."""
    async with serving(shop_cluster) as servers:
        for engine in (servers.replica, servers.replica.choose()):
            repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
            async with RoutedSession(repeatable, primary=servers.primary) as session:
                assert await session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
                assert session.decision.server == "primary"
                assert session.decision.reason.endswith("escalated: its own isolation level")


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="SQLAlchemy 2.0 has no execution options of a session")
async def test_a_session_with_another_isolation_level_uses_the_primary(shop_cluster: LocalCluster) -> None:
    """A replica has the isolation level of the settings; the primary supports every level."""
    options = {"isolation_level": "SERIALIZABLE"}
    async with serving(shop_cluster) as servers, servers.session(execution_options=options) as session:
        assert await session.scalar(text("SHOW transaction_isolation")) == "serializable"
        assert session.decision.server == "primary"


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="SQLAlchemy 2.0 has no execution options of a session")
async def test_the_execution_options_of_a_session_are_those_of_each_statement(shop_cluster: LocalCluster) -> None:
    """Those that use the primary, and those that stream."""
    async with serving(shop_cluster) as servers:
        async with servers.session(execution_options={"use_primary": True}) as session:
            assert not await session.scalar(text("SELECT pg_is_in_recovery()"))
        async with servers.session(execution_options={"stream_results": True}) as session:
            assert await session.scalar(text("SELECT pg_is_in_recovery()"))


async def test_core_on_the_engine_of_one_replica_is_left_alone(shop_cluster: LocalCluster) -> None:
    """Users of that engine choose the server themselves, and the server decides about each statement."""
    async with serving(shop_cluster) as servers:
        one = servers.replica.choose()
        assert one is typing.cast(ReplicaEngine, one).choose()
        async with one.connect() as connection:
            assert await connection.scalar(text("SELECT set_config('shop.name', 'corner', true)")) == "corner"
            with pytest.raises(sqlalchemy.exc.DBAPIError, match="read-only"):
                await connection.execute(text("UPDATE item SET amount = amount"))


async def test_a_write_without_parameters_of_any_kind_moves_as_well(shop_cluster: LocalCluster) -> None:
    """SQLAlchemy sends it by a separate code path; a standby would take this lock without effect."""
    async with serving(shop_cluster) as servers, servers.session() as session:
        lock = text("SELECT pg_advisory_xact_lock(7)").execution_options(no_parameters=True)
        await session.execute(lock)
        assert session.decision.server == "primary"
