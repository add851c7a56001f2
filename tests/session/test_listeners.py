"""Listeners and execution options of the engine of all replicas apply to the connections of each replica."""

import collections
import json
import typing

import pytest
import sqlalchemy.exc
from psycopg.types.json import set_json_loads
from sqlalchemy import Engine, event, select, text

from modern_di_replicas import Intent, Monitor, ReplicaEngine, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving
from tests.session.models import Item


SQL = text("SELECT 1")


def reading(engine: ReplicaEngine) -> RoutedSession:
    return RoutedSession(engine, intent=Intent.read())


async def read(servers: Servers, engine: ReplicaEngine | None = None) -> None:
    """Read once from each replica in a session."""
    for _ in servers.cluster.replicas:
        async with reading(engine or servers.replica) as session:
            await session.execute(SQL)


async def read_through_core(servers: Servers) -> None:
    for _ in servers.cluster.replicas:
        async with servers.replica.connect() as connection:
            await connection.execute(SQL)


def names(servers: Servers) -> set[str]:
    return {server.name for server in servers.replica.topology.servers if not server.is_declared_primary}


EVENTS_OF_A_READ = [
    ("do_connect", 1),
    ("connect", 1),
    ("first_connect", 1),
    ("checkout", 2),
    ("reset", 2),
    ("checkin", 2),
    ("engine_connect", 2),
    ("before_execute", 2),
    ("after_execute", 2),
    ("before_cursor_execute", 2),
    ("after_cursor_execute", 2),
]


@pytest.mark.parametrize("through", ["sessions", "Core"])
async def test_a_listener_is_called_once_for_each_event_of_each_replica(
    shop_cluster: LocalCluster, through: str
) -> None:
    """Two reads on each replica connect once and check out twice, in sessions and through the engine itself."""
    called: collections.Counter[str] = collections.Counter()
    async with serving(shop_cluster) as servers:
        for name, _ in EVENTS_OF_A_READ:
            event.listen(servers.replica.sync_engine, name, lambda *_, name=name: called.update([name]))
        reads = read if through == "sessions" else read_through_core
        for _ in range(2):
            await reads(servers)
        assert dict(called) == {name: times * len(shop_cluster.replicas) for name, times in EVENTS_OF_A_READ}


@pytest.mark.parametrize("through", ["sessions", "Core"])
async def test_a_listener_of_the_dialect_is_called_once_for_each_statement(
    shop_cluster: LocalCluster, through: str
) -> None:
    """Once the dialects are initialised, `do_execute` is called only for the application's statements."""
    statements: list[str] = []
    async with serving(shop_cluster) as servers:
        reads = read if through == "sessions" else read_through_core
        await reads(servers)
        event.listen(servers.replica.sync_engine, "do_execute", lambda *details: statements.append(details[1]))
        await reads(servers)
    assert statements == ["SELECT 1"] * len(shop_cluster.replicas)


async def test_a_listener_that_is_added_late_is_called_and_one_that_is_removed_is_not(
    shop_cluster: LocalCluster,
) -> None:
    """An added listener is called for pooled connections that are already open, and a removed one no longer."""
    statements: list[str] = []

    def note(*details: typing.Any) -> None:
        statements.append(details[2])

    async with serving(shop_cluster) as servers:
        engine = servers.replica.sync_engine
        await read(servers)
        event.listen(engine, "before_cursor_execute", note)
        assert event.contains(engine, "before_cursor_execute", note)
        await read(servers)
        event.remove(engine, "before_cursor_execute", note)
        await read(servers)
    assert statements == ["SELECT 1"] * len(shop_cluster.replicas)


async def test_the_listeners_of_a_pool_stay_when_it_is_replaced(shop_cluster: LocalCluster) -> None:
    """`dispose()` and terminations replace pools; `event.remove` still finds the listener afterwards."""
    connected: list[object] = []

    def note(*details: object) -> None:
        connected.append(details[1])

    async with serving(shop_cluster) as servers:
        engine = servers.replica.sync_engine
        event.listen(engine, "connect", note)
        await read(servers)
        await servers.replica.dispose()
        await read(servers)
        assert len(connected) == 2 * len(shop_cluster.replicas)
        assert None not in connected
        event.remove(engine, "connect", note)
        await servers.replica.dispose()
        await read(servers)
        assert len(connected) == 2 * len(shop_cluster.replicas)


