"""The token of a commit, after every outcome of the commit."""

import asyncio
import collections.abc
import contextlib
import contextvars
import gc
import typing

import pytest
import sqlalchemy.exc
from sqlalchemy import Column, Connection, Integer, MetaData, Table, event, select, text, update

from modern_di_replicas import (
    EVENTUAL,
    ConsistencyToken,
    Intent,
    Monitor,
    PrimaryEngine,
    ReplicationSettings,
    RoutedSession,
    Tokens,
    TransactionRolledBackError,
    current_token,
)
from modern_di_replicas.cluster.engines.create import create_primary_engine
from modern_di_replicas.consistency.client import Client, current_client, request_of
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.session.conftest import serving
from tests.waiting import until


LOG = """
SELECT pg_current_wal_flush_lsn() - '0/0', pg_current_wal_insert_lsn() - '0/0',
       (pg_walfile_name_offset(pg_current_wal_insert_lsn())).file_offset % 8192
"""


@pytest.fixture(autouse=True)
def fresh_context() -> collections.abc.Iterator[None]:
    """Run each test in a context without the writes of other tests."""
    with request_of(Client()):
        yield


@pytest.fixture(scope="module")
def cluster() -> collections.abc.Iterator[LocalCluster]:
    with LocalCluster(replicas=1, settings={"max_prepared_transactions": "2"}) as cluster:
        cluster.primary.execute("CREATE TABLE note (body text)")
        cluster.catch_up()
        yield cluster


@pytest.fixture
async def primary(cluster: LocalCluster) -> collections.abc.AsyncIterator[PrimaryEngine]:
    settings = ReplicationSettings(primary=cluster.primary.url, replicas=[cluster.replicas[0].url])
    engine = create_primary_engine(settings)
    yield engine
    await engine.dispose()


async def write(primary: PrimaryEngine, *before: str, size: int = 1) -> ConsistencyToken:
    """Write, and return the token."""
    async with primary.begin() as connection:
        for statement in before:
            await connection.execute(text(statement))
        await connection.execute(text("INSERT INTO note VALUES (repeat('x', :size))"), {"size": size})
    token = current_token()
    assert token is not None
    return token


def log(server: LocalServer) -> tuple[int, int, int]:
    """Return the flush position, the insert position, and the offset of the latter in its page."""
    flushed, inserted, in_page = (int(value) for value in server.execute(LOG).split("|"))
    return flushed, inserted, in_page


async def test_a_token_is_the_flush_position_after_the_commit(primary: PrimaryEngine, cluster: LocalCluster) -> None:
    """It grows with every write, and a replica that has reached it has the row."""
    first, second = [await write(primary) for _ in range(2)]

    assert first.lsn < second.lsn <= log(cluster.primary)[0]
    assert first.timeline == 1
    cluster.catch_up()
    assert int(cluster.replicas[0].execute("SELECT pg_last_wal_replay_lsn() - '0/0'")) >= second.lsn


@pytest.mark.parametrize(
    "lazily",
    ["SET LOCAL synchronous_commit = off", "SELECT set_config('synchronous_commit', 'off', true)"],
)
async def test_a_commit_that_did_not_wait_for_its_flush_is_included(
    primary: PrimaryEngine, cluster: LocalCluster, lazily: str
) -> None:
    """INVARIANT: the flush position right after such a commit may be before it; the token must not be."""
    server = cluster.primary
    server.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    server.execute("SELECT pg_reload_conf()")
    try:
        for _ in range(20):
            before = log(server)[1]
            token = await write(primary, lazily, size=100)
            assert token.lsn > before
    finally:
        server.execute("ALTER SYSTEM RESET wal_writer_delay")
        server.execute("SELECT pg_reload_conf()")
    await write(primary)
    cluster.catch_up()


async def test_a_token_at_the_end_of_a_page_can_be_reached(primary: PrimaryEngine, cluster: LocalCluster) -> None:
    """INVARIANT: the next record would start after a page header, and no standby ever replays a bare header.

    Only commits that do not wait for their flush use the insert position, which can be there. Each commit is sized to
    reach the end of its page, based on the size of the previous one.
    """
    replica = cluster.replicas[0]
    lazily = "SET LOCAL synchronous_commit = off"
    token, size, overhead = await write(primary, lazily), 1, 300
    for _ in range(500):
        left = 8192 - token.lsn % 8192
        size = left - overhead if 0 < left - overhead < 1500 else 500
        before, token = token, await write(primary, lazily, size=size)
        if token.lsn % 8192 == 0:
            break
        overhead = token.lsn - before.lsn - size
    else:
        pytest.fail("no record ended with its page")  # pragma: no cover
    inserted, in_page = log(cluster.primary)[1:]
    if inserted - token.lsn == in_page:  # nothing else was written meanwhile
        assert in_page in (24, 40)

    async def has_reached_it() -> bool:
        return int(await asyncio.to_thread(replica.execute, "SELECT pg_last_wal_replay_lsn() - '0/0'")) >= token.lsn

    await until(has_reached_it)


