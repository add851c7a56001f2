"""Guarantees in both frameworks, verified by asking the servers."""

import asyncio
import collections
import collections.abc
import typing

import fastapi
import httpx
import pytest
from modern_di import Container, Group, Scope, providers
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from starlette.applications import Starlette

import modern_di_replicas
import modern_di_replicas.fastapi
import modern_di_replicas.litestar
import modern_di_replicas.starlette
from modern_di_replicas import (
    ConfigurationError,
    Intent,
    PrimaryEngine,
    Replica,
    ReplicaEngine,
    ReplicationSettings,
    RoutedSession,
)
from modern_di_replicas.testing import LocalCluster
from tests.applications import BUILDERS, METHODS, Application, where


READS = ("GET", "HEAD", "OPTIONS")
GROUPS: dict[str, type[modern_di_replicas.Dependencies]] = {
    "fastapi": modern_di_replicas.fastapi.Dependencies,
    "litestar": modern_di_replicas.litestar.Dependencies,
    "starlette": modern_di_replicas.starlette.Dependencies,
}


@pytest.fixture(params=["fastapi", "litestar", "starlette"])
def framework(request: pytest.FixtureRequest) -> str:
    return typing.cast(str, request.param)


@pytest.fixture
def settings(replicated_cluster: LocalCluster) -> ReplicationSettings:
    first, second = replicated_cluster.replicas
    return ReplicationSettings(
        primary=replicated_cluster.primary.url,
        replicas=[Replica(first.url, "first", groups={"default"}), Replica(second.url, "second", groups={"analytics"})],
        probe_timeout=30.0,  # a hundred concurrent connections are slow on a busy machine
    )


@pytest.fixture
def application(framework: str, settings: ReplicationSettings) -> Application:
    return BUILDERS[framework](settings)


@pytest.fixture
async def client(application: Application) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    # In a separate task: Litestar's lifespan has to be left in the task that entered it.
    started: asyncio.Future[httpx.AsyncClient] = asyncio.Future()
    done = asyncio.Event()

    async def run() -> None:
        async with application.running() as running:
            started.set_result(running)
            await done.wait()

    task = asyncio.create_task(run())
    yield await started
    done.set()
    await task


@pytest.mark.parametrize("method", METHODS)
async def test_the_method_decides_which_server_answers(client: httpx.AsyncClient, method: str) -> None:
    """GET, HEAD and OPTIONS read from a replica, the rest from the primary; three statements, one server."""
    place = where(await client.request(method, "/"))

    assert place["replica"] is (method in READS)


@pytest.mark.parametrize(
    ("method", "path", "replica"),
    [
        ("GET", "/marked-below", False),
        ("GET", "/marked-above", False),
        ("POST", "/router/search", True),
        ("GET", "/sub/marked", False),
        ("GET", "/sub/get", True),
    ],
)
async def test_a_marker_wins_over_the_method(client: httpx.AsyncClient, method: str, path: str, replica: bool) -> None:
    """Below and above the route decorator, in routers, sub-applications and controllers."""
    assert (where(await client.request(method, path)))["replica"] is replica


@pytest.mark.parametrize("path", ["/marked-sync-below", "/marked-sync-above"])
async def test_a_marker_works_on_a_handler_that_is_not_async(client: httpx.AsyncClient, path: str) -> None:
    """Frameworks run a `def` handler in a thread, through a wrapper; the marker is still found."""
    assert "first" in (await client.post(path)).text


async def test_a_group_reads_from_its_own_replicas(client: httpx.AsyncClient, replicated_cluster: LocalCluster) -> None:
    """A replica that declares another group does not serve reads without a group, and vice versa."""
    first, second = replicated_cluster.replicas

    assert (where(await client.post("/router/search")))["port"] == second.port
    assert {(where(await client.get("/")))["port"] for _ in range(4)} == {first.port}


async def test_a_hundred_concurrent_requests_are_each_answered_by_the_right_server(
    client: httpx.AsyncClient,
) -> None:
    """INVARIANT: the choice belongs to the request; global state would leak between tasks."""
    methods = [METHODS[index % len(METHODS)] for index in range(100)]

    responses = await asyncio.gather(*(client.request(method, "/") for method in methods))

    places = [(where(response))["replica"] for response in responses]
    assert places == [method in READS for method in methods]


