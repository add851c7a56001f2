"""One use of the connection shared by all units of work of a test: its transaction is a savepoint."""

import types
import typing

import pytest

from modern_di_replicas.testing.shared_connection import SharedConnection, TakingTurns, watch
from modern_di_replicas.testing.turns import Savepoints, Turn, Turns


class Real:
    """The driver's connection, which records its statements."""

    server_version = "18"

    def __init__(self) -> None:
        self.sent: list[str] = []

    def cursor(self) -> typing.Any:
        return types.SimpleNamespace(execute=self.sent.append, close=lambda: None)


class Given:
    """Counts released turns."""

    count = 0

    def give_back(self) -> None:
        self.count += 1


def use(real: Real, savepoints: Savepoints, given: Given | None = None) -> SharedConnection:
    return SharedConnection(real, given or Given(), savepoints)


def test_a_transaction_is_a_savepoint_that_begins_with_its_first_statement() -> None:
    """A commit releases it, a rollback undoes it; the real transaction stays open."""
    real, savepoints = Real(), Savepoints()
    connection = use(real, savepoints)
    connection.commit()
    connection.cursor().execute("INSERT")
    connection.cursor()
    connection.commit()
    connection.cursor()
    connection.rollback()
    assert real.sent == [
        "SAVEPOINT unit_of_work_1",
        "INSERT",
        "RELEASE SAVEPOINT unit_of_work_1",
        "SAVEPOINT unit_of_work_2",
        "ROLLBACK TO SAVEPOINT unit_of_work_2",
        "RELEASE SAVEPOINT unit_of_work_2",
    ]


@pytest.mark.parametrize("say", ["set_isolation_level", "set_autocommit"])
def test_in_autocommit_a_rollback_keeps_changes(say: str) -> None:
    """One driver has an isolation level for it, the other an attribute."""
    real = Real()
    connection = use(real, Savepoints())
    getattr(connection, say)("autocommit" if say == "set_isolation_level" else True)
    connection.set_isolation_level(None)
    connection.set_read_only(True)
    connection.set_deferrable(True)
    connection.cursor()
    connection.rollback()
    assert real.sent == ["SAVEPOINT unit_of_work_1", "RELEASE SAVEPOINT unit_of_work_1"]
    connection.set_isolation_level("read_committed")
    connection.set_autocommit(False)
    connection.cursor()
    connection.rollback()
    assert real.sent[-2:] == ["ROLLBACK TO SAVEPOINT unit_of_work_2", "RELEASE SAVEPOINT unit_of_work_2"]


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_the_end_rolls_back_and_returns_the_turn(end: str) -> None:
    """The connection itself stays open, because others share it."""
    real, given = Real(), Given()
    connection = use(real, Savepoints(), given)
    connection.cursor()
    getattr(connection, end)()
    assert real.sent[1].startswith("ROLLBACK TO")
    assert given.count == 1


def test_other_attributes_are_those_of_the_real_connection() -> None:
    """A handler may use the driver's own methods."""
    assert use(Real(), Savepoints()).server_version == "18"


def test_the_effect_of_a_statement_decides_whether_its_turn_is_kept() -> None:
    """INVARIANT: a turn that has only read can be interrupted; after an error only a rollback helps."""
    kept: list[bool] = []

    class Told(Turns):
        def end(self, what: object, *, keeps: bool) -> None:  # noqa: ARG002  # one cursor is like another
            kept.append(keeps)

    turns, fails = Told(timeout=1), False

    def execute(*_: object) -> None:
        if fails:
            raise LookupError

    driver = object()
    dialect: typing.Any = types.SimpleNamespace(
        do_execute=execute,
        do_executemany=execute,
        do_execute_no_params=execute,
        get_driver_connection=lambda _: driver,
    )
    watch(dialect, turns)
    cursor = object()
    for statement in ("SELECT 1", "UPDATE t SET n = 1", "SET LOCAL a = 'b'"):
        dialect.do_execute(cursor, statement, None)
    dialect.do_executemany(cursor, "INSERT INTO t VALUES (1)", None)
    fails = True
    with pytest.raises(LookupError):
        dialect.do_execute_no_params(cursor, "SELECT 1")
    assert kept == [False, True, True, True, True]
    assert dialect.get_driver_connection(object()) is driver
    assert typing.cast(typing.Any, turns)._keeps  # noqa: SLF001  # whatever is done with the driver's connection


def test_a_cursor_that_sqlalchemy_does_not_know_ends_without_keeping_the_turn() -> None:
    """It has only read."""
    turns = Turns(timeout=1)
    connection = TakingTurns(Real(), Turn(turns, object(), "GET /"), Savepoints())
    cursor = object()
    turns.begin(cursor)
    connection.ended(cursor)
    assert not typing.cast(typing.Any, turns)._in_progress  # noqa: SLF001  # nothing else tells without waiting