async def test_a_codec_of_a_connect_listener_applies_to_each_connection(shop_cluster: LocalCluster) -> None:
    """The same query returns the same Python type from each replica, in sessions and through the engine."""
    kinds = set()
    query = text("""SELECT '{"a": 1}'::jsonb""")
    async with serving(shop_cluster) as servers:

        @event.listens_for(servers.replica.sync_engine, "connect")
        def set_codec(connection: typing.Any, _: object) -> None:
            opened = connection.driver_connection
            if not hasattr(opened, "set_type_codec"):
                set_json_loads(lambda value: ("ours", value), opened)
                return
            connection.run_async(
                lambda driver: driver.set_type_codec(
                    "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=lambda value: ("ours", value)
                )
            )

        for _ in shop_cluster.replicas:
            async with servers.session() as session:
                kinds.add(type(await session.scalar(query)))
            async with servers.replica.connect() as connection:
                kinds.add(type(await connection.scalar(query)))
    assert kinds == {tuple}


async def test_a_listener_of_the_class_is_called_once(shop_cluster: LocalCluster) -> None:
    """A listener on all engines, such as Sentry's, is called once per statement and connection of a replica."""
    statements: list[str] = []
    records: list[object] = []

    def note(*details: typing.Any) -> None:
        statements.append(details[2])

    def note_connection(*details: object) -> None:
        records.append(details[1])

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "connect", note_connection)
    try:
        async with serving(shop_cluster) as servers:
            await read(servers)
            async with servers.replica.connect() as connection:
                await connection.execute(text("SELECT 2"))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        event.remove(Engine, "connect", note_connection)
    assert [one for one in statements if one.startswith("SELECT ")].count("SELECT 1") == len(shop_cluster.replicas)
    assert statements.count("SELECT 2") == 1
    assert len(records) == len(shop_cluster.replicas)
    assert None not in records


async def test_no_listener_sees_a_statement_that_is_not_sent(shop_cluster: LocalCluster) -> None:
    """A textual write moves to the primary before the replica's listeners get its cursor, and no error is handled."""
    seen: list[str] = []
    async with serving(shop_cluster) as servers:
        engine = servers.replica.sync_engine
        await read(servers)
        for name in ("before_cursor_execute", "after_cursor_execute", "do_execute", "handle_error"):
            event.listen(engine, name, lambda *_, name=name: seen.append(name))
        async with servers.session() as session:
            await session.execute(text("UPDATE item SET amount = amount WHERE id = 1"))
            await session.rollback()
        async with servers.session() as session:
            await session.execute(select(Item).where(Item.id == 1).with_for_update())
            await session.rollback()
    assert seen == []


async def test_an_error_of_a_replica_is_handled_once(shop_cluster: LocalCluster) -> None:
    """`handle_error` is called for a statement that the replica refused."""
    errors: list[str] = []
    async with serving(shop_cluster) as servers:
        event.listen(servers.replica.sync_engine, "handle_error", lambda context: errors.append(str(context.statement)))
        async with servers.session() as session:
            with pytest.raises(Exception, match="division by zero"):
                await session.execute(text("SELECT 1/0"))
    assert errors == ["SELECT 1/0"]


async def test_listeners_of_optioned_replicas_are_called_for_their_connections_only(
    shop_cluster: LocalCluster,
) -> None:
    """As with `Engine.execution_options()`, listeners on the returned engine get only its connections."""
    seen: list[object] = []
    async with serving(shop_cluster) as servers:
        tenant = servers.replica.execution_options(schema_translate_map={None: "tenant"})
        again = tenant.execution_options(logging_token="again")
        event.listen(tenant.sync_engine, "engine_connect", lambda connection: seen.append(connection.engine))
        await read(servers)
        assert seen == []
        await read(servers, tenant)
        assert len(seen) == len(shop_cluster.replicas)
        await read(servers, again)
        assert len(seen) == 2 * len(shop_cluster.replicas)
        async with reading(again) as session:
            assert await session.scalar(select(Item.amount)) == 77
        assert {name: engine.sync_engine for name, engine in tenant.engines.items()}.keys() >= names(servers)


