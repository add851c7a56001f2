"""The protocol of hooks."""

import typing


class Event:
    """Something that happened; each kind is a frozen dataclass, see `events`.

    A hook handles the classes that it knows, with `match` or `isinstance`, and ignores the rest: later versions may add
    some.
    """

    __slots__ = ()


class Hook(typing.Protocol):
    """Receives every event: `ReplicationSettings(hooks=[...])`.

    It is called where the event happens, on the event loop or in the thread of a synchronous application, so it must
    not block. An exception it raises is logged once and changes nothing else.
    """

    def on_event(self, event: Event, /) -> None:
        """Handle an event."""
