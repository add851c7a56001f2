import typing

import fastapi
import litestar
import pytest
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
from modern_di_replicas import (
    ConfigurationError,
    Dependencies,
    Intent,
    PrimaryEngine,
    ReplicaEngine,
    ReplicationSettings,
    RoutedSession,
    SessionFactory,
    UnknownGroupError,
    create_session,
    read_intent,
)


SETTINGS = ReplicationSettings(
    primary="postgresql+asyncpg://app@db-1/shop", replicas=["postgresql+asyncpg://app@db-2/shop"]
)


@pytest.mark.parametrize(
    "group",
    [Dependencies, modern_di_replicas.fastapi.Dependencies, modern_di_replicas.litestar.Dependencies],
    ids=lambda group: group.__module__,
)
def test_without_a_framework_the_context_declares_the_intent(group: type[Dependencies]) -> None:
    """For jobs and command-line tools: by default the primary, in each of the groups."""
    container = Container(groups=[group], context={ReplicationSettings: SETTINGS})

    def engine(context: dict[type, Intent]) -> AsyncEngine:
        return container.build_child_container(scope=Scope.REQUEST, context=context).resolve(AsyncEngine)

    assert isinstance(engine({}), PrimaryEngine)
    assert isinstance(engine({Intent: Intent.write()}), PrimaryEngine)
    assert isinstance(engine({Intent: Intent.read()}), ReplicaEngine)
    with pytest.raises(UnknownGroupError) as caught:
        engine({Intent: Intent.read(group="analytics")})
    assert caught.value.known == ("default",)


@pytest.mark.parametrize("group", [modern_di_replicas.fastapi.Dependencies, modern_di_replicas.litestar.Dependencies])
def test_a_session_scope_of_the_application_is_not_a_websocket(group: type[Dependencies]) -> None:
    """The scope between application and request has uses other than websockets."""
    container = Container(groups=[group], context={ReplicationSettings: SETTINGS})
    if group is modern_di_replicas.fastapi.Dependencies:
        modern_di_replicas.fastapi.setup_replicas(fastapi.FastAPI(), container)
    else:
        litestar.Litestar(plugins=[modern_di_replicas.litestar.ReplicasPlugin(container)])
    session = container.build_child_container(scope=Scope.SESSION)

    assert session.build_child_container(scope=Scope.REQUEST).resolve(Intent).is_write


async def test_an_unknown_group_of_a_marker_is_an_error_at_the_start_in_fastapi() -> None:
    """Also in an included router or a mounted application: not at the first request, weeks later."""
    for where in ("app", "router", "sub"):
        container = Container(groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: SETTINGS})
        app, router, sub = fastapi.FastAPI(), fastapi.APIRouter(), fastapi.FastAPI()
        place: typing.Any = {"app": app, "router": router, "sub": sub}[where]
        place.add_api_route("/x", read_intent(group="typo")(lambda: None))
        app.include_router(router)
        app.mount("/sub", sub)
        modern_di_replicas.fastapi.setup_replicas(app, container)

        with pytest.raises(UnknownGroupError) as caught:
            async with app.router.lifespan_context(app):
                pytest.fail("the application started")

        assert caught.value.group == "typo"


async def test_an_unknown_group_of_a_marker_is_an_error_at_the_start_in_litestar() -> None:
    """On a handler and on a controller."""

    @litestar.get("/x")
    @read_intent(group="typo")
    async def marked() -> None: ...

    @litestar.get("/y", opt={"intent": Intent.read(group="typo")})
    async def by_opt() -> None: ...

    for handler in (marked, by_opt):
        group = modern_di_replicas.litestar.Dependencies
        container = Container(groups=[group], context={ReplicationSettings: SETTINGS})
        app = litestar.Litestar([handler], plugins=[modern_di_replicas.litestar.ReplicasPlugin(container)])

        with pytest.RaisesGroup(UnknownGroupError, flatten_subgroups=True):
            async with app.lifespan():
                pytest.fail("the application started")


async def test_an_opt_that_is_not_an_intent_is_an_error_at_the_start() -> None:
    """A text looks right, but would have no effect."""

    @litestar.get("/x", opt={"intent": "read"})
    async def handler() -> None: ...

    container = Container(groups=[modern_di_replicas.litestar.Dependencies], context={ReplicationSettings: SETTINGS})
    app = litestar.Litestar([handler], plugins=[modern_di_replicas.litestar.ReplicasPlugin(container)])

    def names_the_place(error: ConfigurationError) -> bool:
        return "opt['intent']" in error.field and "handler" in error.field

    with pytest.RaisesGroup(pytest.RaisesExc(ConfigurationError, check=names_the_place), flatten_subgroups=True):
        async with app.lifespan():
            pytest.fail("the application started")


