"""Waiting in both halves: for coroutines, for signals of other threads, and with deadlines."""

import asyncio
import contextvars
import os
import threading

import pytest

from modern_di_replicas.cluster.background import Background
from modern_di_replicas.cluster.waiting import Deadline, Signal, complete
from tests.waiting import wait_for


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


def test_a_coroutine_runs_in_the_background_in_the_context_of_its_caller() -> None:
    """Its result or error is returned; the thread is started once, and again after its end."""
    background = Background()

    async def which() -> tuple[str, str]:
        await asyncio.sleep(0)
        return threading.current_thread().name, variable.get()

    async def fail() -> None:
        raise LookupError

    variable.set("of the caller")
    loops = []
    for _ in range(2):
        assert background.run(which()) == ("modern-di-replicas", "of the caller")
        with pytest.raises(LookupError):
            background.run(fail())
        loops.append(background.loop)
        background.stop()
    assert loops[0] is not loops[1]
    background.stop()  # there is none


def test_threads_that_need_the_loop_at_once_share_it() -> None:
    """Only one of them starts it."""
    background, loops = Background(), set()
    together = threading.Barrier(8)

    def need() -> None:
        together.wait()
        loops.add(background.loop)

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 1
    background.stop()


def test_tasks_that_run_at_the_end_are_cancelled() -> None:
    """The program does not wait for unfinished tasks."""
    background, cancelled = Background(), threading.Event()

    async def sleep() -> None:
        try:
            await asyncio.sleep(60)  # a long task
        finally:
            cancelled.set()

    async def start() -> object:
        return asyncio.ensure_future(sleep())

    task = background.run(start())
    background.run(asyncio.sleep(0))
    background.stop()
    assert cancelled.is_set()
    assert task is not None


def test_a_child_process_starts_its_own_loop() -> None:
    """INVARIANT: a forked process does not have the thread that runs its parent's loop."""
    background = Background()
    background.run(asyncio.sleep(0))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  # in the other process
        try:
            background.run(asyncio.sleep(0))
            os.write(write, b"ran")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"ran"
    os.close(read)
    background.stop()


def test_a_reset_loop_is_started_again() -> None:
    """A child process has the objects of its parent, but not its threads."""
    background = Background()
    of_parent = background.loop
    background._forget()  # noqa: SLF001  # what `os.fork` calls in the child
    assert background.loop is not of_parent
    background.stop()
    of_parent.call_soon_threadsafe(of_parent.stop)


def test_a_coroutine_of_a_synchronous_driver_never_suspends() -> None:
    """A coroutine that suspends is a bug in the library, and is reported instead of waiting forever."""

    async def suspend() -> None:
        await asyncio.sleep(0)

    async def answer() -> int:
        return 1

    assert complete(answer()) == 1
    with pytest.raises(AssertionError, match="suspended"):
        complete(suspend())


async def test_a_signal_wakes_tasks_from_any_thread() -> None:
    """Tasks that are waiting, and those that wait later."""
    signal = Signal()
    waiting = [asyncio.ensure_future(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(signal.set)
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
        await signal.wait()
    assert signal.is_set


def test_a_signal_ignores_closed_loops() -> None:
    """Tasks of that loop have ended."""
    signal = Signal()

    async def wait() -> None:
        asyncio.ensure_future(signal.wait())  # noqa: RUF006  # it is left behind on purpose
        await asyncio.sleep(0)

    asyncio.run(wait())
    signal.set()
    assert signal.is_set


def test_a_deadline_calls_its_function_only_if_a_block_takes_longer() -> None:
    """And never after the block has ended."""
    called: list[str] = []
    with Deadline(60.0, lambda: called.append("too long")) as deadline:
        pass
    assert not deadline.has_passed
    with Deadline(0.0, lambda: called.append("late")) as deadline:
        wait_for(lambda: bool(called))
    assert deadline.has_passed
    assert called == ["late"]
    with Deadline(0.01, lambda: called.append("after")):
        pass
    with Deadline(0.02, lambda: called.append("later")):
        wait_for(lambda: called[-1] == "later")  # the previous one has passed by then
    assert called == ["late", "later"]