async def test_options_can_be_changed_in_place(shop_cluster: LocalCluster) -> None:
    """`update_execution_options()` applies to each replica's sessions, to Core, and after an escalation."""
    async with serving(shop_cluster) as servers:
        await read(servers)
        servers.replica.update_execution_options(schema_translate_map={None: "tenant"})
        for _ in shop_cluster.replicas:
            async with servers.session() as session:
                assert await session.scalar(select(Item.amount)) == 77
        async with servers.replica.connect() as connection:
            assert await connection.scalar(select(Item.amount)) == 77
        async with servers.session() as session:
            assert await session.scalar(select(Item.amount).with_for_update()) == 77
            await session.rollback()


async def test_the_options_of_optioned_replicas_can_be_changed_in_place(shop_cluster: LocalCluster) -> None:
    """They change for sessions of the optioned engine, but not for those of the original engine."""
    async with serving(shop_cluster) as servers:
        optioned = servers.replica.execution_options(logging_token="report")
        await read(servers, optioned)
        optioned.update_execution_options(schema_translate_map={None: "tenant"})
        async with reading(optioned) as session:
            assert await session.scalar(select(Item.amount)) == 77
        async with servers.session() as session:
            assert await session.scalar(select(Item.amount).where(Item.id == 1)) == 10


@pytest.mark.parametrize("moment", ["connect", "checkout"])
async def test_a_connection_that_is_lost_in_a_listener_is_replaced(shop_cluster: LocalCluster, moment: str) -> None:
    """Such listeners often set a role or a tenant; as for a statement, a lost connection is not a lost server."""
    called: list[object] = []

    def end_once(connection: typing.Any, *_: object) -> None:
        called.append(connection)
        cursor = connection.cursor()
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())" if len(called) == 1 else "SELECT 1")
        cursor.close()
        connection.rollback()

    async with serving(shop_cluster, primary_reads=False) as servers:
        event.listen(servers.replica.sync_engine, moment, end_once)
        async with reading(servers.replica) as session:
            await session.execute(SQL)
        assert len(called) == 2
        assert not any(server.engine.health.is_down for server in servers.replica.topology.servers)


@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute", "checkout"])
async def test_an_error_of_the_drivers_type_in_a_listener_ejects_no_server(
    shop_cluster: LocalCluster, moment: str
) -> None:
    """INVARIANT: another database's client raises the same type; only a connection that is closed is lost."""
    raised: list[Exception] = []
    settings: dict[str, typing.Any] = {"replicas": [shop_cluster.replicas[0].url], "primary_reads": False}
    async with serving(shop_cluster, **settings) as servers:
        await read(servers)
        kind = servers.settings.driver.lost_connection[1]

        def fail(*_: object) -> None:
            raised.append(kind("of another database"))
            raise raised[-1]

        event.listen(servers.replica.sync_engine, moment, fail)
        async with reading(servers.replica) as session:
            with pytest.raises((kind, sqlalchemy.exc.DBAPIError)) as caught:  # SQLAlchemy wraps psycopg's error
                await session.execute(SQL)
            assert [getattr(caught.value, "orig", caught.value)] == raised
        event.remove(servers.replica.sync_engine, moment, fail)
        assert not any(server.engine.health.is_down for server in servers.replica.topology.servers)
        await read(servers)


def of_another_engine(message: str) -> Exception:
    return sqlalchemy.exc.DBAPIError(message, (), ConnectionRefusedError())


@pytest.mark.parametrize("kind", [ConnectionRefusedError, TimeoutError, of_another_engine])
@pytest.mark.parametrize("moment", ["do_connect", "connect", "checkout"])
async def test_an_error_of_a_listener_to_the_primary_is_raised_once(
    shop_cluster: LocalCluster, moment: str, kind: collections.abc.Callable[[str], Exception]
) -> None:
    """INVARIANT: only an unreachable primary is waited for and connected to again."""
    raised: list[Exception] = []

    def fail(*_: object) -> None:
        raised.append(kind("of the application"))
        raise raised[-1]

    async with serving(shop_cluster) as servers, Monitor(servers.replica):
        event.listen(servers.primary.sync_engine, moment, fail)
        async with RoutedSession(servers.primary) as session:
            with pytest.raises(type(kind(""))) as caught:
                await session.execute(SQL)
        assert [caught.value] == raised
