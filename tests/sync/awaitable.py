"""A synchronous session that can be awaited like an asynchronous one, so that the same tests apply to both halves."""

import asyncio
import collections.abc
import concurrent.futures
import contextlib
import contextvars
import functools
import types
import typing

import psycopg
import pytest
from sqlalchemy import make_url

import modern_di_replicas
import tests.driver
import tests.session.conftest
from modern_di_replicas import ConsistencyToken, ReplicationSettings, Tokens
from modern_di_replicas import RoutedSession as AsyncRoutedSession
from modern_di_replicas.cluster.background import background
from modern_di_replicas.cluster.engines import create
from modern_di_replicas.cluster.waiting import complete
from modern_di_replicas.sync import Monitor, PrimaryEngine, RoutedSession
from modern_di_replicas.sync.engines import create_primary_engine
from modern_di_replicas.testing import LocalCluster, LocalServer
from tests.session import test_faults
from tests.sync.conftest import Servers, serving, settings_of, synchronous


AWAITED: typing.Final = frozenset(
    {
        *("execute", "scalar", "scalars", "get", "get_one", "refresh", "flush", "commit", "rollback", "merge"),
        *("delete", "begin", "begin_nested", "close", "exec_driver_sql"),
    }
)
"""The methods of `AsyncSession` and `AsyncConnection` that are awaited, or are asynchronous contexts."""


class Awaitable(collections.abc.Coroutine[typing.Any, typing.Any, typing.Any]):
    """A call that runs when it is awaited or entered; in a thread if the test continues meanwhile."""

    executor: typing.ClassVar[concurrent.futures.Executor | None] = None
    """Where calls run; None for the thread of the test."""

    def __init__(self, call: collections.abc.Callable[[], typing.Any]) -> None:
        self._call = call
        self._running: collections.abc.Coroutine[typing.Any, typing.Any, typing.Any] | None = None

    def __await__(self) -> collections.abc.Generator[typing.Any, typing.Any, typing.Any]:
        return self._run().__await__()

    def send(self, value: typing.Any) -> typing.Any:
        if self._running is None:
            self._running = self._run()
        return self._running.send(value)

    def throw(self, *error: typing.Any) -> typing.Any:
        assert self._running is not None
        return self._running.throw(*error)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()

    async def _run(self) -> typing.Any:
        if self.executor is None:
            return self._call()
        in_context = functools.partial(contextvars.copy_context().run, self._call)
        return await asyncio.get_running_loop().run_in_executor(self.executor, in_context)

    async def __aenter__(self) -> typing.Any:
        self._entered = await Awaitable(self._call)
        return await Awaitable(self._entered.__enter__)

    async def __aexit__(self, *error: object) -> typing.Any:
        return await Awaitable(lambda: self._entered.__exit__(*error))


@contextlib.asynccontextmanager
async def opened(context: typing.Any) -> collections.abc.AsyncIterator[typing.Any]:
    """Enter and leave a context by calls."""
    connection = await Awaitable(context.__enter__)
    try:
        yield AwaitableSession(connection)
    except BaseException as error:
        leave = functools.partial(context.__exit__, type(error), error, error.__traceback__)
        if not await Awaitable(leave):
            raise
    else:
        await Awaitable(lambda: context.__exit__(None, None, None))


class AwaitableRows:
    """The rows of a stream."""

    def __init__(self, result: typing.Any) -> None:
        self._result = result
        self._rows = iter(result)

    def __aiter__(self) -> typing.Self:
        return self

    async def __anext__(self) -> typing.Any:
        try:
            return next(self._rows)
        except StopIteration:
            raise StopAsyncIteration from None

    async def partitions(self) -> collections.abc.AsyncIterator[typing.Any]:
        for part in self._result.partitions():
            yield part

    def scalars(self) -> "AwaitableRows":
        return AwaitableRows(self._result.scalars())

    async def all(self) -> typing.Any:
        return self._result.all()

    async def fetchone(self) -> typing.Any:
        return self._result.fetchone()


def _read_at_once(
    run: collections.abc.Callable[..., typing.Any], *args: typing.Any, **options: typing.Any
) -> typing.Any:
    given = options.pop("execution_options", None) or {}
    return run(*args, execution_options={"prebuffer_rows": True, **given}, **options)


