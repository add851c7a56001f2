"""Pass events to the hooks."""

import asyncio
import collections.abc
import logging
import threading
import typing

from modern_di_replicas.observability.hook import Event, Hook


logger = logging.getLogger("modern_di_replicas")


class Hooks:
    """The hooks of one application. Without hooks, None replaces this object, and no event is created.

    Args:
        hooks: the hooks.

    """

    def __init__(self, hooks: collections.abc.Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)
        self._failed: set[int] = set()

    @classmethod
    def of(cls, hooks: collections.abc.Sequence[Hook]) -> typing.Self | None:
        """Return the hooks; None where there are none."""
        return cls(hooks) if hooks else None

    def emit(self, event: Event) -> None:
        """Pass an event to every hook; an error of a hook is logged once, and has no other effect.

        Raises:
            SystemExit: in the main thread.

        """
        for index, hook in enumerate(self._hooks):
            try:
                hook.on_event(event)
            # A hook awaits nothing, so no cancellation is meant for its task. `sys.exit()` would end the thread of a
            # synchronous application's monitor, and nothing else.
            except (Exception, asyncio.CancelledError, SystemExit) as error:
                if isinstance(error, SystemExit) and threading.current_thread() is threading.main_thread():
                    raise  # it ends the process; the handler of a signal may have raised it while the hook ran
                if index not in self._failed:
                    self._failed.add(index)
                    logger.exception(
                        "The hook %s failed at %s; further errors of it are not logged.",
                        type(hook).__qualname__,
                        type(event).__name__,
                    )
