"""An interrupted commit: the caller's result, the rows in the table, and the client's next read."""

import asyncio
import collections.abc
import contextlib
import typing

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, Primary, PrimaryEngine, ReplicationSettings, RoutedSession, Tokens
from modern_di_replicas.cluster import commits
from modern_di_replicas.cluster.engines.create import create_primary_engine, create_replica_engine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.testing import LocalCluster
from tests.driver import only_on
from tests.proxy import Proxy
from tests.waiting import until


COUNT = text("SELECT count(*) FROM note")
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name LIKE '%-primary' AND (state <> 'idle' OR wait_event = 'SyncRep')
"""
END = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE '%-primary'"
TIMEOUT = 0.5

MOMENTS = {
    "before the commit": b"now and then",
    "at the commit": b"COMMIT",
    "after the commit": b"COMMIT",
    "at the question": b"commits_unflushed",
    "at the pool's reset": b"commits_unflushed",
}
WAYS = (
    *("the server ends the backend", "the connection is cut", "the task is cancelled"),
    pytest.param("command_timeout", marks=only_on("asyncpg", "psycopg has no such limit")),
)


@pytest.fixture(scope="module")
def cluster() -> collections.abc.Iterator[LocalCluster]:
    with LocalCluster(replicas=1) as cluster:
        cluster.primary.execute("CREATE TABLE note (body text)")
        cluster.catch_up()
        yield cluster


class Application:
    """A primary behind a proxy, a replica whose replay is paused, and one client."""

    def __init__(self, cluster: LocalCluster, proxy: Proxy, **connect_args: typing.Any) -> None:
        url = make_url(cluster.primary.url).set(host="127.0.0.1", port=proxy.port)
        self.settings = ReplicationSettings(
            primary=Primary(
                url.render_as_string(hide_password=False), connect_args=connect_args, probe_url=cluster.primary.url
            ),
            replicas=[cluster.replicas[0].url],
        )
        self.cluster = cluster
        self.client = Client(is_request=True)
        self.primary: PrimaryEngine = create_primary_engine(self.settings)
        self.replica: ReplicaEngine = create_replica_engine(self.settings, self.primary)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.settings, self.replica.topology)

    async def write(self, body: str, *, autocommit: bool = False) -> None:
        if autocommit:
            async with self.primary.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                await connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": body})
            return
        async with self.primary.begin() as connection:
            await connection.execute(text("INSERT INTO note VALUES (:body)"), {"body": body})
            await connection.execute(text(f"SELECT 'now and then {body}'"))  # new, so that its text is sent

    async def told(self, writing: collections.abc.Awaitable[None]) -> BaseException | None:
        """Return the error that the caller gets, or None for success."""
        with request_of(self.client):
            try:
                await asyncio.ensure_future(writing)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever the caller is told
                return error
        return None

    async def seen(self, client: Client) -> int:
        """Return how many rows a read of a client finds."""
        with request_of(client):
            async with RoutedSession(self.replica, primary=self.primary) as session:
                return int((await session.execute(COUNT)).scalar_one())

    async def settled(self) -> int:
        """Return how many rows are in the table, once no statement is running."""
        await until(self._is_idle)
        return int(await self._execute("SELECT count(*) FROM note"))

    async def check(self, *, was: int, error: BaseException | None) -> int:
        """Check the caller's result and the client's next reads; return how many rows were written."""
        wrote = await self.settled() - was
        if error is None:
            assert wrote == 1, "success was reported"
        # In the same request, and in the next one, after a response of whatever status.
        token = await self.tokens.of(self.client) if self.client.wrote else None
        admitted = None if token is None else await self.tokens.admit([self.tokens.encode(token)])
        for client in (self.client, Client(token=admitted, is_request=True)):
            seen = await self.seen(client)
            assert seen == was + wrote or not self.client.wrote
        return wrote

    async def _is_idle(self) -> bool:
        return await self._execute(BUSY) == "0"

    async def _execute(self, sql: str) -> str:
        return await asyncio.to_thread(self.cluster.primary.execute, sql)


@contextlib.asynccontextmanager
async def running(
    cluster: LocalCluster, **connect_args: typing.Any
) -> collections.abc.AsyncIterator[tuple[Application, Proxy]]:
    async with Proxy(cluster.primary.port) as proxy:
        application = Application(cluster, proxy, **connect_args)
        try:
            async with Monitor(application.replica):
                await application.write("the first connection asks more")
                cluster.catch_up()
                cluster.replicas[0].pause_replay()
                try:
                    yield application, proxy
                finally:
                    cluster.replicas[0].resume_replay()
        finally:
            await application.replica.dispose()
            await application.primary.dispose()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", list(MOMENTS))
async def test_after_an_interrupted_commit_its_client_sees_the_table(
    cluster: LocalCluster, moment: str, way: str
) -> None:
    """INVARIANT: success is reported only for a commit, and every commit is seen by its client."""
    options = {"command_timeout": TIMEOUT} if way == "command_timeout" else {}
    async with running(cluster, **options) as (application, proxy):
        was = await application.settled()
        proxy.hold(MOMENTS[moment], answer=moment == "after the commit")
        writing = asyncio.ensure_future(
            application.told(application.write("held", autocommit=moment == "at the pool's reset"))
        )
        await asyncio.wait_for(proxy.reached.wait(), 20)
        if way == "the server ends the backend":
            await asyncio.to_thread(cluster.primary.execute, END)
            proxy.release()
        elif way == "the connection is cut":
            proxy.cut()
        elif way == "the task is cancelled":
            writing.cancel()
            await asyncio.sleep(0)
            proxy.release()
        else:
            await asyncio.sleep(2 * TIMEOUT)  # wait for the driver's timeout, which is not observable
            proxy.release()
        error = await asyncio.wait_for(writing, 20)
        wrote = await application.check(was=was, error=error)

    if moment == "before the commit":
        assert error is not None
        assert not wrote
        assert not application.client.wrote
    elif moment != "at the commit":
        assert wrote
        assert application.client.wrote
    else:
        assert error is not None
        assert application.client.wrote


async def write_slowly(primary: PrimaryEngine, *statements: str, autocommit: bool = False) -> None:
    """Write with a time limit of the server."""
    options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    async with primary.execution_options(**options).connect() as connection:
        await connection.execute(text("SET statement_timeout = '200ms'"))
        for statement in ("INSERT INTO note VALUES ('slow')", *statements):
            await connection.execute(text(statement))
        if not autocommit:
            await connection.commit()


@pytest.mark.parametrize(
    ("moment", "statements", "wrote"),
    [
        ("before the commit", ["SELECT pg_sleep(60)"], 0),
        ("at the question", [], 1),
        ("at the pool's reset", [], 1),
    ],
)
async def test_a_time_limit_of_the_server_loses_nothing(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, moment: str, statements: list[str], wrote: int
) -> None:
    """A timeout before the commit is an error, and nothing is committed; after it, the commit succeeds.

    PostgreSQL ends the time limit before it commits, so it never interrupts a COMMIT, however slow its triggers are.
    """
    async with running(cluster) as (application, _):
        was = await application.settled()
        monkeypatch.setattr(commits, "position", lambda *_, **__: "SELECT pg_sleep(60)")
        writing = write_slowly(application.primary, *statements, autocommit=moment == "at the pool's reset")
        error = await application.told(writing)
        monkeypatch.undo()
        assert await application.check(was=was, error=error) == wrote
    assert (error is None) is bool(wrote)
    assert application.client.wrote is (moment != "before the commit")
