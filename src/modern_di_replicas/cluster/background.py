"""The event loop of synchronous applications: it runs in a separate thread, with the monitor and its probes.

One for each process, started when it is first needed. Waiting with a timeout, such as for a replica to catch up, is the
same coroutine in both halves: an asynchronous application awaits it, a synchronous one runs it here and blocks until it
returns.
"""

import asyncio
import atexit
import collections.abc
import contextlib
import functools
import inspect
import os
import sys
import threading
import typing

from modern_di_replicas.errors import ConfigurationError


Result = typing.TypeVar("Result")

END_TIMEOUT: typing.Final = 2.0
"""Timeout in seconds for joining the thread at exit."""


_REPLACES_THREADS: typing.Final = (
    ("gevent.monkey", "is_module_patched", "threading"),
    ("eventlet.patcher", "is_monkey_patched", "thread"),
)
"""A module, a function in it, and an argument for which it returns whether threads are monkey-patched."""


class Background:
    """A daemon thread with an event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # A child process has neither the thread nor its loop, and the lock may have been held by another thread.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop = self._thread = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop.

        Raises:
            ConfigurationError: gevent or eventlet has replaced the threads of this process.

        """
        if (loop := self._loop) is not None:
            return loop
        check_threads()
        with self._lock:
            if self._loop is None:
                loop, started = asyncio.new_event_loop(), threading.Event()
                self._thread = threading.Thread(
                    target=_serve, args=(loop, started), name="modern-di-replicas", daemon=True
                )
                self._thread.start()
                started.wait()
                self._loop = loop
            return self._loop

    def run(self, coroutine: collections.abc.Coroutine[typing.Any, typing.Any, Result]) -> Result:
        """Run a coroutine in the loop, in the context of the caller, and return its result.

        Raises:
            ConfigurationError: gevent or eventlet has replaced the threads of this process.
            RuntimeError: it is called in the loop's own thread, by a hook for instance: that would be a deadlock.

        """
        try:
            loop = self.loop
        except ConfigurationError:
            coroutine.close()
            raise
        if threading.current_thread() is self._thread:
            coroutine.close()
            msg = "this thread runs the monitor: do not use a session or an engine in it, for example in a hook"
            raise RuntimeError(msg)
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:  # interrupted while it waits
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread, if there is one; it is started again when it is needed."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(END_TIMEOUT)


def in_thread(
    function: collections.abc.Callable[[], typing.Any],
) -> collections.abc.Callable[[], collections.abc.Coroutine[typing.Any, typing.Any, typing.Any]]:
    """Wrap a function that may block in a coroutine function, which calls it in a separate thread.

    It is called once at a time: a call that hangs cannot be ended, and later callers wait for it too.
    """
    running: asyncio.Future[typing.Any] | None = None

    async def call() -> typing.Any:  # noqa: ANN401  # what the function returns
        nonlocal running
        if running is None or running.done():
            loop = asyncio.get_running_loop()
            running = loop.create_future()
            running.add_done_callback(asyncio.Future.exception)  # the caller may have given up
            threading.Thread(target=_call, args=(function, running, loop), name="password", daemon=True).start()
        given = await asyncio.shield(running)
        return await given if inspect.isawaitable(given) else given

    return call


def _call(
    function: collections.abc.Callable[[], typing.Any],
    result: asyncio.Future[typing.Any],
    loop: asyncio.AbstractEventLoop,
) -> None:
    try:
        given = function()
    except Exception as error:  # noqa: BLE001  # it is raised where the result is wanted
        settle = functools.partial(result.set_exception, error)
    else:
        settle = functools.partial(result.set_result, given)
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(settle)


def check_threads() -> None:
    """Check that threads are not monkey-patched: the event loop would block all greenlets of gevent or eventlet.

    Raises:
        ConfigurationError: they are.

    """
    for module, function, argument in _REPLACES_THREADS:
        if module in sys.modules and getattr(sys.modules[module], function)(argument):
            raise ConfigurationError(
                field=module.partition(".")[0],
                value="monkey-patched threads",
                remedy="serve with threads or processes, such as gunicorn --worker-class gthread --threads 8, or write "
                "an asynchronous application",
            )


def _serve(loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


background: typing.Final = Background()
"""The background thread of this process."""

atexit.register(background.stop)
