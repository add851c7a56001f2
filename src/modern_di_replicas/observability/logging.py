"""Events in the log, with their fields as `extra`."""

import dataclasses
import enum
import logging
import typing

from modern_di_replicas.observability.events import (
    Ejected,
    Escalated,
    PrimaryChanged,
    ReadRefused,
    ReRun,
    Returned,
    ShadowWrote,
    SnapshotPublished,
)
from modern_di_replicas.observability.hook import Event


_LEVELS: typing.Final[dict[type[Event], int]] = {
    Ejected: logging.WARNING,
    PrimaryChanged: logging.WARNING,
    Escalated: logging.INFO,
    ReadRefused: logging.INFO,
    ReRun: logging.INFO,
    Returned: logging.INFO,
    ShadowWrote: logging.INFO,
}


class LoggingHook:
    """Logs every event except the snapshots.

    Changes of the servers are warnings, moves from a replica are infos, and the events of each unit of work are debug
    messages. A record carries the fields of its event in `record.replicas`, for structured logs.

    Args:
        logger: the logger; default: `modern_di_replicas.events`.

    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("modern_di_replicas.events")

    def on_event(self, event: Event, /) -> None:
        """Log an event."""
        level = _LEVELS.get(type(event), logging.DEBUG)
        if isinstance(event, SnapshotPublished) or not self._logger.isEnabledFor(level):
            return
        fields = dict(_fields(event))
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        self._logger.log(level, "%s %s", type(event).__name__, words, extra={"replicas": fields})


def _fields(event: typing.Any) -> typing.Iterator[tuple[str, object]]:  # noqa: ANN401  # any dataclass
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value)
        else:
            yield field.name, value.value if isinstance(value, enum.Enum) else value
