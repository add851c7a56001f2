"""Forward listeners of the engine of all replicas to the engine of each replica.

SQLAlchemy has no public event for an added listener. `dispatch._listen` and `with_dispatch_target` implement its own
events of classes and of recreated pools: one key, in several collections, so that `event.remove` finds all of them.
`OptionEngine` joins two collections instead (`dispatch._join`), which runs listeners of the class `Engine` twice where
both sides are ordinary engines, and costs time at each event.
"""

import collections.abc
import typing

from sqlalchemy import Engine


Receivers = collections.abc.Callable[[], collections.abc.Iterable[Engine]]

_RECEIVERS: typing.Final = "modern_di_replicas_receivers"


def on_listen(target: typing.Any, call: collections.abc.Callable[[typing.Any, dict[str, typing.Any]], None]) -> None:  # noqa: ANN401  # an engine, a dialect or a pool
    """Call a function for each listener that is added to a target from now on, with its key and its options."""
    dispatch = target.dispatch
    add = dispatch._listen  # noqa: SLF001  # see above

    def listen(key: typing.Any, **options: typing.Any) -> None:  # noqa: ANN401  # SQLAlchemy's private type
        add(key, **options)
        call(key, options)

    dispatch._listen = listen  # noqa: SLF001


def forward_listeners(engine: Engine, receivers: Receivers) -> None:
    """Register each listener that is added to an engine from now on with other engines as well.

    Args:
        engine: the engine; the events of its dialect and its pool are included.
        receivers: returns the other engines.

    """
    forward_listeners_of_options(engine, receivers)
    setattr(engine.dialect, _RECEIVERS, lambda: [receiver.dialect for receiver in receivers()])
    setattr(engine.pool, _RECEIVERS, lambda: [receiver.pool for receiver in receivers()])
    for target in (engine, engine.dialect, engine.pool):
        on_listen(target, _forward)


def forward_listeners_of_options(engine: Engine, receivers: Receivers) -> None:
    """Do the same for an engine that `execution_options()` returned, which shares the dialect and the pool.

    Its listeners are added to the collections of the original engine, so nothing else has to be called.
    """
    setattr(engine, _RECEIVERS, receivers)


def _forward(key: typing.Any, options: dict[str, typing.Any]) -> None:  # noqa: ANN401
    for receiver in getattr(key.dispatch_target, _RECEIVERS, tuple)():
        receiver.dispatch._listen(key.with_dispatch_target(receiver), **options)  # noqa: SLF001
