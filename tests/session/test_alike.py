"""INVARIANT: customisations have the same effect on a replica as on the primary, in any combination."""

import asyncio
import dataclasses
import json
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from sqlalchemy import JSON, column, event, literal, select, text
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
    """The customisations of an application."""

    session_class: type[RoutedSession]
    sync_session_class: type[Session] | None
    options: dict[str, typing.Any]
    engine_options: dict[str, typing.Any]
    settings: dict[str, typing.Any]
    isolation: typing.Literal["REPEATABLE READ"] | None
    listener: str
    engine_listener: str
    by_factory: bool

    def session(self, engine: AsyncEngine) -> RoutedSession:
        engine = engine.execution_options(**self.engine_options) if self.engine_options else engine
        options: dict[str, typing.Any] = {"intent": Intent.read(isolation=self.isolation), **self.options}
        if self.sync_session_class is not None:
            options["sync_session_class"] = self.sync_session_class
        if self.by_factory:
            make: typing.Callable[[], RoutedSession] = async_sessionmaker(engine, class_=self.session_class, **options)
            return make()
        return self.session_class(engine, **options)


HEARD_FOR_EACH_STATEMENT = ["before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"]
HEARD_AT_ALL = [
    *("do_connect", "connect", "first_connect", "checkout", "checkin", "reset"),
    *("engine_connect", "begin", "rollback"),
]
"""A stream has a separate connection and transaction on a replica, so their number differs.

`commit` is not called for reads on a replica: nothing is committed there.
"""


def to_json(value: object) -> str:
    return json.dumps({"ours": value})


def from_json(value: str) -> object:
    return "ours", json.loads(value)


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
            {"compiled_cache": None},
        ]
    ),
    settings=st.sampled_from(
        [
            {},
            {"engine_options": {"json_serializer": to_json, "json_deserializer": from_json}},
            {"engine_options": {"echo": True, "hide_parameters": True}},
            {"engine_options": {"query_cache_size": 0, "pool_recycle": 60}},
            {"engine_options": {"insertmanyvalues_page_size": 5, "label_length": 20}},
        ]
    ),
    isolation=st.sampled_from([None, "REPEATABLE READ"]),
    listener=st.sampled_from(["", "do_orm_execute", "after_begin", "loaded_as_persistent", "yield_per"]),
    engine_listener=st.sampled_from(["", *HEARD_FOR_EACH_STATEMENT, *HEARD_AT_ALL, "retval"]),
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


def listen_to_engine(engine: AsyncEngine, listener: str, heard: list[str]) -> None:
    def hears(*details: typing.Any) -> None:
        # The statement: a construct in `before_execute`, the text in `before_cursor_execute`.
        heard.append(next((str(each) for each in details[1:3] if "SELECT" in str(each)), listener))

    def changes(_: object, __: object, statement: str, parameters: typing.Any, *___: object) -> tuple[str, typing.Any]:
        heard.append(statement)
        return statement.replace("SELECT 7", "SELECT 8"), parameters

    if listener == "retval":
        event.listen(engine.sync_engine, "before_cursor_execute", changes, retval=True)
    elif listener:
        event.listen(engine.sync_engine, listener, hears)


async def outcome(custom: Custom, engine: AsyncEngine) -> tuple[typing.Any, ...]:
    """Return everything the application sees, except the server of the read."""
    heard: list[str] = []
    heard_of_engine: list[str] = []
    listen_to_engine(engine, custom.engine_listener, heard_of_engine)
    async with custom.session(engine) as session:
        listen(session.sync_session, custom.listener, heard)
        statement = select(Item).where(Item.id <= 9).order_by(Item.id)
        listed = await session.run_sync(lambda sync: [item.amount for item in sync.scalars(statement)])
        executed = await session.run_sync(lambda sync: [row[0] for row in sync.execute(text("SELECT 7"))])
        value = text("SELECT CAST(:given AS json) AS value").columns(column("value", JSON))
        decoded = await session.scalar(value.bindparams(given=json.dumps([1])))
        encoded = await session.scalar(select(literal({"a": 1}, JSON)))
        isolation = await session.scalar(text("SELECT current_setting('transaction_isolation')"))
        # SQLAlchemy refuses to stream the result of `get()`, which calls the overridden `execute()` of a class.
        item = None if custom.listener == "yield_per" else await session.get(Item, 1)
        streamed = [amount async for amount in await session.stream_scalars(select(Item.amount).where(Item.id == 1))]
        await session.commit()
        expired = item is not None and "amount" not in typing.cast(typing.Any, item).__dict__
        again = await session.scalar(select(Item.amount).where(Item.id == 1))
        own: object = None
        if isinstance(session, OwnSession):
            try:
                own = await session.amounts()
            except AsyncMethodRequired as error:  # SQLAlchemy's error for a streamed result that is fetched as a whole
                own = str(error)
        kind = [cls.__name__ for cls in type(session.sync_session).__mro__ if cls in (Filtering, Remembering)]
        # On a replica a stream reads on a separate connection, so `after_begin` is called once more.
        calls = set(heard) if custom.listener == "after_begin" else heard
        read = (listed, executed, streamed, expired, again, own, decoded, encoded, isolation)
    # A statement that streams by an option of `do_orm_execute` is detected on the connection that does not stream.
    is_given_twice = custom.listener == "yield_per" and custom.engine_listener == "before_execute"
    unordered = custom.engine_listener in HEARD_AT_ALL or is_given_twice
    calls_of_engine = set(heard_of_engine) if unordered else heard_of_engine
    return read, kind, calls, calls_of_engine, session.info, custom_parts(session)


def custom_parts(session: AsyncSession) -> tuple[object, ...]:
    return session.autoflush, session.sync_session.join_transaction_mode, session.sync_session_class


@pytest.mark.timeout(300)
def test_customised_sessions_behave_alike_on_both_servers(shop_cluster: LocalCluster) -> None:
    """A session class, listeners of session and engine, options of session, engine and settings, chosen at random."""

    @hypothesis.settings(max_examples=25, deadline=None, database=None)
    @hypothesis.given(customs)
    def behaves_alike(custom: Custom) -> None:
        async def compare() -> None:
            async with serving(shop_cluster, on_write="raise", **custom.settings) as servers:
                on_primary = await outcome(custom, servers.primary)
                on_replica = await outcome(custom, servers.replica)
                assert on_replica == on_primary
                async with custom.session(servers.replica) as session:
                    assert await session.scalar(text("SELECT pg_is_in_recovery()")) is True
                    assert session.decision.server != "primary"

        asyncio.run(compare())

    behaves_alike()