async def test_requests_are_spread_evenly_over_equal_replicas(framework: str, replicated_cluster: LocalCluster) -> None:
    """INVARIANT: one turn per unit of work, however many objects it resolves; otherwise two replicas become one."""
    settings = ReplicationSettings(
        primary=replicated_cluster.primary.url,
        replicas=[Replica(server.url, groups={"default", "analytics"}) for server in replicated_cluster.replicas],
    )

    async with BUILDERS[framework](settings).running() as client:
        ports = collections.Counter([(where(await client.get("/")))["port"] for _ in range(20)])

    assert ports == {server.port: 10 for server in replicated_cluster.replicas}


async def test_without_replicas_everything_goes_to_the_primary(
    framework: str, replicated_cluster: LocalCluster
) -> None:
    """A single database is a valid topology: in development, and before replicas exist."""
    settings = ReplicationSettings(primary=replicated_cluster.primary.url)

    async with BUILDERS[framework](settings).running() as client:
        places = [where(await client.request(method, "/")) for method in METHODS]
        types = (await client.get("/types")).json()

    assert {place["port"] for place in places} == {replicated_cluster.primary.port}
    assert types == ["PrimaryEngine", "RoutedSession"]


async def test_a_request_resolves_the_engine_that_was_chosen(client: httpx.AsyncClient) -> None:
    """Handlers that use the engine itself get the real type."""
    assert (await client.get("/types")).json() == ["OneReplicaEngine", "RoutedSession"]


async def test_a_websocket_uses_the_primary_unless_declared(application: Application) -> None:
    """Declared by the context of a unit of work, or by the endpoint's marker."""
    async with application.running():
        undeclared, declared = await application.received("/ws")
        [marked] = await application.received("/ws-marked")

    assert [place["replica"] for place in (undeclared, declared, marked)] == [False, True, True]


async def test_the_container_validates_after_the_set_up(application: Application) -> None:
    """modern-di validates the graph only on request; it has to be valid after the set-up."""
    application.container.validate()


@pytest.mark.parametrize(
    ("declared", "expected"), [({}, PrimaryEngine), ({Intent: Intent.read()}, ReplicaEngine)], ids=["nothing", "read"]
)
async def test_outside_a_request_the_context_declares_the_intent(
    application: Application, declared: dict[type, Intent], expected: type[AsyncEngine]
) -> None:
    """A background job shares the application's container, and uses the primary by default."""
    async with (
        application.container as container,
        container.build_child_container(scope=Scope.REQUEST, context=declared) as unit_of_work,
    ):
        assert isinstance(unit_of_work.resolve(AsyncEngine), expected)


@pytest.mark.parametrize("groups", [[], [modern_di_replicas.Dependencies]], ids=["no group", "the neutral group"])
def test_a_container_without_the_dependencies_is_refused(framework: str, groups: list[type[Group]]) -> None:
    """The framework-neutral group would silently send every request to the primary."""
    container = Container(groups=groups)

    def set_up() -> None:
        if framework == "fastapi":
            modern_di_replicas.fastapi.setup_replicas(fastapi.FastAPI(), container)
        elif framework == "starlette":
            modern_di_replicas.starlette.setup_replicas(Starlette(), container)
        else:
            modern_di_replicas.litestar.ReplicasPlugin(container)

    with pytest.raises(ConfigurationError) as caught:
        set_up()

    assert f"modern_di_replicas.{framework}" in caught.value.remedy


# Overriding the predicate


async def test_a_subclass_that_redefines_intent_is_honoured(framework: str, settings: ReplicationSettings) -> None:
    """The documented way to override the predicate."""

    def my_intent() -> Intent:
        return Intent.read(group="analytics")

    group = type("Mine", (GROUPS[framework],), {"intent": providers.Factory(my_intent, scope=Scope.REQUEST)})

    application = BUILDERS[framework](settings, group)
    application.container.validate()
    async with application.running() as client:
        assert (where(await client.post("/")))["replica"] is True