class AwaitableSession:
    """A session, or a connection, whose methods are awaited."""

    def __init__(self, session: typing.Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> typing.Any:
        value = getattr(self._session, name)
        if name in ("execute", "scalars"):
            # As `AsyncSession` does, so that loading does not depend on how much of a result is read.
            value = functools.partial(_read_at_once, value)
        return (lambda *args, **options: Awaitable(lambda: value(*args, **options))) if name in AWAITED else value

    @property
    def sync_session(self) -> typing.Any:
        return self._session

    async def __aenter__(self) -> typing.Self:
        await Awaitable(self._session.__enter__)
        return self

    async def __aexit__(self, *error: object) -> typing.Any:
        return await Awaitable(lambda: self._session.__exit__(*error))

    async def connection(self) -> typing.Any:
        return AwaitableSession(await Awaitable(self._session.connection))

    async def get_raw_connection(self) -> typing.Any:
        return self._session.connection

    async def run_sync(self, run: collections.abc.Callable[..., typing.Any], *args: typing.Any) -> typing.Any:
        return await Awaitable(functools.partial(run, self._session, *args))

    async def stream(self, statement: typing.Any) -> AwaitableRows:
        execute = functools.partial(self._session.execute, statement, execution_options={"stream_results": True})
        return AwaitableRows(await Awaitable(execute))

    async def stream_scalars(self, statement: typing.Any) -> AwaitableRows:
        scalars = functools.partial(self._session.scalars, statement, execution_options={"stream_results": True})
        return AwaitableRows(await Awaitable(scalars))


def run(
    work: collections.abc.Callable[[AsyncRoutedSession], collections.abc.Awaitable[typing.Any]], session: RoutedSession
) -> typing.Any:
    """Run a test of an asynchronous session on a synchronous one."""
    return complete(typing.cast(typing.Any, work(typing.cast(AsyncRoutedSession, AwaitableSession(session)))))


class AwaitableEngine(AwaitableSession):
    """An engine whose connections are awaited."""

    def __eq__(self, other: object) -> bool:
        """Return whether it has the same connections; an engine with other options is a different one."""
        return getattr(other, "pool", None) is self._session.pool

    def __hash__(self) -> int:
        return hash(self._session.pool)

    @property
    def sync_engine(self) -> typing.Any:
        return self._session

    def begin(self) -> contextlib.AbstractAsyncContextManager[typing.Any]:
        return opened(self._session.begin())

    def connect(self) -> contextlib.AbstractAsyncContextManager[typing.Any]:
        return opened(_Connecting(self._session))

    async def dispose(self) -> None:
        self._session.dispose()

    def execution_options(self, **options: typing.Any) -> "AwaitableEngine":
        return AwaitableEngine(self._session.execution_options(**options))

    @property
    def engines(self) -> collections.abc.Mapping[str, typing.Any]:
        return {name: AwaitableEngine(engine) for name, engine in self._session.engines.items()}


class _Connecting:
    """A connection that is opened when it is entered."""

    def __init__(self, engine: typing.Any) -> None:
        self._engine = engine

    def __enter__(self) -> typing.Any:
        self._connection = self._engine.connect()
        return self._connection

    def __exit__(self, *error: object) -> None:
        self._connection.__exit__(*error)


class AwaitableMonitor:
    """Replaces the asynchronous `Monitor`; it runs in the background thread of the synchronous half."""

    def __init__(self, replicas: typing.Any) -> None:
        self._monitor = Monitor(replicas.sync_engine)

    async def __aenter__(self) -> typing.Self:
        await asyncio.to_thread(self._monitor.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._monitor.stop)


class AwaitableTokens(Tokens):
    """Asks in the monitor's thread, as a synchronous application does."""

    async def of(self, client: typing.Any) -> ConsistencyToken | None:
        return await asyncio.to_thread(background.run, super().of(client))

    async def admit(self, texts: typing.Any) -> ConsistencyToken | None:
        return await asyncio.to_thread(background.run, super().admit(texts))

    async def now(self) -> ConsistencyToken | None:
        return await asyncio.to_thread(background.run, super().now())


def create_awaitable_primary_engine(settings: ReplicationSettings) -> AwaitableEngine:
    return AwaitableEngine(create_primary_engine(settings_of(settings)))


def engine_of(servers: "AwaitableServers", server: LocalServer) -> typing.Any:
    """Replace `tests.session.test_faults.engine_of`."""
    topology = servers.replica.topology
    return next(one.engine for one in topology.servers if one.name == f"127.0.0.1:{server.port}")


def server_settings(**values: str) -> dict[str, typing.Any]:
    """Replace `tests.driver.server_settings`."""
    return {"options": " ".join(f"-c {name}={value}" for name, value in values.items())}


class AwaitableServers:
    """The servers with the interface that tests of asynchronous sessions use."""

    def __init__(self, servers: Servers, cluster: object) -> None:
        self._servers = servers
        self.cluster = cluster
        self.settings = servers.settings
        self.primary = AwaitableEngine(servers.primary)
        self.replica = AwaitableEngine(servers.replica)

    def session(self, **options: typing.Any) -> AwaitableSession:
        return AwaitableSession(self._servers.session(**_synchronous(options)))


class ShopServer:
    """A server, with the database of the shop."""

    def __init__(self, server: LocalServer, url: str) -> None:
        self.port = server.port
        self.url = url

    def execute(self, sql: str) -> None:
        url = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.encode())


