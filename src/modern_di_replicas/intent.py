"""The intent of a unit of work, and the markers that declare it for a handler."""

import collections.abc
import contextlib
import contextvars
import dataclasses
import datetime as dt
import enum
import functools
import typing

from modern_di_replicas.consistency.levels import Consistency, check_consistency
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.settings import ISOLATION_REMEDY, ReadIsolation


INTENT_OPT: typing.Final = "intent"
"""The key of Litestar's `opt` that declares an intent for a handler, a controller or a router."""

READ_METHODS: typing.Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The HTTP methods that read unless a marker says otherwise; they are "safe" in RFC 9110, section 9.2.1."""

_MARKER: typing.Final = "__modern_di_replicas_intent__"

_TOKEN: typing.Final = ConsistencyToken | str
_REMEDIES: typing.Final = {
    "group": "pass the name of a group of replicas, or None",
    "affinity": "pass a string, such as str(user.id), or None",
    "after": "pass a ConsistencyToken or its text, such as current_token() returns, or None",
}

Handler = typing.TypeVar("Handler")


class Access(enum.Enum):
    READ = "read"
    WRITE = "write"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Intent:
    """What a unit of work declares to do: build one with `Intent.read()` or `Intent.write()`."""

    access: Access
    group: str | None = None
    """The group of replicas a read is served from; None for the replicas that declare no other."""
    affinity: str | None = None
    """Reads with the same key, such as a user's id, go to the same replica while it serves."""
    consistency: Consistency | None = None
    """How fresh a read has to be; None for the level of the settings, which is SESSION by default."""
    after: ConsistencyToken | None = None
    """A token that a read has to include; with SESSION, in addition to the writes of the current request's client."""
    isolation: ReadIsolation | None = None
    """The isolation of a read, instead of `ReplicationSettings.read_isolation`; on the primary as well."""
    wait: dt.timedelta | None = None
    """How long a read may wait for a replica that is fresh enough, or that serves at all, before it uses the primary.

    None for `ReplicationSettings.catch_up_wait`, and for no wait where no replica serves.
    """
    reason: str = dataclasses.field(default="declared", compare=False)
    """The origin of the intent, in words for logs and people; two intents that differ only here are equal."""

    endpoint: str = dataclasses.field(default="", compare=False)
    """The handler, as `module.name`; empty outside a request, and in an intent that the application makes."""

    @classmethod
    def read(  # noqa: PLR0913  # each may be left out, and is given by name
        cls,
        *,
        group: str | None = None,
        affinity: str | None = None,
        consistency: Consistency | None = None,
        after: ConsistencyToken | str | None = None,
        isolation: ReadIsolation | None = None,
        wait: dt.timedelta | None = None,
        reason: str = "declared",
    ) -> typing.Self:
        """Return the intent to read from a replica.

        Args:
            group: the group of replicas to read from.
            affinity: reads with the same key go to the same replica, while it serves.
            consistency: how fresh the read has to be: EVENTUAL, SESSION, Bounded(lag=...) or STRONG; default: the level
                of the settings.
            after: a token, or its text: the read includes everything that was written before the token was made.
            isolation: "READ COMMITTED" or "REPEATABLE READ" to read in one transaction, for a `SET LOCAL` or for one
                snapshot; "AUTOCOMMIT" for independent statements. Default: the isolation of the settings.
            wait: how long the read may wait for a replica that is fresh enough, also while none serves, before the
                primary serves it; default: `catch_up_wait`, and no wait where none serves.
            reason: the origin of the intent, in words for people.

        Raises:
            ConfigurationError: an argument cannot be used, such as a `group` that is not a text, an `after` that is not
                a token, or the isolation SERIALIZABLE, which a standby refuses.

        """
        for field, value, kind in (("group", group, str), ("affinity", affinity, str), ("after", after, _TOKEN)):
            if not isinstance(value, kind | None):
                raise ConfigurationError(field=field, value=value, remedy=_REMEDIES[field])
        if consistency is not None:
            check_consistency("consistency", consistency)
        if isolation not in (None, *typing.get_args(ReadIsolation)):
            raise ConfigurationError(field="isolation", value=isolation, remedy=ISOLATION_REMEDY)
        if wait is not None and not (isinstance(wait, dt.timedelta) and wait >= dt.timedelta(0)):
            raise ConfigurationError(field="wait", value=wait, remedy="pass a timedelta that is not negative, or None")
        return cls(
            access=Access.READ,
            group=group,
            affinity=affinity,
            consistency=consistency,
            after=ConsistencyToken.parse(after) if isinstance(after, str) else after,
            isolation=isolation,
            wait=wait,
            reason=reason,
        )

    @classmethod
    def write(cls, *, reason: str = "declared") -> typing.Self:
        """Return the intent to write, which is done on the primary."""
        return cls(access=Access.WRITE, reason=reason)

    @property
    def is_write(self) -> bool:
        return self.access is Access.WRITE


NOTHING_DECLARED: typing.Final = Intent.write(reason="nothing declared")