@pytest.mark.parametrize(
    "group",
    [Dependencies, modern_di_replicas.fastapi.Dependencies, modern_di_replicas.litestar.Dependencies],
    ids=lambda group: group.__module__,
)
def test_the_session_is_resolved_as_either_type(group: type[Dependencies]) -> None:
    """One session per unit of work for either annotation; a replacement or an override applies to both."""

    class OwnSession(RoutedSession): ...

    class Repository:
        def __init__(self, session: RoutedSession) -> None:
            self.session = session

    class Repositories(Group):
        repository = providers.Factory(Repository, scope=Scope.REQUEST)

    def make(engine: AsyncEngine) -> AsyncSession:
        return OwnSession(engine)

    def make_routed(engine: AsyncEngine) -> RoutedSession:
        return OwnSession(engine)

    class Customised(group):  # type: ignore[valid-type, misc]  # mypy knows no classes in variables
        session = providers.Factory(
            create_session, scope=Scope.REQUEST, cache=True, kwargs={"session_class": OwnSession, "autoflush": False}
        )

    class Replaced(group):  # type: ignore[valid-type, misc]
        session = providers.Factory(make, scope=Scope.REQUEST, cache=True)

    class ReplacedByRouted(group):  # type: ignore[valid-type, misc]
        session = providers.Factory(make_routed, scope=Scope.REQUEST, cache=True)

    class WithAnAliasAlready(group):  # type: ignore[valid-type, misc]
        own = providers.Alias(AsyncSession, bound_type=RoutedSession)

    for used, kind in (
        (group, RoutedSession),
        (Customised, OwnSession),
        (Replaced, OwnSession),
        (ReplacedByRouted, OwnSession),
        (WithAnAliasAlready, RoutedSession),
    ):
        container = Container(groups=[used, Repositories], context={ReplicationSettings: SETTINGS})
        container.validate()
        unit = container.build_child_container(scope=Scope.REQUEST)
        session = unit.resolve(AsyncSession)
        assert type(session) is kind
        assert session is unit.resolve(RoutedSession) is unit.resolve(Repository).session
        assert session.autoflush is (used is not Customised)
        assert unit.resolve(SessionFactory) is unit.resolve(SessionFactory)
        with container.override(used.session, another := AsyncSession()):
            overridden = container.build_child_container(scope=Scope.REQUEST)
            assert overridden.resolve(RoutedSession) is overridden.resolve(AsyncSession) is another


def test_a_session_of_another_type_is_left_alone() -> None:
    """Existing code may inject it by that type."""

    class OwnSession(RoutedSession): ...

    def make(engine: AsyncEngine) -> OwnSession:
        return OwnSession(engine)

    class Replaced(Dependencies):
        session = providers.Factory(make, scope=Scope.REQUEST, cache=True)

    container = Container(groups=[Replaced], context={ReplicationSettings: SETTINGS})
    unit = container.build_child_container(scope=Scope.REQUEST)
    assert unit.resolve(OwnSession) is unit.resolve(OwnSession)


def test_reads_follow_a_tests_replacement_of_the_primary() -> None:
    """`override(primary, connection)` alone must not send the reads of a test to real replicas."""
    container = Container(groups=[Dependencies], context={ReplicationSettings: SETTINGS})
    other = create_async_engine("postgresql+asyncpg://test@db-9/shop")
    container.override(Dependencies.primary, other)
    unit = container.build_child_container(scope=Scope.REQUEST, context={Intent: Intent.read()})
    assert unit.resolve(AsyncEngine) is other


@pytest.mark.parametrize("intent", [Intent.read(), Intent.write()])
async def test_a_synchronous_tool_can_close_its_container_after_the_session(intent: Intent) -> None:
    """As modern-di-typer does: neither a closed session nor its closed factory has anything to await."""
    container = Container(groups=[Dependencies], context={ReplicationSettings: SETTINGS})
    unit = container.build_child_container(scope=Scope.REQUEST, context={Intent: intent})
    await unit.resolve(AsyncSession).close()
    async with unit.resolve(SessionFactory)():
        pass
    unit.close_sync()