class Shop:
    """A separate database on a shared cluster, in place of that cluster."""

    def __init__(self, settings: ReplicationSettings, cluster: LocalCluster) -> None:
        self.settings = settings
        self.primary = ShopServer(cluster.primary, settings.declared_primary.url)
        self.replicas = [
            ShopServer(server, declared.url)
            for server, declared in zip(cluster.replicas, settings.servers, strict=True)
        ]
        self.catch_up = cluster.catch_up


@contextlib.asynccontextmanager
async def serving_awaitable(
    cluster: LocalCluster | Shop, **settings: typing.Any
) -> collections.abc.AsyncIterator[AwaitableServers]:
    """Replace `tests.session.conftest.serving` in tests of asynchronous sessions."""
    replicas = settings.pop("replicas", [server.url for server in cluster.replicas])
    settings["replicas"] = [synchronous(url) for url in replicas]
    with serving(cluster.settings if isinstance(cluster, Shop) else cluster, **settings) as servers:
        yield AwaitableServers(servers, cluster)


def routed(engine: AwaitableEngine, **options: typing.Any) -> AwaitableSession:
    """Replace the asynchronous `RoutedSession`."""
    return AwaitableSession(RoutedSession(engine.sync_engine, **_synchronous(options)))


def _synchronous(options: dict[str, typing.Any]) -> dict[str, typing.Any]:
    given = {name: getattr(value, "sync_session", value) for name, value in options.items()}
    return {"expire_on_commit": False, **given}


STAND_INS: typing.Final[dict[int, object]] = {
    id(original): stand_in
    for original, stand_in in (
        (tests.session.conftest.serving, serving_awaitable),
        (modern_di_replicas.RoutedSession, routed),
        (modern_di_replicas.PrimaryEngine, PrimaryEngine),
        (modern_di_replicas.Monitor, AwaitableMonitor),
        (Tokens, AwaitableTokens),
        (create.create_primary_engine, create_awaitable_primary_engine),
        (test_faults.engine_of, engine_of),
        (tests.driver.server_settings, server_settings),
    )
}
"""Replacements for the imports of a test module, for synchronous sessions."""


def hold_to(
    claims: types.ModuleType,
    namespace: dict[str, typing.Any],
    *,
    without: tuple[str, ...] = (),
    in_threads: bool = False,
) -> None:
    """Let a test module collect the tests of another one, and run them on synchronous sessions.

    Args:
        claims: the tests of asynchronous sessions; their imports are replaced, see `STAND_INS`.
        namespace: the `globals()` of the module.
        without: the names of tests, or of their parameters, that need an asynchronous driver.
        in_threads: whether sessions are called in another thread, because the test continues meanwhile.

    """

    @pytest.fixture(autouse=True)
    def on_synchronous_sessions(
        monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> collections.abc.Iterator[None]:
        if any(f"[{parameter}]" in request.node.name.replace("-", "][") for parameter in without):
            pytest.skip("about an asynchronous driver")
        for name, original in list(vars(claims).items()):
            if id(original) in STAND_INS:
                monkeypatch.setattr(claims, name, STAND_INS[id(original)])
        if not in_threads:
            yield
            return
        with concurrent.futures.ThreadPoolExecutor(32) as executor:
            monkeypatch.setattr(Awaitable, "executor", executor)
            yield

    @pytest.fixture
    def shop_cluster(shop: ReplicationSettings, replicated_cluster: LocalCluster) -> Shop:
        return Shop(shop, replicated_cluster)

    tests = {name: test for name, test in vars(claims).items() if name.startswith("test_") and name not in without}
    # A stream that is not exhausted closes its cursor at the end of the transaction; psycopg warns about it.
    mark = pytest.mark.filterwarnings("ignore:.*ServerCursorMixin:pytest.PytestUnraisableExceptionWarning")
    fixtures = {"on_synchronous_sessions": on_synchronous_sessions, "shop_cluster": shop_cluster}
    namespace.update(**{**fixtures, **namespace, **tests}, pytestmark=mark)
