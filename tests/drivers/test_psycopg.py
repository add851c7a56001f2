"""psycopg's specifics, and the basics of routing, faults and tokens; `pytest --driver psycopg` runs the whole suite."""

import asyncio
import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from modern_di_replicas import Monitor, RoutedSession, StaleWriteError
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.drivers.psycopg import Psycopg
from modern_di_replicas.session.replica import ReplicaSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, create_shop, serving
from tests.session.models import Item
from tests.statements import until_running
from tests.waiting import until


@pytest.fixture
def disposable_shop(disposable_cluster: LocalCluster) -> LocalCluster:
    asyncio.run(create_shop(disposable_cluster))
    return disposable_cluster


def on_psycopg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def served(cluster: LocalCluster, **settings: typing.Any) -> collections.abc.AsyncIterator[Servers]:
    urls = [on_psycopg(server.url) for server in cluster.servers]
    options = {"primary": urls[0], "replicas": urls[1:], "probe_interval": 0.1, **settings}
    async with serving(cluster, **options) as servers, Monitor(servers.replica):
        yield servers


async def port_of(session: RoutedSession) -> int:
    return typing.cast(int, await session.scalar(text("SELECT inet_server_port()")))


# Arguments


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("connect_timeout", 5, "connect_timeout"),
        ("host", "db-9", "URL"),
        ("autocommit", True, "the library sets it"),
        ("tiemout", 5, "no such"),
        ("ssl", True, "sslmode"),
        ("server_settings", {"jit": "off"}, "options="),
        ("sslmode", "verify-ful", "verify-full"),
        ("sslrootcert", "/nowhere/ca.pem", "exists"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(name: str, value: object, hint: str) -> None:
    """Libpq would fail at each attempt to connect, as if the server were down."""
    remedy = Psycopg().argument_remedy(name, value)

    assert remedy is not None
    assert hint in remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", lambda: "secret"),
        ("sslmode", "verify-full"),
        ("sslrootcert", "system"),
        ("sslcert", __file__),
        ("options", "-c jit=off"),
        ("prepare_threshold", None),
    ],
)
def test_arguments_of_the_driver_are_passed_on(name: str, value: object) -> None:
    """Psycopg's own arguments, and libpq's."""
    assert Psycopg().argument_remedy(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("host", ("db-1:5432", "db-2:5432"), None),
        ("target_session_attrs", "any", None),
        ("sslmode", "verify-ful", "verify-full"),
        ("prepare_threshold", "5", "not text"),
        ("application_name", "x", "application_name"),
        ("ssl", "require", "no such parameter"),
    ],
)
def test_a_parameter_of_a_url_is_libpqs(name: str, value: str | tuple[str, ...], hint: str | None) -> None:
    """Parameters that the settings own are refused, and those that libpq does not know."""
    remedy = Psycopg().parameter_remedy(name, value)

    assert (remedy is None) if hint is None else (hint in str(remedy))


@pytest.mark.parametrize(
    ("part", "value", "sqlstate"), [("password", "wrong", "28P01"), ("database", "nowhere", "3D000")]
)
async def test_why_a_server_refuses_is_read_from_its_message(
    replicated_cluster: LocalCluster, part: str, value: str, sqlstate: str
) -> None:
    """Libpq has no SQLSTATE for it."""
    driver = Psycopg()
    url = make_url(on_psycopg(replicated_cluster.primary.url))
    url = url.set(password=value) if part == "password" else url.set(database=value)
    with pytest.raises(driver.errors) as caught:
        await driver.connect(url, driver.connect_args({}, application_name="x", timeout=10, pooled=False))

    assert driver.sqlstate(caught.value) == sqlstate
    assert driver.sqlstate(OSError()) is None


# Connections


