"""The application that the tests of tokens use, in each framework."""

import collections.abc
import contextlib
import dataclasses
import typing
from typing import Annotated

import fastapi
import httpx
import litestar
import modern_di_fastapi
import modern_di_litestar
from litestar.di import NamedDependency
from modern_di import Container
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
from modern_di_replicas import Intent, PrimaryEngine, ReplicationSettings, Tokens
from modern_di_replicas.testing import LocalCluster
from tests.asgi.direct_use import WAYS_OF_DRIVER, read_by_driver
from tests.pgbouncer import behind_poolers


READ = text("SELECT amount FROM stock WHERE id = 1")
WRITE = text("UPDATE stock SET amount = amount + 1 WHERE id = 1 RETURNING amount")
WHERE = text("SELECT pg_is_in_recovery()")

Handler = collections.abc.Callable[..., typing.Any]


class Written(Exception):  # noqa: N818  # what a handler raises after its write; it is not part of any interface
    """The error that a handler raises after its write."""


async def read(session: AsyncSession) -> dict[str, typing.Any]:
    """Return the rows as a repository would, and the server that read them."""
    return {"amount": await session.scalar(READ), "replica": await session.scalar(WHERE)}


async def read_core(engine: AsyncEngine) -> dict[str, typing.Any]:
    async with engine.connect() as connection:
        return {"amount": await connection.scalar(READ), "replica": await connection.scalar(WHERE)}