async def test_a_subclass_that_redefines_engine_is_honoured(framework: str, settings: ReplicationSettings) -> None:
    """For a choice that an intent cannot express."""

    def my_engine(primary: PrimaryEngine) -> AsyncEngine:
        return primary

    group = type("Mine", (GROUPS[framework],), {"engine": providers.Factory(my_engine, scope=Scope.REQUEST)})

    application = BUILDERS[framework](settings, group)
    application.container.validate()
    async with application.running() as client:
        assert (where(await client.get("/")))["replica"] is False


async def test_a_subclass_that_redefines_primary_is_honoured_by_the_replicas_too(
    framework: str, replicated_cluster: LocalCluster
) -> None:
    """Without replicas, reads use the replaced primary."""
    created = []

    def my_primary() -> AsyncEngine:
        created.append(create_async_engine(replicated_cluster.primary.url, logging_name="mine"))
        return created[0]

    group = type(
        "Mine",
        (GROUPS[framework],),
        {
            "primary": providers.Factory(
                my_primary,
                scope=Scope.APP,
                bound_type=PrimaryEngine,
                cache=providers.CacheSettings(finalizer=AsyncEngine.dispose),
            )
        },
    )
    settings = ReplicationSettings(primary="postgresql+asyncpg://nobody@127.0.0.1:1/nothing")

    application = BUILDERS[framework](settings, group)
    application.container.validate()
    async with application.running() as client:
        for method in ("GET", "POST"):
            assert (where(await client.request(method, "/")))["port"] == replicated_cluster.primary.port
    assert len(created) == 1


async def test_a_subclass_that_redefines_session_is_honoured(framework: str, settings: ReplicationSettings) -> None:
    """Repositories use whatever is provided for `AsyncSession`."""

    class MySession(RoutedSession):
        pass

    def my_session(engine: AsyncEngine) -> AsyncSession:
        return MySession(engine)

    group = type(
        "Mine",
        (GROUPS[framework],),
        {
            "session": providers.Factory(
                my_session,
                scope=Scope.REQUEST,
                cache=providers.CacheSettings(finalizer=modern_di_replicas.dependencies.close_session),
            )
        },
    )

    application = BUILDERS[framework](settings, group)
    application.container.validate()
    async with application.running() as client:
        assert (await client.get("/types")).json() == ["OneReplicaEngine", "MySession"]
        assert (where(await client.get("/")))["replica"] is True


async def test_an_override_puts_every_request_into_one_rolled_back_transaction(
    framework: str, settings: ReplicationSettings, replicated_cluster: LocalCluster
) -> None:
    """modern-di's templates test like this: the next request sees the writes, and nothing else does."""
    application = BUILDERS[framework](settings)
    engine = create_async_engine(replicated_cluster.primary.url)
    async with application.running() as client, engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(text("CREATE TABLE only_in_this_test (n int)"))
        group = GROUPS[framework]
        with application.container.override(group.engine, typing.cast(AsyncEngine, connection)):
            for method in ("GET", "POST"):
                place = where(await client.request(method, "/"))
                assert place["replica"] is False
            assert connection.in_transaction()
        await transaction.rollback()
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass('only_in_this_test')")) is None
    await engine.dispose()


@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_an_override_of_one_role_is_used(
    framework: str, settings: ReplicationSettings, replicated_cluster: LocalCluster, role: str
) -> None:
    """Any engine or connection may replace either role."""
    application = BUILDERS[framework](settings)
    engine = create_async_engine(replicated_cluster.primary.url)
    async with application.running() as client, engine.connect() as connection:
        provider = getattr(GROUPS[framework], role)
        own = await own_backend(connection)
        with application.container.override(provider, connection):
            # Reads follow a replacement of the primary; writes do not follow a replacement of the replicas.
            assert (where(await client.get("/")))["port"] == own
            written = where(await client.post("/"))
            assert written["port"] == (own if role == "primary" else replicated_cluster.primary.port)
    await engine.dispose()


async def own_backend(connection: AsyncConnection) -> int:
    return typing.cast(int, await connection.scalar(text("SELECT inet_server_port()")))
