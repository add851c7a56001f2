"""Implicit writes move the session first; on SQLite, with the moves only recorded."""

import collections.abc

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from modern_di_replicas import Cause
from modern_di_replicas.session.unsent_writes import UnsentWritesSession


class Base(DeclarativeBase): ...


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Recording(UnsentWritesSession):
    """Records the reason for each move without moving."""

    _reading = {}  # noqa: RUF012  # it has none

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        super().__init__(self.engine)
        self.moves: list[str] = []

    def escalate(self, cause: Cause, reason: str, *, is_announced: bool = False) -> None:  # noqa: ARG002  # without an event
        self.moves.append(f"{cause.value}: {reason}")

    def escalate_write(self, statement: str) -> None:
        self.moves.append(statement)


@pytest.fixture
def session() -> collections.abc.Iterator[Recording]:
    with Recording() as session:
        session.add(Note(id=1))
        session.commit()
        session.moves.clear()
        yield session
    session.engine.dispose()


@pytest.mark.parametrize(
    ("do", "move"),
    [
        (lambda session: session.add(Note(id=2)), "INSERT"),
        (lambda session: session.delete(session.get_one(Note, 1)), "DELETE"),
        (lambda session: setattr(session.get_one(Note, 1), "text", "changed"), "UPDATE"),
    ],
    ids=["new", "deleted", "changed"],
)
def test_a_flush_names_its_first_write(
    session: Recording, do: collections.abc.Callable[[Recording], object], move: str
) -> None:
    """It moves before the flush begins: a partial flush on a replica could not be run again."""
    do(session)
    session.flush()
    assert session.moves == [move, "wrote: flush"]


def test_an_attribute_set_to_its_current_value_is_not_a_write(session: Recording) -> None:
    """The flush sends nothing, but moves the session all the same, without a warning."""
    note = session.get_one(Note, 1)
    note.text = note.text  # SQLAlchemy reports an event
    session.flush()
    assert session.moves == ["wrote: flush"]


@pytest.mark.parametrize(
    ("do", "move"),
    [
        (lambda session: session.connection(), "needs_transaction: connection()"),
        (lambda session: session.begin_nested(), "SAVEPOINT"),
        (lambda session: session.merge(Note(id=1)), "merge()"),
        (lambda session: session.bulk_save_objects(iter([Note(id=2)])), "bulk_save_objects()"),
        (lambda session: session.bulk_insert_mappings(Note, [{"id": 2}]), "bulk_insert_mappings()"),
        (lambda session: session.bulk_update_mappings(Note, [{"id": 1, "text": "x"}]), "bulk_update_mappings()"),
    ],
    ids=["connection", "begin_nested", "merge", "bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"],
)
def test_an_operation_that_cannot_be_run_again_moves_first(
    session: Recording, do: collections.abc.Callable[[Recording], object], move: str
) -> None:
    """The reason is the called method."""
    do(session)
    assert session.moves[0] == move
