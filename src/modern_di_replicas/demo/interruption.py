"""Signals that end the demo, after everything that it started."""

import asyncio
import collections.abc
import contextlib
import signal
import typing


SIGNALS: typing.Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Cancels a task when the first signal arrives or, while the task waits for one, ends the wait.

    Later signals are ignored: the clean-up is running, takes about a second, and must not be interrupted, because the
    database servers would continue.
    """

    def __init__(self, task: asyncio.Task[typing.Any]) -> None:
        self.signal: signal.Signals | None = None
        """The signal that arrived."""
        self._task = task
        self._waiting: asyncio.Event | None = None

    async def wait(self) -> None:
        """Wait for a signal, which then does not cancel the task."""
        self._waiting = asyncio.Event()
        await self._waiting.wait()

    def arrive(self, number: signal.Signals) -> None:
        if self.signal is not None:
            return
        self.signal = number
        if self._waiting is None:
            self._task.cancel()
        else:
            self._waiting.set()


@contextlib.contextmanager
def interruption_of(task: asyncio.Task[typing.Any]) -> collections.abc.Iterator[Interruption]:
    """Handle the signals during the block; restore the previous handlers afterwards."""
    interruption = Interruption(task)
    loop = task.get_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, interruption.arrive, number)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