@typing.overload
def read_intent(handler: Handler, /) -> Handler: ...
@typing.overload
def read_intent(
    *,
    group: str | None = None,
    consistency: Consistency | None = None,
    isolation: ReadIsolation | None = None,
    wait: dt.timedelta | None = None,
) -> collections.abc.Callable[[Handler], Handler]: ...
def read_intent(
    handler: object = None,
    /,
    *,
    group: str | None = None,
    consistency: Consistency | None = None,
    isolation: ReadIsolation | None = None,
    wait: dt.timedelta | None = None,
) -> object:
    """Declare that a handler only reads, whatever its HTTP method.

    Works above and below the route decorator, with and without parentheses, on `async def` and `def`.

    Args:
        handler: the handler, when used without parentheses.
        group: the group of replicas to read from.
        consistency: how fresh the reads have to be; default: that of the settings.
        isolation: the isolation of the reads, as in `Intent.read`; default: that of the settings.
        wait: how long to wait for a replica that is fresh enough; default: that of the settings.

    Raises:
        ConfigurationError: the handler is already marked with another intent, or is not a function; or an argument
            cannot be used, see `Intent.read`.

    """
    intent = Intent.read(group=group, consistency=consistency, isolation=isolation, wait=wait, reason="@read_intent")
    return _marker(handler, intent)


@typing.overload
def write_intent(handler: Handler, /) -> Handler: ...
@typing.overload
def write_intent() -> collections.abc.Callable[[Handler], Handler]: ...
def write_intent(handler: object = None, /) -> object:
    """Declare that a handler writes, whatever its HTTP method.

    Works above and below the route decorator, with and without parentheses, on `async def` and `def`.

    Args:
        handler: the handler, when used without parentheses.

    Raises:
        ConfigurationError: the handler is already marked with another intent, or is not a function.

    """
    return _marker(handler, Intent.write(reason="@write_intent"))


def _marker(handler: object, intent: Intent) -> object:
    def mark(target: object) -> object:
        # Above a Litestar route decorator the target is its route handler object, which carries `opt`;
        # everywhere else it is the function itself.
        opt = getattr(target, "opt", None)
        # A marker on a staticmethod or classmethod object is invisible at the call; one on its function is not.
        function = getattr(target, "__func__", target)
        is_group = isinstance(target, type) or hasattr(target, "routes")  # a router is callable, but no endpoint
        if is_group or not (isinstance(opt, dict) or (callable(function) and hasattr(function, "__dict__"))):
            raise ConfigurationError(
                field="the handler of a marker",
                value=target,
                remedy="mark a function, below the decorators that replace it; pass a group or a level "
                "by its name, as in @read_intent(group='analytics'); a router or controller of Litestar takes "
                "opt={'intent': Intent.write()}, and a router of FastAPI mark_routes(router, write_intent)",
            )
        place = opt if isinstance(opt, dict) else vars(function)
        key = INTENT_OPT if place is opt else _MARKER
        marked = place.setdefault(key, intent)
        if marked != intent:
            raise ConfigurationError(
                field=f"the intent of {target!r}",
                value=intent.reason,
                remedy=f"it is already marked with {marked!r}; keep one marker, or write one function for each route",
            )
        return target

    return mark if handler is None else mark(handler)


def marked_intent(endpoint: object) -> Intent | None:
    """Return the intent an endpoint is marked with, looking through `functools.partial` and its like.

    A callable object is marked at its `__call__`.
    """
    while endpoint is not None:
        intent = getattr(endpoint, _MARKER, None) or getattr(type(endpoint).__call__, _MARKER, None)
        if isinstance(intent, Intent):
            return intent
        endpoint = getattr(endpoint, "func", None)
    return None


def resolve_intent(
    *, declared: Intent | None, endpoint: object = None, marked: Intent | None = None, method: str | None = None
) -> Intent:
    """Return the intent of a unit of work; the primary is always right, so without a reason to read it writes.

    Args:
        declared: the intent in the context of the unit of work, which takes precedence over everything.
        endpoint: the handler of the request.
        marked: the marker of the endpoint, which takes precedence over the method.
        method: the HTTP method; None for a websocket and outside any request.

    """
    intent = declared or marked
    if intent is None:
        return _of_method(method, _name(endpoint))
    return intent if endpoint is None else dataclasses.replace(intent, endpoint=_name(endpoint))


@functools.lru_cache(maxsize=1024)
def _of_method(method: str | None, endpoint: str) -> Intent:
    if method is None:
        return dataclasses.replace(NOTHING_DECLARED, endpoint=endpoint)
    intent = Intent.read(reason=method) if method in READ_METHODS else Intent.write(reason=method)
    return dataclasses.replace(intent, endpoint=endpoint)


def _name(endpoint: object) -> str:
    if endpoint is None:
        return ""
    return f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', type(endpoint).__qualname__)}"


class _Block:
    """A block of `use_primary()`; tasks that were started in it can see that it has ended."""

    def __init__(self, enclosing: "_Block | None") -> None:
        self._enclosing = enclosing
        self._has_ended = False

    @property
    def holds(self) -> bool:
        return not self._has_ended or (self._enclosing is not None and self._enclosing.holds)

    def end(self) -> None:
        self._has_ended = True


_block: contextvars.ContextVar[_Block | None] = contextvars.ContextVar("modern_di_replicas_use_primary", default=None)


class use_primary:  # noqa: N801  # used as a function, as in `with use_primary():`
    """Run the statements of a block on the primary, for code that cannot be given `{"use_primary": True}`.

    It applies to the current context: the task, and the tasks that it starts inside the block, until the block ends. A
    session that has run a statement in it stays on the primary to the end of its unit of work.
    """

    def __enter__(self) -> None:
        self._entered = _Block(_block.get())
        self._token = _block.set(self._entered)

    def __exit__(self, *_: object) -> None:
        self._entered.end()
        # A generator may end in another context than the one it began in; there the block has no effect any more.
        with contextlib.suppress(ValueError):
            _block.reset(self._token)


def is_primary_declared() -> bool:
    """Return whether the current context is inside of `use_primary()`."""
    block = _block.get()
    return block is not None and block.holds
