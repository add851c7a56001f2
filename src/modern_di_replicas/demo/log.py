"""Show the library's log on the screen, beside the requests that caused a warning."""

import collections.abc
import contextlib
import logging
import typing


LOGGER: typing.Final = logging.getLogger("modern_di_replicas")


class _Handler(logging.Handler):
    def __init__(self, show: collections.abc.Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(f"{record.levelname}: {record.getMessage()}")


@contextlib.contextmanager
def shown_log(show: collections.abc.Callable[[str], None]) -> collections.abc.Iterator[None]:
    """Show the warnings of the library while the block runs."""
    handler = _Handler(show)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
