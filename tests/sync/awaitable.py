"""A synchronous session that can be awaited like an asynchronous one: so both halves are held to the same claims."""

import collections.abc
import contextlib
import functools
import types
import typing

import pytest

from modern_di_replicas import ReplicationSettings
from modern_di_replicas import RoutedSession as AsyncRoutedSession
from modern_di_replicas.cluster.waiting import complete
from modern_di_replicas.sync import PrimaryEngine, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import Servers, serving


AWAITED: typing.Final = frozenset(
    {
        *("execute", "scalar", "scalars", "get", "get_one", "refresh", "flush", "commit", "rollback", "merge"),
        *("delete", "begin", "begin_nested", "close"),
    }
)
"""The methods of `AsyncSession` and `AsyncConnection` that are awaited, or are asynchronous contexts."""


class Awaitable:
    """A call that happens when it is awaited, or entered."""

    def __init__(self, call: collections.abc.Callable[[], typing.Any]) -> None:
        self._call = call

    def __await__(self) -> collections.abc.Generator[None, None, typing.Any]:
        return self._call()
        yield  # never: it makes this a generator

    async def __aenter__(self) -> typing.Any:
        self._entered = self._call()
        return self._entered.__enter__()

    async def __aexit__(self, *error: object) -> typing.Any:
        return self._entered.__exit__(*error)


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
            # As `AsyncSession` does: what is loaded does not depend on how much of a result is read.
            value = functools.partial(_read_at_once, value)
        return (lambda *args, **options: Awaitable(lambda: value(*args, **options))) if name in AWAITED else value

    @property
    def sync_session(self) -> typing.Any:
        return self._session

    async def __aenter__(self) -> typing.Self:
        self._session.__enter__()
        return self

    async def __aexit__(self, *error: object) -> typing.Any:
        return self._session.__exit__(*error)

    async def connection(self) -> typing.Any:
        return AwaitableSession(self._session.connection())

    async def run_sync(self, run: collections.abc.Callable[..., typing.Any], *args: typing.Any) -> typing.Any:
        return run(self._session, *args)

    async def stream(self, statement: typing.Any) -> AwaitableRows:
        return AwaitableRows(self._session.execute(statement, execution_options={"stream_results": True}))

    async def stream_scalars(self, statement: typing.Any) -> AwaitableRows:
        return AwaitableRows(self._session.scalars(statement, execution_options={"stream_results": True}))


def run(
    work: collections.abc.Callable[[AsyncRoutedSession], collections.abc.Awaitable[typing.Any]], session: RoutedSession
) -> typing.Any:
    """Run what was written for an asynchronous session on a synchronous one."""
    return complete(typing.cast(typing.Any, work(typing.cast(AsyncRoutedSession, AwaitableSession(session)))))


class AwaitableEngine(AwaitableSession):
    """An engine whose connections are awaited."""

    @property
    def sync_engine(self) -> typing.Any:
        return self._session

    @contextlib.asynccontextmanager
    async def begin(self) -> collections.abc.AsyncIterator[typing.Any]:
        with self._session.begin() as connection:
            yield AwaitableSession(connection)

    @contextlib.asynccontextmanager
    async def connect(self) -> collections.abc.AsyncIterator[typing.Any]:
        with self._session.connect() as connection:
            yield AwaitableSession(connection)

    async def dispose(self) -> None:
        self._session.dispose()

    def execution_options(self, **options: typing.Any) -> "AwaitableEngine":
        return AwaitableEngine(self._session.execution_options(**options))

    @property
    def engines(self) -> collections.abc.Mapping[str, typing.Any]:
        return {name: AwaitableEngine(engine) for name, engine in self._session.engines.items()}


class AwaitableServers:
    """The servers as tests of asynchronous sessions have them."""

    def __init__(self, servers: Servers, cluster: object) -> None:
        self._servers = servers
        self.cluster = cluster
        self.primary = AwaitableEngine(servers.primary)
        self.replica = AwaitableEngine(servers.replica)

    def session(self, **options: typing.Any) -> AwaitableSession:
        return AwaitableSession(self._servers.session(**_synchronous(options)))


class Shop:
    """A database of a cluster that other tests use too, in the place of that cluster."""

    def __init__(self, settings: ReplicationSettings) -> None:
        self.settings = settings
        self.replicas = settings.servers


@contextlib.asynccontextmanager
async def serving_awaitable(
    cluster: LocalCluster | Shop, **settings: typing.Any
) -> collections.abc.AsyncIterator[AwaitableServers]:
    """Stand for `tests.session.conftest.serving` in tests that were written for asynchronous sessions."""
    with serving(cluster.settings if isinstance(cluster, Shop) else cluster, **settings) as servers:
        yield AwaitableServers(servers, cluster)


def routed(engine: AwaitableEngine, **options: typing.Any) -> AwaitableSession:
    """Stand for the asynchronous `RoutedSession`."""
    return AwaitableSession(RoutedSession(engine.sync_engine, **_synchronous(options)))


def _synchronous(options: dict[str, typing.Any]) -> dict[str, typing.Any]:
    given = {name: getattr(value, "sync_session", value) for name, value in options.items()}
    return {"expire_on_commit": False, **given}


def hold_to(claims: types.ModuleType, namespace: dict[str, typing.Any], *, without: tuple[str, ...] = ()) -> None:
    """Have a test module collect the tests of another, and run them on synchronous sessions.

    Args:
        claims: the tests of asynchronous sessions, which have `serving` among their names.
        namespace: the `globals()` of the module.
        without: the names of tests that are about an asynchronous driver.

    """

    @pytest.fixture(autouse=True)
    def on_synchronous_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claims, "serving", serving_awaitable)
        monkeypatch.setattr(claims, "RoutedSession", routed, raising=False)
        monkeypatch.setattr(claims, "PrimaryEngine", PrimaryEngine, raising=False)

    @pytest.fixture
    def shop_cluster(shop: ReplicationSettings) -> Shop:
        return Shop(shop)

    tests = {name: test for name, test in vars(claims).items() if name.startswith("test_") and name not in without}
    # A stream that is not read to its end leaves its cursor to the end of the transaction; psycopg minds.
    mark = pytest.mark.filterwarnings("ignore:.*ServerCursorMixin:pytest.PytestUnraisableExceptionWarning")
    fixtures = {"on_synchronous_sessions": on_synchronous_sessions, "shop_cluster": shop_cluster}
    namespace.update(**tests, **fixtures, pytestmark=mark)
