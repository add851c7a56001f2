"""A hook that records its events."""

import typing

from modern_di_replicas.observability import Event


Kind = typing.TypeVar("Kind", bound=Event)


class Recorder:
    """Records every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event, /) -> None:
        self.events.append(event)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]
