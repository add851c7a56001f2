import asyncio

import pytest

from modern_di_replicas.errors import SharedConnectionBusyError
from modern_di_replicas.testing.turns import Savepoints, Turns


async def test_a_turn_ends_with_the_last_connection_of_its_unit_of_work() -> None:
    """Another one waits for it."""
    turns, first, second = Turns(timeout=30), object(), object()
    await turns.take(first, "GET /a")
    await turns.take(first, "GET /a")
    waiting = asyncio.create_task(turns.take(second, "GET /b"))
    await asyncio.sleep(0)
    turns.give_back()
    await asyncio.sleep(0)
    assert not waiting.done()

    turns.give_back()

    await waiting


async def test_a_turn_that_does_not_end_is_an_error_that_names_both() -> None:
    """Otherwise two units of work that wait for each other would hang the test."""
    turns = Turns(timeout=0.01)
    await turns.take(object(), "GET /a")

    with pytest.raises(SharedConnectionBusyError) as caught:
        await turns.take(object(), "GET /b")

    assert (caught.value.waiting, caught.value.holding) == ("GET /b", "GET /a")


def test_a_savepoint_below_others_is_released_with_them() -> None:
    """INVARIANT: PostgreSQL releases a stack; sessions end in any order."""
    savepoints = Savepoints()
    (below, _), (above, _) = savepoints.begin(), savepoints.begin()

    assert savepoints.release(below) == []
    assert savepoints.release(above) == [f"RELEASE SAVEPOINT {above}", f"RELEASE SAVEPOINT {below}"]


def test_a_rollback_undoes_the_savepoints_that_were_made_after_it() -> None:
    """As PostgreSQL does: their own end has nothing to do any more."""
    savepoints = Savepoints()
    (below, _), (above, _) = savepoints.begin(), savepoints.begin()

    assert savepoints.roll_back(below) == [f"ROLLBACK TO SAVEPOINT {below}", f"RELEASE SAVEPOINT {below}"]
    assert savepoints.roll_back(above) == []
