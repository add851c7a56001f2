"""Greenlets that are used again, instead of one for each call of a session as SQLAlchemy has it.

Python maps memory for the frames of each new greenlet, and unmaps it at its end. That takes several times as long as
everything else that is done to run a call of a session in one.
"""

import collections.abc
import sys
import threading
import typing

from greenlet import GreenletExit, getcurrent, greenlet


KEPT: typing.Final = 128
"""The most idle greenlets a thread keeps; each holds 16 KiB."""

Result = typing.TypeVar("Result")


async def run_in_greenlet(
    function: collections.abc.Callable[..., Result], /, *args: typing.Any, **options: typing.Any
) -> Result:
    """Return what a synchronous function returns that awaits by means of SQLAlchemy's `await_only`.

    The same as SQLAlchemy's `greenlet_spawn`.
    """
    idle = _idle.workers
    worker = idle.pop() if idle else _Worker(_work)
    driver = getcurrent()
    worker.parent = driver
    worker.gr_context = driver.gr_context
    sent = worker.switch(function, args, options)
    while type(sent) is not _Outcome:
        try:  # pragma: no cover  # the line after a switch is run, and coverage takes it for one of the other greenlet
            value = await sent
        except BaseException:  # noqa: BLE001  # it is the function's, and comes back if it lets it pass
            sent = worker.throw(*sys.exc_info())
        else:
            sent = worker.switch(value)
    worker.gr_context = None
    if len(idle) < KEPT:
        idle.append(worker)
    result, failure = sent.result, sent.failure
    sent.result = sent.failure = None
    if failure is None:
        return typing.cast(Result, result)
    try:
        raise failure
    finally:
        del failure  # or the error would hold this frame, which holds the error


class _Outcome:
    """What became of a function; each greenlet has one, which its caller empties."""

    __slots__ = ("failure", "result")

    def __init__(self) -> None:
        self.result: object = None
        self.failure: BaseException | None = None


class _Worker(greenlet):
    __sqlalchemy_greenlet_provider__ = True  # SQLAlchemy's mark of a greenlet in which `await_only` may be used


def _work(
    function: collections.abc.Callable[..., object], args: tuple[typing.Any, ...], options: dict[str, typing.Any]
) -> None:
    """Run one function after another; while it is idle, nothing of them is left."""
    outcome = _Outcome()
    while True:
        try:
            outcome.result = function(*args, **options)
        except GreenletExit:  # nobody awaits it any more
            raise
        except BaseException as error:  # noqa: BLE001  # raised where the function was called from
            outcome.failure = error
        del function, args, options
        # Not by a name for itself, or it could never be collected.
        function, args, options = getcurrent().parent.switch(outcome)  # type: ignore[union-attr]  # whoever called it


class _Idle(threading.local):
    """The idle greenlets of a thread: none can be used in another."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []


_idle: typing.Final = _Idle()