async def test_a_connection_is_terminated_while_another_task_waits_on_it(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: psycopg allows only that task to close it; it is woken instead of waiting for a silent server."""
    driver = Psycopg()
    arguments = driver.connect_args({}, application_name="x", timeout=10, pooled=False)
    connection = await driver.connect(make_url(on_psycopg(replicated_cluster.primary.url)), arguments)
    waiting = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await until(connection.lock.locked)

    driver.terminate(connection)

    with pytest.raises(driver.lost_connection):
        await waiting
    assert driver.is_closed(connection)
    driver.terminate(connection)  # a second termination has no effect
    await driver.end_statement(connection)


async def test_a_failed_attempt_to_connect_leaves_no_connection_open() -> None:
    """INVARIANT: otherwise it would stay open while its error is referenced, for example by a log record."""
    accepted, ended = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        accepted.set()
        await reader.read()  # the end of the connection; nothing is answered
        ended.set()
        writer.close()

    driver = Psycopg()
    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        url = make_url(f"postgresql+psycopg://app@127.0.0.1:{server.sockets[0].getsockname()[1]}/shop")
        arguments = driver.connect_args({}, application_name="x", timeout=60, pooled=False)
        connecting = asyncio.create_task(driver.connect(url, arguments))
        await asyncio.wait_for(accepted.wait(), 30)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError) as kept:
            await connecting

        await asyncio.wait_for(ended.wait(), 30)
        assert kept.value is not None


async def test_a_connection_to_a_stopped_server_can_be_terminated_twice(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: its socket is no longer connected, which must not fail the monitor."""
    driver = Psycopg()
    arguments = driver.connect_args({}, application_name="x", timeout=10, pooled=False)
    connection = await driver.connect(make_url(on_psycopg(replicated_cluster.primary.url)), arguments)
    waiting = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await until(connection.lock.locked)
    # The event loop is blocked, so that the waiting task does not notice yet.
    replicated_cluster.primary.execute(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 10000)")

    driver.terminate(connection)
    driver.terminate(connection)

    with pytest.raises(driver.lost_connection):
        await waiting
    assert driver.is_closed(connection)


async def test_a_question_begins_no_transaction(replicated_cluster: LocalCluster) -> None:
    """Psycopg would begin one for each statement, and it would stay open."""
    driver = Psycopg()
    url = make_url(on_psycopg(replicated_cluster.primary.url))

    async def password() -> str | None:
        return url.password

    arguments = driver.connect_args({"password": password}, application_name="x", timeout=10, pooled=True)
    connection = await driver.connect(url.set(password="wrong"), arguments)
    await connection.set_autocommit(False)

    assert await driver.fetch_row(connection, "SELECT 1 AS n") == {"n": 1}
    assert driver.has_nothing_to_roll_back(connection)
    assert connection.autocommit is False
    with pytest.raises(driver.errors):
        await driver.fetch_row(connection, "SELECT 1 / 0 AS n")
    assert driver.has_nothing_to_roll_back(connection)
    assert connection.prepare_threshold is None
    await driver.close(connection, within=1)


# The basics


async def test_reads_go_to_a_replica_and_writes_to_the_primary(disposable_shop: LocalCluster) -> None:
    """Foreseen writes, writes refused by the replica, flushes, streams, and the guard against lost updates."""
    primary = disposable_shop.primary.port
    async with served(disposable_shop) as servers:
        async with servers.session() as session:
            assert isinstance(session.sync_session, ReplicaSession)
            assert await port_of(session) != primary
            rows = await session.stream_scalars(text("SELECT generate_series(1, 3)"))
            assert await rows.all() == [1, 2, 3]
            item = await session.get_one(Item, 1)
            await session.execute(text("INSERT INTO item VALUES (900, 1, 5)"))
            assert await port_of(session) == primary
            item.amount += 1
            with pytest.raises(StaleWriteError):
                await session.commit()
        async with servers.session() as session:
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.scalar(text("SELECT 1 / 0"))
        async with servers.session() as session:
            session.add(Item(id=901, shop_id=1, amount=1))
            await session.commit()
            assert await port_of(session) == primary


async def test_a_client_reads_its_writes(disposable_shop: LocalCluster) -> None:
    """The token is read after the commit, and the replicas are asked for their replayed position."""
    async with served(disposable_shop, catch_up_wait=5.0) as servers:
        client = Client(is_request=True)
        with request_of(client):
            for amount in range(5):
                async with RoutedSession(servers.primary) as session:
                    (await session.get_one(Item, 1)).amount = amount
                    await session.commit()
                assert client.token is not None
                async with servers.session() as session:
                    assert (await session.get_one(Item, 1)).amount == amount


@pytest.mark.parametrize("fault", ["freeze", "crash"])
async def test_a_replica_that_fails_costs_no_read(disposable_shop: LocalCluster, fault: str) -> None:
    """Waiting statements are run again elsewhere."""
    async with served(disposable_shop, replicas=[on_psycopg(disposable_shop.replicas[0].url)]) as servers:
        victim = disposable_shop.replicas[0]
        async with servers.session() as session:
            assert await port_of(session) == victim.port
            waiting = asyncio.create_task(session.scalar(text("SELECT 1 FROM pg_sleep(0.3)")))
            await until_running(victim, "pg_sleep(0.3)")
            await asyncio.to_thread(victim.freeze if fault == "freeze" else lambda: victim.stop("immediate"))
            assert await waiting == 1
            assert await port_of(session) == disposable_shop.primary.port
        if fault == "freeze":
            victim.thaw()


async def test_writes_follow_a_promotion(disposable_shop: LocalCluster) -> None:
    """Connections to the former primary are closed; new ones lead to the new primary."""
    primary, first, _ = disposable_shop.servers
    async with served(disposable_shop) as servers:
        async with RoutedSession(servers.primary) as session:
            assert await port_of(session) == primary.port
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: servers.replica.topology.leader == f"127.0.0.1:{first.port}")
        async with RoutedSession(servers.primary) as session:
            session.add(Item(id=902, shop_id=1, amount=1))
            await session.commit()
            assert await port_of(session) == first.port


async def test_a_migration_costs_no_read_in_autocommit(replicated_cluster: LocalCluster) -> None:
    """Psycopg prepares a statement at its fifth execution, and on its own would reuse the invalid plan."""
    replicated_cluster.primary.execute("CREATE TABLE migrated (n int); INSERT INTO migrated VALUES (1)")
    replicated_cluster.catch_up()
    async with served(replicated_cluster, replicas=[on_psycopg(replicated_cluster.replicas[0].url)]) as servers:
        expected: object = 1
        for number in range(12):
            async with servers.session() as session:
                assert await session.scalar(text("SELECT * FROM migrated")) == expected
                assert session.decision.server != "primary"
            if number == 7:
                replicated_cluster.primary.execute("ALTER TABLE migrated ALTER n TYPE text")
                replicated_cluster.catch_up()
                expected = "1"
    replicated_cluster.primary.execute("DROP TABLE migrated")