async def test_a_read_costs_the_primary_no_question(primary: PrimaryEngine) -> None:
    """INVARIANT: only writes need a position; a read that ends without a commit costs nothing extra."""
    asked = []
    event.listen(primary.sync_engine, "reset", lambda *_: asked.append(primary.writes and primary.writes.latest))
    async with primary.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.rollback()

    assert asked == [None]
    assert current_token() is None


async def test_a_connection_lost_after_its_commit_leads_to_another_question(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """INVARIANT: it is committed, so its client must see it: another connection asks for the primary's position."""
    ends_its_connection = "SELECT pg_terminate_backend(pg_backend_pid())"
    monkeypatch.setattr("modern_di_replicas.cluster.commits.position", lambda *_, **__: ends_its_connection)
    async with serving(cluster) as servers, Monitor(servers.replica):
        client = Client(is_request=True)
        with request_of(client):
            for _ in range(2):
                async with servers.primary.connect() as connection:
                    await connection.execute(text("INSERT INTO note VALUES ('kept')"))
                    await connection.commit()
                assert (client.wrote, client.position_unknown, client.token) == (True, True, None)
        assert cluster.primary.execute("SELECT count(*) FROM note WHERE body = 'kept'") == "2"
        assert caplog.text.count("did not return its position") == 1, "one line a minute"

        token = await Tokens(servers.settings, servers.replica.topology).of(client)
        assert token is not None
        assert token.lsn >= int(cluster.primary.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")) - 8192
        assert token.timeline == 1


@pytest.mark.parametrize("secret", [None, "secret"])
async def test_if_the_primary_cannot_be_asked_the_token_requires_everything(
    cluster: LocalCluster, secret: str | None
) -> None:
    """INVARIANT: a write without a token would be hidden from its client; no replica has reached this token.

    It is accepted although it is ahead of the primary: once the primary is back, it means the position at that time.
    Without a monitor, neither the database nor the replicas are known.
    """
    client = Client(is_request=True)
    client.written(None)
    settings: dict[str, typing.Any] = {"probe_interval": 0.2, "probe_timeout": 0.2, "token_secret": secret}
    async with serving(cluster, **settings) as servers:
        tokens = Tokens(servers.settings, servers.replica.topology)
        assert await tokens.of(client) is None
        async with Monitor(servers.replica):
            cluster.primary.freeze()
            try:
                token = await tokens.of(client)
                assert token is not None
                assert await tokens.admit([tokens.encode(token)]) == token
            finally:
                cluster.primary.thaw()
            assert ConsistencyToken.parse(str(token)) == token
            await until(lambda: servers.replica.topology.leader is not None)
            cluster.primary.execute("INSERT INTO note VALUES ('meanwhile')")
            written = int(cluster.primary.execute("SELECT pg_current_wal_flush_lsn() - '0/0'"))
            admitted = await tokens.admit([tokens.encode(token)])
            assert admitted is not None
            assert admitted == token if secret else written <= admitted.lsn < token.lsn
            async with RoutedSession(servers.replica, intent=Intent.read(after=token)) as session:
                assert not await session.scalar(text("SELECT pg_is_in_recovery()"))
    assert await Tokens(servers.settings).of(client) is None


async def test_outside_a_request_a_token_stays_in_the_context_of_the_write(primary: PrimaryEngine) -> None:
    """A job passes it on; other tasks and earlier contexts do not see it."""

    async def job() -> ConsistencyToken | None:
        before = current_token()
        await write(primary)
        assert before is None
        return current_token()

    context = contextvars.Context()
    token = await asyncio.create_task(job(), context=context)

    assert token is not None
    assert context.run(current_token) == token
    assert current_token() is None


async def test_a_write_in_a_context_without_a_client_is_not_noted(primary: PrimaryEngine) -> None:
    """A connection that is returned where no write was expected belongs to no client."""
    contextvars.Context().run(lambda: current_client().written(None))
    assert (await write(primary)) == current_token()


async def test_a_transaction_that_lost_its_connection_wrote_nothing(
    primary: PrimaryEngine, cluster: LocalCluster
) -> None:
    """Before its commit, or when it is asked whether it wrote."""
    for end in ("commit", "rollback"):
        async with primary.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid() /* a SELECT may write */"))
            cluster.primary.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await connection.execute(text("SELECT 1"))
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                await getattr(connection, end)()
        async with primary.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            cluster.primary.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            with contextlib.suppress(sqlalchemy.exc.DBAPIError):
                await getattr(connection, end)()
    assert current_token() is None


async def test_a_connection_that_was_never_given_back_leaves_its_client_unsure(primary: PrimaryEngine) -> None:
    """In autocommit the server is asked at the end, and the garbage collector has no event loop for the question."""
    client = Client(is_request=True)

    async def write_and_forget() -> None:
        connection = await primary.execution_options(isolation_level="AUTOCOMMIT").connect()
        await connection.execute(text("INSERT INTO note VALUES ('forgotten')"))
        del connection
        gc.collect()

    with request_of(client), pytest.warns(sqlalchemy.exc.SAWarning, match="garbage collector"):
        await write_and_forget()
    assert (client.wrote, client.position_unknown) == (True, True)


async def test_while_the_position_of_a_write_is_unknown_the_primary_reads(cluster: LocalCluster) -> None:
    """INVARIANT: an older token of the same client must not replace the missing one."""
    async with serving(cluster) as servers, Monitor(servers.replica):
        client = Client(token=await Tokens(servers.settings, servers.replica.topology).now(), is_request=True)
        client.written(None)
        with request_of(client):
            chosen: typing.Any = servers.replica.choose()
            assert (chosen, chosen.decision.cause) == (servers.primary, Cause.POSITION_UNKNOWN)
            assert servers.replica.choose(consistency=EVENTUAL) != servers.primary
            assert current_token() is None


@pytest.mark.parametrize("frozen", [True, False])
async def test_a_monitor_ends_while_a_question_is_open(disposable_cluster: LocalCluster, frozen: bool) -> None:
    """The question is cancelled, and leaves nothing behind."""
    async with serving(disposable_cluster, probe_interval=60.0, probe_timeout=30.0) as servers:
        async with Monitor(servers.replica):
            topology = servers.replica.topology
            assert topology.watcher is not None
            if frozen:
                disposable_cluster.primary.freeze()
            asking = [asyncio.ensure_future(topology.watcher.probe_now(member.name)) for member in topology.servers]
            await asyncio.sleep(0)
        assert all(look.done() for look in asking)
    disposable_cluster.primary.thaw()


async def test_a_statement_without_parameters_of_any_kind_is_noticed_as_well(primary: PrimaryEngine) -> None:
    """SQLAlchemy executes it by a separate code path."""
    async with primary.begin() as connection:
        options = {"no_parameters": True}
        await connection.exec_driver_sql("INSERT INTO note VALUES ('bare')", execution_options=options)
    assert current_token() is not None


async def test_a_write_on_a_connection_that_was_detached_from_its_pool_has_a_token(primary: PrimaryEngine) -> None:
    """INVARIANT: statements of SQLAlchemy on it are not treated as direct use, whose position nothing would ask for."""
    async with primary.connect() as connection:
        await connection.run_sync(Connection.detach)
        for _ in range(2):
            await connection.execute(text("INSERT INTO note VALUES ('detached')"))
            await connection.commit()
            assert current_client().token is not None
            assert not current_client().position_unknown


@pytest.mark.parametrize("commit", ["COMMIT", "END", "COMMIT AND CHAIN"])
async def test_a_commit_that_is_sent_as_a_statement_is_noticed(
    primary: PrimaryEngine, cluster: LocalCluster, commit: str
) -> None:
    """INVARIANT: it has committed what SQLAlchemy rolls back afterwards, and the client must see it."""
    client = Client(is_request=True)
    with request_of(client):
        async with RoutedSession(primary, intent=Intent.write()) as session:
            await session.execute(text("INSERT INTO note VALUES (:body)"), {"body": commit})
            await session.execute(text(commit))
            assert client.position_unknown  # a response sent now carries it
    assert commit in cluster.primary.execute("SELECT body FROM note").splitlines()
    assert client.token is not None
    assert not client.position_unknown


@pytest.mark.parametrize("is_prepared", [True, False])
async def test_a_commit_in_two_phases_is_noticed(
    primary: PrimaryEngine, cluster: LocalCluster, is_prepared: bool
) -> None:
    """Psycopg has special methods for it, asyncpg gets statements."""
    client = Client(is_request=True)
    body = f"prepared {is_prepared}"
    with request_of(client):
        async with primary.connect() as connection:
            transaction = await connection.run_sync(lambda sync: sync.begin_twophase())
            await connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": body})
            if is_prepared:
                await connection.run_sync(lambda _: transaction.prepare())
            await connection.run_sync(lambda _: transaction.commit())
            assert client.wrote  # a response sent now carries it
    assert body in cluster.primary.execute("SELECT body FROM note").splitlines()
    assert client.token is not None
    assert not client.position_unknown


async def test_a_commit_in_two_phases_of_a_failed_transaction_is_an_error(primary: PrimaryEngine) -> None:
    """INVARIANT: PostgreSQL answers it with ROLLBACK, however it is sent, and its caller would assume success."""
    async with primary.connect() as connection:
        transaction = await connection.run_sync(lambda sync: sync.begin_twophase())
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises((TransactionRolledBackError, sqlalchemy.exc.DBAPIError)):
            await connection.run_sync(lambda _: transaction.commit())


async def test_a_failed_transaction_is_not_prepared(primary: PrimaryEngine) -> None:
    """INVARIANT: PostgreSQL answers PREPARE TRANSACTION with ROLLBACK; after a success, others would be committed."""
    async with primary.connect() as connection:
        transaction = await connection.run_sync(lambda sync: sync.begin_twophase())
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(TransactionRolledBackError):
            await connection.run_sync(lambda _: transaction.prepare())
        await connection.run_sync(lambda _: transaction.rollback())
        assert await connection.scalar(text("SELECT count(*) FROM pg_prepared_xacts")) == 0


async def test_an_update_of_a_quoted_table_inside_a_query_is_noticed(
    primary: PrimaryEngine, cluster: LocalCluster
) -> None:
    """INVARIANT: SQLAlchemy quotes names with capital letters, and the client must see its change."""
    cluster.primary.execute('CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Order" (id int)')
    orders = Table("Order", MetaData(schema="Shop"), Column("id", Integer))
    changed = update(orders).values(id=2).returning(orders.c.id).cte()
    async with primary.begin() as connection:
        await connection.execute(select(changed))
    assert current_token() is not None


@pytest.mark.parametrize("options", [{}, {"token_carrier": None}, {"replicas": []}], ids=str)
async def test_a_rollback_on_a_lost_connection_is_not_an_error(
    cluster: LocalCluster, options: dict[str, typing.Any]
) -> None:
    """The server has rolled back already; closing a session after its result was read must not fail."""
    urls = {"primary": cluster.primary.url, "replicas": [cluster.replicas[0].url]}
    primary = create_primary_engine(ReplicationSettings(**{**urls, **options}))
    async with RoutedSession(primary, intent=Intent.write()) as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        cluster.primary.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
    async with RoutedSession(primary, intent=Intent.write()) as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) != pid
    await primary.dispose()


async def test_a_connection_of_the_driver_that_was_lost_is_given_back_quietly(
    primary: PrimaryEngine, cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The error has already been raised; anything committed there stays at an unknown position."""
    client = Client(is_request=True)
    with request_of(client):
        async with primary.connect() as connection:
            driver = typing.cast(typing.Any, (await connection.get_raw_connection()).driver_connection)
            await driver.execute("INSERT INTO note VALUES ('direct')")
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            cluster.primary.execute(f"SELECT pg_terminate_backend({pid}, 10000)")
            with pytest.raises(driver_of(primary.sync_engine).lost_connection):
                await driver.execute("SELECT 1")
    assert client.position_unknown
    assert caplog.records == []


async def test_a_rollback_that_fails_for_another_reason_is_an_error(
    primary: PrimaryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the program is not treated as a lost connection."""

    def fail(*_: object) -> None:
        raise ValueError

    async with primary.connect() as connection:
        await connection.execute(text("SELECT 1"))
        adapted = typing.cast(typing.Any, (await connection.get_raw_connection()).dbapi_connection)
        with monkeypatch.context() as patch:
            patch.setattr(type(adapted), "rollback", fail)
            with pytest.raises(ValueError):  # noqa: PT011  # as it was raised
                await connection.rollback()
