"""Greenlets that are used again, instead of one for each call of a session as SQLAlchemy has it.

Python maps memory for the frames of each new greenlet, and unmaps it at its end. That takes several times as long as
everything else that is done to run a call of a session in one.

An idle greenlet must never be left to the garbage collector: whoever drops the last reference to one switches to it,
and a switch in the middle of a collection moves the collector's own stack away under it, which crashes Python. So only
the list of idle greenlets holds one, and one that is not needed any more is told to return.
"""

import atexit
import collections.abc
import sys
import threading
import types
import typing

from greenlet import GreenletExit, getcurrent, greenlet


KEPT: typing.Final = 128
"""The most idle greenlets that are kept for a thread; each holds 16 KiB."""

Result = typing.TypeVar("Result")


async def run_in_greenlet(
    function: collections.abc.Callable[..., Result], /, *args: typing.Any, **options: typing.Any
) -> Result:
    """Return what a synchronous function returns that awaits by means of SQLAlchemy's `await_only`.

    It does what SQLAlchemy's `greenlet_spawn` does.
    """
    worker = _idle.workers.pop() if _idle.workers else _begin()
    driver = getcurrent()
    worker.parent = driver
    worker.gr_context = driver.gr_context
    sent = worker.switch(function, args, options)  # what to await, or the outcome
    while type(sent) is not _Outcome:
        try:  # pragma: no cover  # the line after a switch is run, and coverage takes it for one of the other greenlet
            value = await sent
        except BaseException:  # noqa: BLE001  # it is the function's, and comes back if it lets it pass
            sent = worker.throw(*sys.exc_info())
        else:
            sent = worker.switch(value)
    worker.gr_context = None
    result, failure = sent.result, sent.failure
    sent.result = sent.failure = None
    if failure is None:
        workers = _idle.workers
        workers.append(worker)
        if len(workers) > KEPT:
            _idle.end(kept=KEPT)
        return result  # type: ignore[return-value]  # the function's, and a cast costs time
    # Not used again: the frames of an error hold it, and one that was begun deep in a recursion stays so deep.
    _end(worker)
    context = failure.__context__
    try:
        raise failure
    finally:
        failure.__context__ = context  # what the caller handles at the moment is not what caused it
        del failure, context  # or they would hold this frame, which holds them


class _Outcome:
    """What became of a function; each greenlet has one, which its caller empties."""

    __slots__ = ("failure", "result")

    def __init__(self) -> None:
        self.result: object = None
        self.failure: BaseException | None = None


class _Worker(greenlet):
    __sqlalchemy_greenlet_provider__ = True  # SQLAlchemy's mark of a greenlet in which `await_only` may be used


def _begin() -> _Worker:
    # It begins with nothing to do: what it begins with, it holds to its end.
    worker = _Worker(_work)
    worker.switch()
    return worker


def _end(worker: _Worker) -> None:
    worker.parent = getcurrent()
    worker.switch(None, None, None)


def _work() -> None:
    """Run one function after another, until there is none; while it is idle, nothing of them is left."""
    outcome = _Outcome()
    while True:
        # Not by a name for this greenlet: its frame would hold it, and it could never be collected.
        function, args, options = getcurrent().parent.switch(outcome)  # type: ignore[union-attr]  # whoever called it
        if function is None:
            return
        try:
            outcome.result = function(*args, **options)
        except GreenletExit:  # nobody awaits it any more
            raise
        except BaseException as error:  # noqa: BLE001  # raised where the function was called from
            # Without this frame: whoever looks into it later would see another call.
            outcome.failure = error.with_traceback(typing.cast(types.TracebackType, error.__traceback__).tb_next)
        del function, args, options


class _Idle(threading.local):
    """The idle greenlets of a thread: none can be entered from another."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []

    def end(self, kept: int = 0) -> None:
        while len(self.workers) > kept:
            _end(self.workers.pop())


_idle: typing.Final = _Idle()
atexit.register(_idle.end)  # of the main thread: what is left of it goes in a collection
