"""The options of `create_async_engine` that the settings may contain, and those that the library owns."""

import collections.abc
import inspect
import typing

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from modern_di_replicas.checks import check


OWNED_OPTIONS: typing.Final = {
    **dict.fromkeys(("pool_size", "max_overflow", "pool_timeout"), "set primary_{0} and replica_{0}"),
    **dict.fromkeys(("pool", "poolclass", "creator", "async_creator"), "remove it: the library creates the pools"),
    **dict.fromkeys(("pool_pre_ping", "pool_reset_on_return"), "remove it: the library does that itself"),
    **dict.fromkeys(("logging_name", "pool_logging_name"), "give the server a name: Replica(url, name=...)"),
    "isolation_level": "set read_isolation for the replicas; on the primary, set it for a session or a connection",
    "connect_args": "pass connect_args to the settings, or to a Primary or Replica",
    "execution_options": "set them for a session, or with PrimaryEngine.execution_options()",
    "module": "name the driver in the URLs",
    "dialect": "name the driver in the URLs",
    "dbapi": "name the driver in the URLs",
    "url": "pass primary and replicas",
}
"""Options of `create_async_engine` that the library sets itself, and what to do instead."""

POOL_OPTIONS: typing.Final = frozenset({"echo_pool", "pool_recycle", "pool_use_lifo", "pool_events"})
"""Options that an engine accepts only if it makes its own pool."""
_OPTIONS: typing.Final = POOL_OPTIONS | {"plugins", "enable_from_linting"}
"""Options that are parameters neither of the dialect's nor of the engine's class. SQLAlchemy, `create_engine`."""


def check_engine_options(field: str, value: object, url: URL) -> None:
    """Check options of `create_async_engine`."""
    check(
        field,
        f"<{type(value).__name__}, not shown>",
        usable=isinstance(value, collections.abc.Mapping),
        remedy="use a mapping of the options of create_async_engine()",
    )
    options = typing.cast(collections.abc.Mapping[str, typing.Any], value)
    known = _OPTIONS | _parameters(url.get_dialect(_is_async=True)) | _parameters(Engine)
    for name in options:
        owned = OWNED_OPTIONS.get(name)
        if owned is None and (name in known or "plugins" in options):  # a plugin may have its own options
            continue
        remedy = f"remove {name!r}: create_async_engine() has no such option" if owned is None else owned
        check(f"{field}[{name!r}]", "<not shown>", usable=False, remedy=remedy.format(name))


def _parameters(cls: type) -> set[str]:
    """Return the parameters of `__init__` of a class and its bases."""
    own = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    return {name for one in own for name in inspect.signature(one).parameters}
