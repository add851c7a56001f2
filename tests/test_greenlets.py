"""Whatever SQLAlchemy's own greenlets do, these do; and they are used again."""

import asyncio
import collections.abc
import contextlib
import contextvars
import gc
import inspect
import subprocess
import sys
import threading
import traceback
import typing
import weakref

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn

from modern_di_replicas import greenlets
from modern_di_replicas.greenlets import run_in_greenlet
from tests.collector import watched_collector


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


async def test_greenlets_are_used_again() -> None:
    """INVARIANT: one call after another takes place in one greenlet; two at once do not."""
    first = await run_in_greenlet(getcurrent)
    assert await run_in_greenlet(getcurrent) is first

    def meet(everybody: asyncio.Barrier) -> object:
        await_only(everybody.wait())
        return getcurrent()

    everybody = asyncio.Barrier(3)
    assert len(set(await asyncio.gather(*(run_in_greenlet(meet, everybody) for _ in range(3))))) == 3


def test_a_greenlet_that_began_deep_in_a_recursion_spoils_no_later_call() -> None:
    """It begins as deep as its caller is; once a call has failed in it, it is not used again."""
    assert run_program("""
async def deep(levels):
    await (deep(levels - 1) if levels else run_in_greenlet(print, "deep"))

def needs(frames):
    return needs(frames - 1) if frames else "enough"

asyncio.run(deep(500))
try:
    asyncio.run(run_in_greenlet(needs, 700))
except RecursionError:
    print("too deep")
print(asyncio.run(run_in_greenlet(needs, 700)))
""") == ["deep", "too deep", "enough"]


def run_program(program: str) -> list[str]:
    """Run a program to its end, without the tracing of the coverage, and return what it printed."""
    whole = f"import asyncio\nfrom modern_di_replicas.greenlets import run_in_greenlet\n{program}"
    ended = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True)  # noqa: S603  # our own
    assert ended.stderr == ""
    return ended.stdout.splitlines()


async def in_a_new_thread(function: collections.abc.Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    await asyncio.to_thread(thread.join)


async def test_each_thread_has_its_own() -> None:
    """None can be entered from another; and the next event loop of a thread uses those of the last."""
    here = await run_in_greenlet(getcurrent)
    there: list[weakref.ref[object]] = []

    async def twice() -> weakref.ref[object]:
        first = await run_in_greenlet(getcurrent)
        assert first is not here
        assert await run_in_greenlet(getcurrent) is first
        return weakref.ref(first)

    def elsewhere() -> None:
        there.extend(asyncio.run(twice()) for _ in range(3))
        assert there[0]() is not None
        assert len(set(there)) == 1

    await in_a_new_thread(elsewhere)
    assert [worker() for worker in there] == [None] * 3
    assert await run_in_greenlet(getcurrent) is here


async def meet(everybody: asyncio.Barrier) -> greenlet:
    def wait() -> greenlet:
        await_only(everybody.wait())
        return getcurrent()

    return await run_in_greenlet(wait)


async def test_idle_greenlets_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of clients does not hold memory for ever."""
    monkeypatch.setattr(greenlets, "KEPT", 2)
    dead: list[bool] = []

    async def burst() -> None:
        everybody = asyncio.Barrier(5)
        used = await asyncio.gather(*(meet(everybody) for _ in range(5)))
        dead.extend(worker.dead for worker in used)

    await in_a_new_thread(lambda: asyncio.run(burst()))
    assert sorted(dead) == [False, False, True, True, True]


async def test_no_idle_greenlet_is_left_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT: it would be switched to while memory is collected, and Python crashes of that sooner or later.

    An error holds the frames it went through, until it is collected.
    """

    def broken(everybody: asyncio.Barrier) -> None:
        await_only(everybody.wait())
        error = LookupError()
        error.cycle = error  # type: ignore[attr-defined]  # so that it is not freed before
        raise error

    everybody = asyncio.Barrier(3)
    await asyncio.gather(*(run_in_greenlet(broken, everybody) for _ in range(3)), return_exceptions=True)
    monkeypatch.setattr(greenlets, "KEPT", 0)
    await meet(asyncio.Barrier(1))
    with watched_collector() as switches:
        gc.collect()
    assert switches == []


async def test_an_idle_greenlet_is_entered_when_nothing_refers_to_it() -> None:
    """FACT that the test above rests on, and that its watching works: the greenlet of an abandoned call unwinds."""
    call = run_in_greenlet(lambda: await_only(asyncio.sleep(60)))
    call.send(None)
    held: list[object] = [call]
    held.append(held)
    del call, held
    with watched_collector() as switches:
        gc.collect()
    assert len(switches) >= 2  # there and back


def test_the_end_of_the_program_ends_them() -> None:
    """INVARIANT: without an error and without a crash, whatever was under way."""
    assert (
        run_program("""
async def meet():
    await asyncio.gather(*(run_in_greenlet(print, "met") for _ in range(3)))

asyncio.run(meet())
""")
        == ["met"] * 3
    )


class Thing(Exception):  # noqa: N818  # it is an argument, a result and an error
    """What would be a session, or an object of the application."""


def give_back(thing: Thing) -> Thing:
    return thing


def give_up(thing: Thing) -> None:
    raise thing


@pytest.mark.parametrize("function", [give_back, give_up])
@pytest.mark.parametrize("calls", [1, 2])
async def test_an_idle_greenlet_holds_nothing_of_its_calls(
    function: collections.abc.Callable[[Thing], object], calls: int
) -> None:
    """Neither of its first one nor of its last; it would live until the next call, or for ever."""

    async def call() -> weakref.ref[Thing]:
        thing = Thing()
        with contextlib.suppress(Thing):
            await run_in_greenlet(function, thing)
        return weakref.ref(thing)

    things = [await call() for _ in range(calls)]
    gc.collect()  # an error and the frames it went through hold each other
    assert [thing() for thing in things] == [None] * calls


@both
async def test_an_error_keeps_its_cause(spawn: Spawn) -> None:
    """Also where it is met by somebody who handles another one already."""

    def broken() -> None:
        try:
            int("the cause")
        except ValueError:
            raise LookupError  # noqa: B904  # the cause is to be found without it

    async def while_another_is_handled() -> None:
        try:
            int("another")
        except ValueError:
            await spawn(broken)

    with pytest.raises(LookupError) as caught:
        await while_another_is_handled()
    assert "the cause" in str(caught.value.__context__)


async def test_the_way_of_an_error_does_not_lead_through_another_call() -> None:
    """INVARIANT: a report of an error shows the locals of its frames: nobody else's request may be there."""
    with pytest.raises(Thing) as caught:
        await run_in_greenlet(give_up, Thing())
    await run_in_greenlet(give_back, Thing())

    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert frames[-1] == "give_up"
    assert "_work" not in frames


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
