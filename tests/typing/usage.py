# pyright: strict
"""Typical code of users, checked by mypy, pyright and ty; see test_typing.py. It is not executed."""

import datetime as dt
from typing import Annotated, assert_type

import fastapi
import litestar
from litestar.di import NamedDependency
from modern_di import Container, Group, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import Engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
import modern_di_replicas.sync
from modern_di_replicas import (
    EVENTUAL,
    STRONG,
    Bounded,
    Cause,
    ConfigurationError,
    ConsistencyToken,
    Decision,
    Dependencies,
    Intent,
    Monitor,
    Primary,
    PrimaryEngine,
    Replica,
    ReplicaEngine,
    ReplicasError,
    ReplicationSettings,
    Role,
    RoutedSession,
    Snapshot,
    choose_engine,
    create_session,
    current_token,
    read_intent,
    write_intent,
)
from modern_di_replicas.observability import (
    Decided,
    Ejected,
    Event,
    Hook,
    LoggingHook,
    OpenTelemetryHook,
    PrometheusHook,
)
from modern_di_replicas.testing import LocalCluster, LocalServer


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


# Settings


class Pager:
    def on_event(self, event: Event, /) -> None:
        match event:
            case Decided(decision=decision):
                assert_type(decision, Decision)
            case Ejected(server=server):
                assert_type(server, str)
            case _:
                pass


hooks: list[Hook] = [Pager(), LoggingHook(), PrometheusHook(), OpenTelemetryHook()]

settings = ReplicationSettings(
    primary=Primary("postgresql+asyncpg://a/db", name="a"),
    replicas=["postgresql+asyncpg://b/db", Replica("postgresql+asyncpg://c/db", "c", groups={"reports"}, weight=2)],
    consistency=Bounded(lag=dt.timedelta(seconds=1)),
    replica_share=lambda: 0.5,
    hooks=hooks,
)
ReplicationSettings(primary="postgresql+asyncpg://a/db", replica_share=0.1, hooks=[LoggingHook()])

# Dependencies


class Repository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def first(self) -> User | None:
        user = await self.session.scalar(select(User).limit(1))
        assert_type(user, User | None)
        return user


class Repositories(Group):
    repository = providers.Factory(Repository, scope=Scope.REQUEST)


class CustomDependencies(modern_di_replicas.fastapi.Dependencies):
    session = providers.Factory(create_session, scope=Scope.REQUEST)


container = Container(groups=[CustomDependencies, Repositories], context={ReplicationSettings: settings})
assert_type(container.resolve(ReplicaEngine), ReplicaEngine)
assert_type(container.resolve(PrimaryEngine), PrimaryEngine)


def choose(intent: Intent, primary: PrimaryEngine, replica: ReplicaEngine) -> AsyncEngine:
    return primary if intent.is_write else choose_engine(intent, primary, replica)


# Handlers

app = fastapi.FastAPI()


@app.get("/users/first")
@read_intent(group="reports", consistency=EVENTUAL)
async def first(repository: Annotated[Repository, FromDI(Repository)]) -> str | None:
    user = await repository.first()
    return None if user is None else user.name


@app.post("/users")
@write_intent
async def create(session: Annotated[AsyncSession, FromDI(AsyncSession)], name: str) -> int:
    user = User(name=name)
    session.add(user)
    await session.commit()
    return user.id


assert_type(modern_di_replicas.fastapi.setup_replicas(app, container), Container)


@litestar.get("/users/first", opt={"intent": Intent.read(consistency=STRONG)})
async def litestar_first(repository: NamedDependency[Repository]) -> str | None:
    user = await repository.first()
    return None if user is None else user.name


litestar.Litestar([litestar_first], plugins=[modern_di_replicas.litestar.ReplicasPlugin(container, [Repositories])])


# Sessions


class OwnSession(Session):
    """A synchronous session class of the user."""


async def unit_of_work(primary: PrimaryEngine, replicas: ReplicaEngine) -> None:
    async with RoutedSession(replicas, intent=Intent.read(affinity="user-1")) as session:
        result = await session.execute(select(User))
        for user in result.scalars():
            assert_type(user, User)
        assert_type(session.decision, Decision)
        assert_type(session.decision.cause, Cause)
    maker = async_sessionmaker(replicas, class_=RoutedSession, expire_on_commit=False)
    async with maker() as made:
        assert_type(made, RoutedSession)
    async with primary.begin() as connection:
        await connection.execute(text("SELECT 1"), execution_options={"use_primary": True})
    assert_type(replicas.choose("reports"), AsyncEngine)
    assert_type(current_token(), ConsistencyToken | None)


async def job() -> None:
    async with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as jobs:
        replicas = jobs.resolve(ReplicaEngine)
        async with Monitor(replicas):
            snapshot = replicas.snapshot
            assert_type(snapshot, Snapshot | None)
            if snapshot is not None:
                assert_type(snapshot.servers["a"].role, Role)
                assert_type(snapshot.servers["a"].lag_seconds, float | None)
        async with jobs.build_child_container(scope=Scope.REQUEST, context={Intent: Intent.write()}) as unit:
            assert_type(unit.resolve(Repository), Repository)


# Errors


def handle() -> None:
    try:
        ReplicationSettings(primary="mysql://a/b")
    except ConfigurationError as error:
        assert_type(error.field, str)
        assert_type(error.remedy, str)
    except ReplicasError as error:
        assert_type(error.message(), str)


# Tests


def test_with_a_cluster() -> None:
    with LocalCluster(replicas=1) as cluster:
        assert_type(cluster.primary, LocalServer)
        cluster.primary.execute("SELECT 1")
        cluster.catch_up()


# Synchronous applications


def in_a_script(container: Container, replicas: modern_di_replicas.sync.ReplicaEngine) -> User | None:
    with modern_di_replicas.sync.Monitor(replicas), modern_di_replicas.sync.unit_of_work(container) as unit:
        assert_type(replicas.choose(), Engine)
        session = unit.resolve(modern_di_replicas.sync.RoutedSession)
        assert_type(session.decision, Decision)
        assert_type(list(session.scalars(select(User))), list[User])
        assert_type(session.execute(select(User.id)).scalar_one(), int)
        return session.get(User, 1)


class OwnSyncSession(modern_di_replicas.sync.RoutedSession, Session):
    pass
