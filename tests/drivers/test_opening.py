"""Attempts to connect that are abandoned."""

import asyncio
import typing

import pytest

from modern_di_replicas.drivers.opening import Opening, TerminatedWhileOpeningError


async def test_an_attempt_can_be_given_up() -> None:
    """It ends with an error that is distinct from a timeout."""
    opening = Opening()

    async def never() -> typing.NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    attempts = [asyncio.ensure_future(opening.watched(never)()) for _ in range(2)]
    await asyncio.sleep(0)
    opening.give_up()
    for attempt in attempts:
        with pytest.raises(TerminatedWhileOpeningError):
            await attempt


async def test_a_time_limit_of_the_driver_stays_one() -> None:
    """The error is a timeout."""

    async def late() -> typing.NoReturn:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Opening().watched(late)()


async def test_an_attempt_that_has_ended_is_not_given_up() -> None:
    """Not even if both happen at the same moment in another thread."""
    opening = Opening()

    async def connect(result: int) -> int:
        opening.give_up()  # takes effect in the loop's next iteration
        return result

    assert await opening.watched(connect)(7) == 7
    await asyncio.sleep(0)
    opening.give_up()
