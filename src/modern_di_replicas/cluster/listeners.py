"""Listeners that are put on the engine of all replicas, and registered with the engine of each.

SQLAlchemy has no public way to learn that a listener is added. `dispatch._listen` and `with_dispatch_target` are what
its own events of classes and of recreated pools are made of: one key, in several collections, so that `event.remove`
finds all of them. `OptionEngine` joins two collections instead (`dispatch._join`), which runs listeners of the class
`Engine` twice where both sides are ordinary engines, and costs time at each event.
"""

import collections.abc
import typing

from sqlalchemy import Engine


Receivers = collections.abc.Callable[[], collections.abc.Iterable[Engine]]

_RECEIVERS: typing.Final = "modern_di_replicas_receivers"


def on_listen(target: typing.Any, call: collections.abc.Callable[[typing.Any, dict[str, typing.Any]], None]) -> None:  # noqa: ANN401  # an engine, a dialect or a pool
    """Call a function with each listener that is put on a target from now on: its key, and its options."""
    dispatch = target.dispatch
    add = dispatch._listen  # noqa: SLF001  # see above

    def listen(key: typing.Any, **options: typing.Any) -> None:  # noqa: ANN401  # SQLAlchemy's private type
        add(key, **options)
        call(key, options)

    dispatch._listen = listen  # noqa: SLF001


def forward_listeners(engine: Engine, receivers: Receivers) -> None:
    """Register the listeners that are put on an engine from now on with other engines as well.

    Args:
        engine: the one that is listened to: its events, those of its dialect, and those of its pool.
        receivers: the others.

    """
    forward_listeners_of_options(engine, receivers)
    setattr(engine.dialect, _RECEIVERS, lambda: [receiver.dialect for receiver in receivers()])
    setattr(engine.pool, _RECEIVERS, lambda: [receiver.pool for receiver in receivers()])
    for target in (engine, engine.dialect, engine.pool):
        on_listen(target, _forward)


def forward_listeners_of_options(engine: Engine, receivers: Receivers) -> None:
    """Do the same for what `execution_options()` of an engine returned, which has the dialect and the pool of that one.

    Its listeners pass through the collections of that engine, so nothing else has to be called.
    """
    setattr(engine, _RECEIVERS, receivers)


def _forward(key: typing.Any, options: dict[str, typing.Any]) -> None:  # noqa: ANN401
    for receiver in getattr(key.dispatch_target, _RECEIVERS, tuple)():
        receiver.dispatch._listen(key.with_dispatch_target(receiver), **options)  # noqa: SLF001
