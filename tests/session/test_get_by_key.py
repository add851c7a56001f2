"""A `get()` with a cached statement finds the same as SQLAlchemy's own, with the same SQL."""

import asyncio
import collections.abc
import enum
import re
import typing
import uuid

import pytest
import sqlalchemy.exc
from sqlalchemy import Enum, ForeignKey, MetaData, String, TypeDecorator, bindparam, event, insert, select, text
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    aliased,
    joinedload,
    mapped_column,
    registry,
    relationship,
    selectinload,
    with_loader_criteria,
)

from modern_di_replicas.session import get_by_key
from modern_di_replicas.session.get_by_key import GetByKeySession
from modern_di_replicas.testing import LocalCluster


class Upper(TypeDecorator[str]):
    """A key whose Python value differs from its database value."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.upper()

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.lower()


class Size(enum.Enum):
    SMALL = "small"


class Base(DeclarativeBase):
    metadata = MetaData(schema="by_key")


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(lazy="joined", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship(lazy="selectin", overlaps="books")


class Country(Base):
    __tablename__ = "country"
    code: Mapped[str] = mapped_column(Upper, primary_key=True)


class Hat(Base):
    __tablename__ = "hat"
    size: Mapped[Size] = mapped_column(Enum(Size, native_enum=False), primary_key=True)


class Place(Base):
    __tablename__ = "place"
    row: Mapped[int] = mapped_column(primary_key=True)
    seat: Mapped[int] = mapped_column(primary_key=True)


class Person(Base):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012  # as SQLAlchemy has it


class Pilot(Person):
    __mapper_args__ = {"polymorphic_identity": "pilot"}  # noqa: RUF012


class Clock(Base):
    """Always reloaded."""

    __tablename__ = "clock"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    __mapper_args__ = {"always_refresh": True}  # noqa: RUF012


class Note:
    """Mapped imperatively, to a query."""


class Unmapped(Note):
    """Not mapped, but derived from a mapped class."""


class Signed:
    """Mapped imperatively, and loaded from several tables."""


mapping = registry()
with_authors = Book.__table__.join(Author.__table__)
mapping.map_imperatively(Signed, Book.__table__, with_polymorphic=("*", with_authors))
mapping.map_imperatively(Note, select(Author.id, Author.name).subquery(), primary_key=["id"])

ANOTHER = aliased(Author)
FIRST, SECOND = (uuid.UUID(int=n) for n in (1, 2))
ROWS: typing.Final[list[tuple[type[Base], list[dict[str, object]]]]] = [
    (Author, [{"id": 1, "name": "Ann"}, {"id": 2, "name": "Ben"}]),
    (Book, [{"id": FIRST, "author_id": 1}, {"id": SECOND, "author_id": 1}]),
    (Country, [{"code": "de"}]),
    (Hat, [{"size": Size.SMALL}]),
    (Place, [{"row": 1, "seat": 2}]),
    (Person, [{"id": 1, "kind": "person"}, {"id": 2, "kind": "pilot"}]),
    (Clock, [{"id": 1, "name": "tower"}]),
]


@pytest.fixture(scope="module")
def keyed_cluster(replicated_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    """Yield the shared cluster with these tables in a separate schema."""

    async def create() -> None:
        engine = create_async_engine(replicated_cluster.primary.url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA by_key"))
            await connection.run_sync(Base.metadata.create_all)
            for entity, rows in ROWS:
                await connection.execute(insert(entity), rows)
        await engine.dispose()

    asyncio.run(create())
    yield replicated_cluster
    replicated_cluster.primary.execute("DROP SCHEMA by_key CASCADE")


@pytest.fixture
async def engine(keyed_cluster: LocalCluster) -> collections.abc.AsyncIterator[AsyncEngine]:
    engine = create_async_engine(keyed_cluster.primary.url)
    yield engine
    await engine.dispose()


Found = tuple[object, list[str], int]


async def found_by(kind: type[Session], engine: AsyncEngine, ask: collections.abc.Callable[[Session], object]) -> Found:
    """Return the result, the SQL it took, and the number of lookups of cached statements."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:  # noqa: ARG001
        # SQLAlchemy 2.0 labels the columns of a get(), which changes only the text.
        sent.append(re.sub(r" AS \w+|%\(\w+\)s", "", statement))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    get_by_key._statement.cache_clear()  # noqa: SLF001  # whether one was built shows in it alone
    try:
        async with AsyncSession(engine, sync_session_class=kind) as session:
            found = await session.run_sync(ask)
    except (sqlalchemy.exc.SQLAlchemyError, TypeError) as error:
        found = repr(error)
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)
    return found, sent, used()


