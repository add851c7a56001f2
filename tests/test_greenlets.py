"""Whatever SQLAlchemy's own greenlets do, these do; and they are used again."""

import asyncio
import collections.abc
import contextvars
import gc
import inspect
import threading
import traceback
import typing
import weakref

import pytest
from greenlet import GreenletExit, getcurrent
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn

from modern_di_replicas import greenlets
from modern_di_replicas.greenlets import run_in_greenlet


Spawn = collections.abc.Callable[..., collections.abc.Coroutine[typing.Any, typing.Any, typing.Any]]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")
both = pytest.mark.parametrize("spawn", [greenlet_spawn, run_in_greenlet])


async def echo(value: typing.Any) -> typing.Any:
    await asyncio.sleep(0)
    return value


async def fail(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


@both
async def test_it_returns_what_the_function_returns(spawn: Spawn) -> None:
    """With and without waiting for something; arguments go through, also one named like a parameter of ours."""

    def add(*numbers: int, function: int = 0) -> int:
        return sum(numbers) + function

    def add_later(first: int, *, second: int) -> int:
        return sum(await_only(echo(number)) for number in (first, second))

    assert await spawn(add, 1, 2) == 3
    assert await spawn(add_later, 1, second=2) == 3
    assert await run_in_greenlet(add, 1, function=5) == 6


@both
async def test_an_error_is_raised_where_the_function_was_called_with_the_way_it_took(spawn: Spawn) -> None:
    """And what the function awaits raises in the function, which may handle it."""

    def broken() -> None:
        msg = "broken"
        raise LookupError(msg)

    def careful() -> str:
        try:
            await_only(fail(KeyError("late")))
        except KeyError as error:
            return f"handled {error}"
        return "no error"

    with pytest.raises(LookupError) as caught:
        await spawn(broken)
    assert "broken" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert caught.value.__context__ is None
    assert await spawn(careful) == "handled 'late'"


@both
async def test_a_cancellation_reaches_the_function_which_may_still_await(spawn: Spawn) -> None:
    """A connection is given back in a `finally`."""
    steps: list[object] = []

    def work() -> None:
        try:
            await_only(asyncio.sleep(60))
        finally:
            steps.append(await_only(echo("given back")))

    task = asyncio.create_task(spawn(work))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["given back"]


@both
async def test_a_call_that_nobody_awaits_any_more_unwinds(spawn: Spawn) -> None:
    """As when an event loop ends with calls under way."""
    steps = []

    def work() -> None:
        try:
            await_only(asyncio.sleep(60))
        finally:
            steps.append("unwound")

    call = spawn(work)
    call.send(None)
    call.close()
    assert steps == ["unwound"]


@both
async def test_it_shares_the_context_of_its_caller(spawn: Spawn) -> None:
    """In both directions, and of each caller anew: what a client wrote is kept in a context variable."""

    def read_and_set(value: str) -> str:
        before = variable.get()
        await_only(echo(None))
        variable.set(value)
        return before

    async def caller(value: str) -> tuple[str, str]:
        variable.set(value)
        return await spawn(read_and_set, value + "!"), variable.get()

    assert await asyncio.gather(*(caller(name) for name in "abc")) == [("a", "a!"), ("b", "b!"), ("c", "c!")]
    assert await spawn(read_and_set, "here") == "default"
    assert variable.get() == "here"


async def test_outside_nothing_can_be_awaited() -> None:
    """An idle greenlet does not leave its mark behind."""
    await run_in_greenlet(getcurrent)
    nothing = asyncio.sleep(0)
    with pytest.raises(MissingGreenlet):
        await_only(nothing)


async def test_greenlets_are_used_again_also_after_an_error() -> None:
    """INVARIANT: one call after another takes place in one greenlet; two at once do not."""

    def broken() -> None:
        raise LookupError

    first = await run_in_greenlet(getcurrent)
    with pytest.raises(LookupError):
        await run_in_greenlet(broken)
    assert await run_in_greenlet(getcurrent) is first

    def meet(everybody: asyncio.Barrier) -> object:
        await_only(everybody.wait())
        return getcurrent()

    everybody = asyncio.Barrier(3)
    assert len(set(await asyncio.gather(*(run_in_greenlet(meet, everybody) for _ in range(3))))) == 3


async def test_each_thread_has_its_own() -> None:
    """A greenlet cannot be entered from another thread; with its thread it ends."""
    here = await run_in_greenlet(getcurrent)
    there: list[object] = []
    last: list[weakref.ref[object]] = []

    def elsewhere() -> None:
        there.append(asyncio.run(run_in_greenlet(getcurrent)))
        last.append(weakref.ref(asyncio.run(run_in_greenlet(getcurrent))))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert there != [here]
    assert there == [last[0]()]
    there.clear()
    gc.collect()
    assert last[0]() is None


async def test_idle_greenlets_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of clients does not hold memory for ever."""
    monkeypatch.setattr(greenlets, "KEPT", 2)
    monkeypatch.setattr(greenlets, "_idle", greenlets._Idle())  # noqa: SLF001  # those of other tests are in the way
    everybody = asyncio.Barrier(5)

    def meet() -> weakref.ref[object]:
        await_only(everybody.wait())
        return weakref.ref(getcurrent())

    used = await asyncio.gather(*(run_in_greenlet(meet) for _ in range(5)))
    gc.collect()
    assert sum(greenlet() is not None for greenlet in used) == 2


async def test_an_idle_greenlet_holds_nothing_of_its_last_call() -> None:
    """A session, an application's object or an error would live until the next call."""

    class Thing(Exception):  # noqa: N818  # it is an argument, a result and an error
        pass

    def give_back(thing: Thing) -> Thing:
        return thing

    def give_up(thing: Thing) -> None:
        raise thing

    async def calls() -> weakref.ref[Thing]:
        thing = Thing()
        assert await run_in_greenlet(give_back, thing) is thing
        with pytest.raises(Thing):
            await run_in_greenlet(give_up, thing)
        return weakref.ref(thing)

    found = await calls()
    gc.collect()  # the error and the frames it went through hold each other
    assert found() is None


async def test_a_greenlet_that_is_thrown_away_at_work_ends() -> None:
    """As the garbage collector does with what nobody can reach any more."""
    steps = []

    def work() -> None:
        try:
            await_only(asyncio.sleep(60))
        finally:
            steps.append(getcurrent())

    call = run_in_greenlet(work)
    call.send(None)
    worker = inspect.getcoroutinelocals(call)["worker"]
    worker.throw(GreenletExit)
    assert steps == [worker]
    assert worker.dead
    with pytest.raises(RuntimeError):
        call.throw(RuntimeError("the loop is gone"))
