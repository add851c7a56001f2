import asyncio

import pytest

from modern_di_replicas.errors import SharedConnectionBusyError
from modern_di_replicas.testing.turns import Savepoints, ThreadTurns, Turns


async def test_a_turn_ends_with_the_last_connection_of_its_unit_of_work() -> None:
    """Until then another unit of work waits."""
    turns, first, second = Turns(timeout=30), object(), object()
    await turns.take(first, "GET /a")
    await turns.take(first, "GET /a")
    turns.keep()
    waiting = asyncio.create_task(turns.take(second, "GET /b"))
    await asyncio.sleep(0)
    turns.give_back(first)
    await asyncio.sleep(0)
    assert not waiting.done()

    turns.give_back(first)

    await waiting


async def test_a_turn_that_does_not_end_is_an_error_that_names_both() -> None:
    """Otherwise two units of work that wait for each other would block the test."""
    turns = Turns(timeout=0.01)
    await turns.take(object(), "GET /a")
    turns.keep()

    with pytest.raises(SharedConnectionBusyError) as caught:
        await turns.take(object(), "GET /b")

    assert (caught.value.waiting, caught.value.holding) == ("GET /b", "GET /a")


async def test_a_unit_of_work_that_has_only_read_continues_in_a_later_turn() -> None:
    """A connection it returns meanwhile does not end the turn of another unit of work."""
    turns, first, second, third = Turns(timeout=30), object(), object(), object()
    await turns.take(first, "GET /a")
    await turns.take(second, "GET /b")
    turns.keep()
    turns.give_back(first)
    waiting = asyncio.create_task(turns.take(third, "GET /c"))
    await asyncio.sleep(0)
    assert not waiting.done()

    turns.settle()

    await waiting


async def test_a_statement_in_progress_keeps_the_turn() -> None:
    """Until it has ended, whatever it does."""
    turns, statement = Turns(timeout=30), object()
    await turns.take(object(), "GET /a")
    turns.begin(statement)
    waiting = asyncio.create_task(turns.take(object(), "GET /b"))
    await asyncio.sleep(0)
    assert not waiting.done()

    turns.end(statement, keeps=False)

    await waiting


def test_a_turn_of_threads_ends_with_the_last_connection_of_its_unit_of_work() -> None:
    """Another thread waits until then, or until its timeout."""
    turns, first = ThreadTurns(timeout=0.01), object()
    turns.take(first, "GET /a")
    turns.take(first, "GET /a")
    turns.give_back()
    with pytest.raises(SharedConnectionBusyError):
        turns.take(object(), "GET /b")

    turns.give_back()

    turns.take(object(), "GET /b")


def test_savepoints_of_a_turn_that_gave_way_end_once() -> None:
    """INVARIANT: two sessions of the next turn do not end each other's savepoints."""
    savepoints = Savepoints()
    assert savepoints.abandon(1) == []
    (first, _), _ = savepoints.begin(), savepoints.begin()

    assert savepoints.abandon(1) == []
    assert savepoints.abandon(2) == [f"RELEASE SAVEPOINT {first}"]
    assert not savepoints.are_open


def test_a_savepoint_below_others_is_released_with_them() -> None:
    """INVARIANT: PostgreSQL releases a stack; sessions end in any order."""
    savepoints = Savepoints()
    (below, _), (above, _) = savepoints.begin(), savepoints.begin()

    assert savepoints.release(below) == []
    assert savepoints.release(above) == [f"RELEASE SAVEPOINT {above}", f"RELEASE SAVEPOINT {below}"]


def test_a_rollback_undoes_the_savepoints_that_were_made_after_it() -> None:
    """As in PostgreSQL: their own end has no effect afterwards."""
    savepoints = Savepoints()
    (below, _), (above, _) = savepoints.begin(), savepoints.begin()

    assert savepoints.roll_back(below) == [f"ROLLBACK TO SAVEPOINT {below}", f"RELEASE SAVEPOINT {below}"]
    assert savepoints.roll_back(above) == []