def used() -> int:
    info = get_by_key._statement.cache_info()  # noqa: SLF001
    return info.hits + info.misses


def facts(instance: typing.Any) -> object:
    """Return the state that can be compared across two sessions, collections included."""
    if instance is None:
        return None
    loaded = {name: value for name, value in vars(instance).items() if not name.startswith("_")}
    return type(instance).__name__, {name: repr(facts_of(value)) for name, value in loaded.items()}


def facts_of(value: typing.Any) -> object:
    if isinstance(value, list):
        return [facts_of(each) for each in value]
    return (type(value).__name__, sqlalchemy.inspect(value).identity) if isinstance(value, Base) else value


def twice(session: Session, entity: typing.Any, key: object) -> object:
    first, second = (session.get(entity, key) for _ in range(2))
    return first is second, facts(first)


def expired(session: Session) -> object:
    author = session.get(Author, 1)
    session.expire(author)
    return facts(session.get(Author, 1)), session.get(Author, 1) is author


def pending(session: Session) -> object:
    session.add(Author(id=9, name="New"))
    found = session.get(Author, 9), session.get(Author, 10)
    session.rollback()
    return [facts(each) for each in found]


def filtered_by_parameter(session: Session) -> object:
    def only_ben(state: ORMExecuteState) -> None:
        criterion = Author.name == bindparam("primary_key", "Ben")
        state.statement = state.statement.options(with_loader_criteria(Author, criterion))

    event.listen(session, "do_orm_execute", only_ben)
    return [facts(session.get(Author, key)) for key in (1, 2)]


def filtered(session: Session) -> object:
    def only_ben(state: ORMExecuteState) -> None:
        state.statement = state.statement.options(with_loader_criteria(Author, Author.name == "Ben"))

    event.listen(session, "do_orm_execute", only_ben)
    return [facts(session.get(Author, key)) for key in (1, 2)]


# The key, and whether a cached statement may be used.
ASKED: typing.Final[dict[str, tuple[collections.abc.Callable[[Session], object], bool]]] = {
    "a number": (lambda session: facts(session.get(Clock, 1)), True),
    "a collection that is joined": (lambda session: facts(session.get(Author, 1)), True),
    "what is loaded along": (lambda session: facts(session.get(Book, FIRST)), True),
    "a text that is another one in the database": (lambda session: facts(session.get(Country, "de")), True),
    "nothing": (lambda session: facts(session.get(Author, 77)), True),
    "get_one": (lambda session: facts(session.get_one(Author, 2)), True),
    "get_one of nothing": (lambda session: session.get_one(Author, 77), True),
    "a key of another type": (lambda session: session.get(Author, "no number"), True),
    "a mapper": (lambda session: facts(session.get(sqlalchemy.inspect(Author), 2)), False),
    "a class that inherits a mapped one": (lambda session: session.get(Unmapped, 1), False),
    "what is there already": (lambda session: twice(session, Author, 1), True),
    "what is always read anew": (lambda session: twice(session, Clock, 1), True),
    "what is expired": (expired, True),
    "what is flushed first": (pending, True),
    "under criteria of the application": (filtered, True),
    "under criteria with parameters": (filtered_by_parameter, True),
    "an Enum": (lambda session: facts(session.get(Hat, Size.SMALL)), False),
    "two columns": (lambda session: facts(session.get(Place, (1, 2))), False),
    "two columns by name": (lambda session: facts(session.get(Place, {"row": 1, "seat": 2})), False),
    "one of two columns": (lambda session: session.get(Place, 1), True),
    "a tuple of one": (lambda session: facts(session.get(Author, (1,))), False),
    "a base class": (lambda session: facts(session.get(Person, 2)), True),
    "a subclass": (lambda session: facts(session.get(Pilot, 2)), True),
    "another subclass": (lambda session: facts(session.get(Pilot, 1)), True),
    "a query": (lambda session: facts(session.get(Note, 1)), True),
    "from more than its table": (lambda session: facts(session.get(Signed, FIRST)), True),
    "unknown options": (lambda session: session.get(Author, 1, nonsense=None), False),  # type: ignore[call-arg]  # on purpose
    "no key": (lambda session: session.get(Author, None), False),
    "an alias": (lambda session: session.get(ANOTHER, 1), False),
    "no mapped class": (lambda session: session.get(typing.cast(typing.Any, dict), 1), False),
    "options": (lambda session: facts(session.get(Book, FIRST, options=[joinedload(Book.author)])), False),
    "other options": (lambda session: facts(session.get(Author, 1, options=[selectinload(Author.books)])), False),
    "a lock": (lambda session: facts(session.get(Clock, 1, with_for_update=True)), False),
    "a lock by a dictionary": (lambda session: facts(session.get(Clock, 1, with_for_update={})), False),
    "explicitly no lock": (lambda session: facts(session.get(Clock, 1, with_for_update=False)), False),
    "another identity": (lambda session: facts(session.get(Author, 1, identity_token="")), False),
    "populate_existing": (lambda session: facts(session.get(Author, 1, populate_existing=True)), False),
    "execution options": (lambda session: facts(session.get(Author, 1, execution_options={"mine": 1})), False),
}


