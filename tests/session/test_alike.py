"""INVARIANT: what people customise does the same on a replica as on the primary, in any combination."""

import asyncio
import dataclasses
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.ext.asyncio.exc import AsyncMethodRequired
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from modern_di_replicas import Intent, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving
from tests.session.models import Item


class Filtering(Session):
    def scalars(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:
        return super().scalars(statement.options(with_loader_criteria(Item, Item.amount <= 50)), *args, **options)


class Remembering(Session):
    def __init__(self, *args: typing.Any, **options: typing.Any) -> None:
        super().__init__(*args, **options)
        self.info["remembered"] = []

    def execute(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:
        self.info["remembered"].append(str(statement).split(maxsplit=1)[0])
        return super().execute(statement, *args, **options)


class OwnSession(RoutedSession):
    sync_session_class = Filtering

    async def amounts(self) -> list[int]:
        return list((await self.scalars(select(Item.amount).where(Item.id <= 9).order_by(Item.id))).all())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Custom:
    """What an application has customised."""

    session_class: type[RoutedSession]
    sync_session_class: type[Session] | None
    options: dict[str, typing.Any]
    engine_options: dict[str, typing.Any]
    listener: str
    by_factory: bool

    def session(self, engine: AsyncEngine) -> RoutedSession:
        engine = engine.execution_options(**self.engine_options) if self.engine_options else engine
        options: dict[str, typing.Any] = {"intent": Intent.read(), **self.options}
        if self.sync_session_class is not None:
            options["sync_session_class"] = self.sync_session_class
        if self.by_factory:
            make: typing.Callable[[], RoutedSession] = async_sessionmaker(engine, class_=self.session_class, **options)
            return make()
        return self.session_class(engine, **options)


customs = st.builds(
    Custom,
    session_class=st.sampled_from([RoutedSession, OwnSession]),
    sync_session_class=st.sampled_from([None, Session, Filtering, Remembering]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "expire_on_commit": st.booleans(),
            "autoflush": st.booleans(),
            "info": st.builds(dict, tenant=st.just(1)),
            "join_transaction_mode": st.sampled_from(["conditional_savepoint", "create_savepoint", "control_fully"]),
        },
    ),
    engine_options=st.sampled_from(
        [
            {},
            {"yield_per": 3},
            {"stream_results": True},
            {"schema_translate_map": {None: "tenant"}},
            {"logging_token": "custom"},
        ]
    ),
    listener=st.sampled_from(["", "do_orm_execute", "after_begin", "loaded_as_persistent", "yield_per"]),
    by_factory=st.booleans(),
)


def listen(session: Session, listener: str, heard: list[str]) -> None:
    def hears(*_: object) -> None:
        heard.append(listener)

    def sets_option(state: ORMExecuteState) -> None:
        state.update_execution_options(yield_per=3)

    if listener == "yield_per":
        event.listen(session, "do_orm_execute", sets_option)
    elif listener:
        event.listen(session, listener, hears)


async def outcome(custom: Custom, engine: AsyncEngine) -> tuple[typing.Any, ...]:
    """Return what an application sees, but for where it is read."""
    heard: list[str] = []
    async with custom.session(engine) as session:
        listen(session.sync_session, custom.listener, heard)
        statement = select(Item).where(Item.id <= 9).order_by(Item.id)
        listed = await session.run_sync(lambda sync: [item.amount for item in sync.scalars(statement)])
        executed = await session.run_sync(lambda sync: [row[0] for row in sync.execute(text("SELECT 7"))])
        item = await session.get(Item, 1)
        streamed = [amount async for amount in await session.stream_scalars(select(Item.amount).where(Item.id == 1))]
        await session.commit()
        expired = item is not None and "amount" not in typing.cast(typing.Any, item).__dict__
        again = await session.scalar(select(Item.amount).where(Item.id == 1))
        own: object = None
        if isinstance(session, OwnSession):
            try:
                own = await session.amounts()
            except AsyncMethodRequired as error:  # SQLAlchemy's, for rows one by one that are asked for all at once
                own = str(error)
        kind = [cls.__name__ for cls in type(session.sync_session).__mro__ if cls in (Filtering, Remembering)]
        # A stream reads on a connection of its own on a replica, so `after_begin` is called once more.
        calls = set(heard) if custom.listener == "after_begin" else heard
        return listed, executed, streamed, expired, again, own, kind, calls, session.info, custom_parts(session)


def custom_parts(session: AsyncSession) -> tuple[object, ...]:
    return session.autoflush, session.sync_session.join_transaction_mode, session.sync_session_class


@pytest.mark.timeout(300)
def test_customised_sessions_behave_alike_on_both_servers(shop_cluster: LocalCluster) -> None:
    """A session class, a listener, options of the session and of the engine, chosen at random."""

    @hypothesis.settings(max_examples=60, deadline=None, database=None)
    @hypothesis.given(customs)
    def behaves_alike(custom: Custom) -> None:
        async def compare() -> None:
            async with serving(shop_cluster, on_write="raise") as servers:
                on_primary = await outcome(custom, servers.primary)
                on_replica = await outcome(custom, servers.replica)
                assert on_replica == on_primary
                async with custom.session(servers.replica) as session:
                    assert await session.scalar(text("SELECT pg_is_in_recovery()")) is True
                    assert session.decision.server != "primary"

        asyncio.run(compare())

    behaves_alike()