async def commit(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(WRITE)
    await session.commit()


async def begin(session: AsyncSession, _: PrimaryEngine) -> None:
    async with session.begin():
        await session.execute(WRITE)


async def commit_twice(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(WRITE)
    await session.commit()
    await session.scalar(READ)
    await session.commit()


async def core(_: AsyncSession, primary: PrimaryEngine) -> None:
    async with primary.begin() as connection:
        await connection.execute(WRITE)


async def core_commit(_: AsyncSession, primary: PrimaryEngine) -> None:
    async with primary.connect() as connection:
        await connection.execute(WRITE)
        await connection.commit()
        await connection.scalar(READ)
        await connection.rollback()


async def core_autocommit(_: AsyncSession, primary: PrimaryEngine) -> None:
    async with primary.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(WRITE)


async def inside_a_select(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(text("SELECT sell()"))
    await session.commit()


async def lazily(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(text("SET LOCAL synchronous_commit = off"))
    await session.execute(WRITE)
    await session.commit()


async def select_in_autocommit(_: AsyncSession, primary: PrimaryEngine) -> None:
    async with primary.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("SELECT sell()"))


async def raw_connection(session: AsyncSession, primary: PrimaryEngine) -> None:
    def work(_: Session) -> None:
        raw = primary.sync_engine.raw_connection()
        raw.cursor().execute("INSERT INTO delivery VALUES (1)")
        raw.commit()
        raw.close()

    await session.run_sync(work)


WAYS: dict[str, Handler] = {
    way.__name__: way
    for way in (
        *(
            commit,
            begin,
            commit_twice,
            core,
            core_commit,
            core_autocommit,
            inside_a_select,
            select_in_autocommit,
            lazily,
        ),
        *WAYS_OF_DRIVER,
        raw_connection,
    )
}
"""The ways to commit a write."""


async def nothing(_: AsyncSession, __: PrimaryEngine) -> None:
    """Do nothing, in a request that may write."""


async def only_read(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(READ)
    await session.commit()


async def read_with_functions(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(text("SET LOCAL work_mem = '4MB'"))
    async with session.begin_nested():
        await session.execute(text("SELECT count(*), max(lower(amount::varchar(9))) FROM stock WHERE id IN (1, 2)"))
    await session.commit()


async def roll_back(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(WRITE)
    await session.rollback()


async def fail_to_commit(session: AsyncSession, _: PrimaryEngine) -> None:
    await session.execute(text("INSERT INTO sale (item) VALUES (-1)"))
    with contextlib.suppress(Exception):
        await session.commit()


async def begin_nothing(_: AsyncSession, primary: PrimaryEngine) -> None:
    async with primary.begin():
        pass


NOT_WAYS: dict[str, Handler] = {
    way.__name__: way
    for way in (nothing, only_read, read_with_functions, read_by_driver, roll_back, fail_to_commit, begin_nothing)
}


@dataclasses.dataclass(kw_only=True)
class Application:
    asgi: fastapi.FastAPI | litestar.Litestar
    container: Container

    @property
    def tokens(self) -> Tokens:
        return self.container.resolve(Tokens)

    @contextlib.asynccontextmanager
    async def running(self) -> collections.abc.AsyncIterator[typing.Self]:
        app = self.asgi
        async with app.router.lifespan_context(app) if isinstance(app, fastapi.FastAPI) else app.lifespan():
            yield self

    def client(self, *, scheme: str = "http", **options: typing.Any) -> httpx.AsyncClient:
        """Return a new client with its own cookies."""
        transport = httpx.ASGITransport(typing.cast(typing.Any, self.asgi), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=f"{scheme}://test", **options)


def build_fastapi(settings: ReplicationSettings, reads: collections.abc.Mapping[str, Intent]) -> Application:
    container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings})
    app = fastapi.FastAPI()
    sessions = Annotated[AsyncSession, modern_di_fastapi.FromDI(AsyncSession)]
    primaries = Annotated[PrimaryEngine, modern_di_fastapi.FromDI(PrimaryEngine)]
    engines = Annotated[AsyncEngine, modern_di_fastapi.FromDI(AsyncEngine)]

    @app.post("/write/{way}")
    async def write(way: str, session: sessions, primary: primaries) -> None:
        await {**WAYS, **NOT_WAYS}[way](session, primary)

    @app.post("/write-and-fail")
    async def write_and_fail(session: sessions, primary: primaries) -> None:
        await commit(session, primary)
        raise fastapi.HTTPException(409)

    @app.post("/write-and-break")
    async def write_and_break(session: sessions, primary: primaries) -> None:
        await commit(session, primary)
        raise Written

    @app.post("/write-late")
    async def write_late(session: sessions, primary: primaries) -> fastapi.responses.StreamingResponse:
        async def body() -> collections.abc.AsyncIterator[bytes]:
            yield b"first"
            await core(session, primary)
            yield b"last"

        return fastapi.responses.StreamingResponse(body())

    @app.post("/stream")
    async def stream(session: sessions, primary: primaries) -> fastapi.responses.StreamingResponse:
        await commit(session, primary)

        async def body() -> collections.abc.AsyncIterator[bytes]:
            yield b"first"
            yield b"last"

        return fastapi.responses.StreamingResponse(body())

    app.get("/read")(_fastapi_reader(sessions))

    @app.get("/core")
    async def core_reader(engine: engines) -> dict[str, typing.Any]:
        return await read_core(engine)

    for name, intent in reads.items():
        marked = _fastapi_reader(sessions)
        vars(marked)["__modern_di_replicas_intent__"] = intent
        app.get(f"/read/{name}")(marked)

    modern_di_replicas.fastapi.setup_replicas(app, container)
    return Application(asgi=app, container=container)


def _fastapi_reader(sessions: typing.Any) -> Handler:
    async def reader(session: sessions) -> dict[str, typing.Any]:
        return await read(session)

    return reader


def build_litestar(  # noqa: C901  # one function for each route, and the routes are the point
    settings: ReplicationSettings, reads: collections.abc.Mapping[str, Intent]
) -> Application:
    container = Container(groups=[modern_di_replicas.litestar.Dependencies], context={ReplicationSettings: settings})

    def writer(way: str) -> typing.Any:
        @litestar.post(f"/write/{way}")
        async def handler(session: NamedDependency[AsyncSession], primary: NamedDependency[PrimaryEngine]) -> None:
            await {**WAYS, **NOT_WAYS}[way](session, primary)

        return handler

    @litestar.post("/write-and-fail")
    async def write_and_fail(session: NamedDependency[AsyncSession], primary: NamedDependency[PrimaryEngine]) -> None:
        await commit(session, primary)
        raise litestar.exceptions.HTTPException(status_code=409)

    @litestar.post("/write-and-break")
    async def write_and_break(session: NamedDependency[AsyncSession], primary: NamedDependency[PrimaryEngine]) -> None:
        await commit(session, primary)
        raise Written

    @litestar.post("/write-late")
    async def write_late(
        session: NamedDependency[AsyncSession], primary: NamedDependency[PrimaryEngine]
    ) -> litestar.response.Stream:
        async def body() -> collections.abc.AsyncIterator[bytes]:
            yield b"first"
            await core(session, primary)
            yield b"last"

        return litestar.response.Stream(body())

    @litestar.post("/stream")
    async def stream(
        session: NamedDependency[AsyncSession], primary: NamedDependency[PrimaryEngine]
    ) -> litestar.response.Stream:
        await commit(session, primary)

        async def body() -> collections.abc.AsyncIterator[bytes]:
            yield b"first"
            yield b"last"

        return litestar.response.Stream(body())

    @litestar.get("/core")
    async def core_reader(engine: NamedDependency[AsyncEngine]) -> dict[str, typing.Any]:
        return await read_core(engine)

    def reader(path: str, opt: dict[str, typing.Any]) -> typing.Any:
        @litestar.get(path, opt=opt)
        async def handler(session: NamedDependency[AsyncSession]) -> dict[str, typing.Any]:
            return await read(session)

        return handler

    readers = [reader("/read", {}), *(reader(f"/read/{name}", {"intent": reads[name]}) for name in reads)]
    app = litestar.Litestar(
        [*map(writer, [*WAYS, *NOT_WAYS]), write_and_fail, write_and_break, write_late, stream, core_reader, *readers],
        plugins=[modern_di_replicas.litestar.ReplicasPlugin(container)],
        dependencies={
            "engine": modern_di_litestar.FromDI(AsyncEngine),
            "primary": modern_di_litestar.FromDI(PrimaryEngine),
            "session": modern_di_litestar.FromDI(AsyncSession),
        },
    )
    return Application(asgi=app, container=container)


BUILDERS = {"fastapi": build_fastapi, "litestar": build_litestar}


@contextlib.contextmanager
def paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    """Pause the replay of every replica once all have caught up."""
    cluster.catch_up()
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()


def settings_of(cluster: LocalCluster, **options: typing.Any) -> ReplicationSettings:
    urls = {"primary": cluster.primary.url, "replicas": [server.url for server in cluster.replicas]}
    return ReplicationSettings(**behind_poolers({**urls, **options}))
