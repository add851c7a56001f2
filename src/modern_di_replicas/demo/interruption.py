"""Signals that end the demo: everything it started is ended first."""

import asyncio
import collections.abc
import contextlib
import signal
import typing


SIGNALS: typing.Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Cancels a task when the first signal arrives, or, while the task waits for one, ends the waiting.

    Later signals change nothing: the cleaning up is already under way, takes about a second, and must not be cut
    short, because the database servers would go on.
    """

    def __init__(self, task: asyncio.Task[typing.Any]) -> None:
        self.signal: signal.Signals | None = None
        """The signal that arrived."""
        self._task = task
        self._waiting: asyncio.Event | None = None

    async def wait(self) -> None:
        """Wait for a signal, which then interrupts nothing else."""
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
    """Listen to the signals while the block runs; the handlers of before are put back."""
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