@pytest.mark.filterwarnings("ignore:fully NULL primary key")  # intended
@pytest.mark.parametrize("asked", ASKED)
async def test_it_finds_the_same_as_sqlalchemy(engine: AsyncEngine, asked: str) -> None:
    """INVARIANT: the same objects, the same loaded attributes, the same SQL, the same errors."""
    ask, looks = ASKED[asked]

    expected, expected_sql, _ = await found_by(Session, engine, ask)
    found, sql, looked = await found_by(GetByKeySession, engine, ask)

    assert (found, sql) == (expected, expected_sql)
    assert bool(looked) is looks


async def test_the_statement_is_built_once(engine: AsyncEngine) -> None:
    """Once for all sessions; SQLAlchemy's cache lookup is skipped as well."""
    await found_by(GetByKeySession, engine, lambda session: session.get(Author, 1))
    async with AsyncSession(engine, sync_session_class=GetByKeySession) as session:
        await session.get(Author, 1)
        await session.get(Author, 2)

    info = get_by_key._statement.cache_info()  # noqa: SLF001
    assert (info.misses, info.hits) == (1, 2)


async def test_a_collection_that_a_listener_joins_is_found_whole(engine: AsyncEngine) -> None:
    """The object then has several rows, as with a joined collection in the mapping."""

    class Shelf:
        books: list[Book]

    def join(state: ORMExecuteState) -> None:
        if state.is_select and not state.is_relationship_load:
            state.statement = state.statement.options(joinedload(Shelf.books))  # type: ignore[arg-type]  # as mapped

    def get(session: Session) -> object:
        event.listen(session, "do_orm_execute", join)
        return facts(session.get(Shelf, 1))

    again = registry()
    again.map_imperatively(Shelf, Author.__table__, properties={"books": relationship(Book, viewonly=True)})
    expected, _, _ = await found_by(Session, engine, get)
    found, _, _ = await found_by(GetByKeySession, engine, get)
    again.dispose()

    assert found == expected
    assert str(FIRST) in str(found)
    assert str(SECOND) in str(found)


async def test_a_class_that_is_mapped_again_has_a_new_statement(engine: AsyncEngine) -> None:
    """Test suites of applications do this."""

    class Thing:
        id: int
        name: str

    names = []
    for table in (Author.__table__, Clock.__table__):
        again = registry()
        again.map_imperatively(Thing, table)
        async with AsyncSession(engine, sync_session_class=GetByKeySession) as session:
            names.append((await session.get_one(Thing, 1)).name)
        again.dispose()

    assert names == ["Ann", "tower"]
