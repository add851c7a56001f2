"""Settings from the environment: `ReplicationSettings.from_env`."""

import collections.abc
import datetime as dt
import difflib
import json
import re
import typing

from modern_di_replicas.consistency.levels import Bounded, Level
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.servers import Primary, Replica


# The values of variables may be secret, so a test's report leaves the frames of this module out.
__tracebackhide__ = True

_BETWEEN_URLS: typing.Final = re.compile(r",\s*(?=[a-z][a-z0-9+]*://)", re.IGNORECASE)
"""A comma that separates two URLs, and not two hosts of one."""

_FLAGS: typing.Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

_SIMILAR: typing.Final = 0.85
"""The similarity from which an unknown variable counts as a misspelt one."""


def _flag(text: str) -> bool:
    return _FLAGS[text.lower()]


def _seconds(text: str) -> dt.timedelta:
    return dt.timedelta(seconds=float(text))


def _consistency(text: str) -> Level | Bounded:
    if text.upper() in Level.__members__:
        return Level[text.upper()]
    return Bounded(lag=_seconds(text))


def _mapping(text: str) -> dict[str, typing.Any]:
    mapping = json.loads(text)
    if not isinstance(mapping, dict):
        raise TypeError
    return mapping


def _server(kind: typing.Callable[..., typing.Any], given: object) -> object:
    """Return a server that JSON describes: a URL, or an object with the arguments of its class."""
    if not isinstance(given, dict):
        return given
    arguments = dict(given)
    if arguments.get("max_lag") is not None:
        arguments["max_lag"] = dt.timedelta(seconds=arguments["max_lag"])
    if isinstance(arguments.get("groups"), list):
        arguments["groups"] = frozenset(arguments["groups"])
    return kind(**arguments)


def _primary(text: str) -> object:
    return _server(Primary, _mapping(text)) if text.startswith("{") else text


def _replicas(text: str) -> list[object]:
    if text.startswith(("[", "{")):
        listed = json.loads(text)
        return [_server(Replica, one) for one in (listed if isinstance(listed, list) else [listed])]
    return [one.strip() for one in _BETWEEN_URLS.split(text)]


def _secrets(text: str) -> str | list[str]:
    return typing.cast(list[str], json.loads(text)) if text.startswith("[") else text


_A_SERVER: typing.Final = "a URL, or a JSON object with the arguments of"
_KINDS: typing.Final[tuple[tuple[typing.Callable[[str], object], str, tuple[str, ...]], ...]] = (
    (_primary, f"use {_A_SERVER} Primary", ("primary",)),
    (_replicas, f"use URLs with commas between them, or a JSON list, each {_A_SERVER} Replica", ("replicas",)),
    (_mapping, "use a JSON object", ("connect_args", "engine_options")),
    (
        _flag,
        "use true or false",
        ("pooled", "primary_reads", "enabled", "shadow", "server_timing"),
    ),
    (
        int,
        "use a whole number",
        (
            *("primary_pool_size", "primary_max_overflow", "replica_pool_size", "replica_max_overflow"),
            "primary_fallback_limit",
        ),
    ),
    (
        float,
        "use a number",
        (
            *("primary_pool_timeout", "replica_pool_timeout", "connect_timeout"),
            *("probe_interval", "probe_timeout", "catch_up_wait", "replica_share"),
        ),
    ),
    (_seconds, "use a number of seconds", ("max_lag", "token_lifetime")),
    (_consistency, "use EVENTUAL, SESSION or STRONG, or a number of seconds for Bounded", ("consistency",)),
    (
        str,
        "",
        ("application_name", "on_write", "read_isolation", "balancing", "token_carrier", "token_name"),
    ),
    (_secrets, "use a string, or a JSON list of strings", ("token_secret",)),
)
"""The parser of a variable's text, the remedy if it fails, and the fields."""

PARSERS: typing.Final = {field: (parse, remedy) for parse, remedy, fields in _KINDS for field in fields}
"""For each field, the parser of a variable's text, and the remedy if it fails."""

_SECRET: typing.Final = frozenset({"primary", "replicas", "connect_args", "engine_options", "token_secret"})
_MAY_BE_NONE: typing.Final = frozenset({"max_lag", "primary_fallback_limit", "token_carrier"})


def read_environment(environment: collections.abc.Mapping[str, str], *, prefix: str) -> dict[str, typing.Any]:
    """Return the fields of the settings that are given by variables; an empty variable counts as unset.

    Args:
        environment: names and texts, such as `os.environ`.
        prefix: the prefix of the names.

    Raises:
        ConfigurationError: a text cannot be parsed, or a variable is misspelt.

    """
    names = {f"{prefix}{field}".upper(): field for field in PARSERS}
    given = {name.upper(): text.strip() for name, text in environment.items() if text.strip()}
    for name in given:
        if name in names or not name.startswith(prefix.upper()):
            continue
        meant = difflib.get_close_matches(name, names, n=1, cutoff=_SIMILAR)
        if meant:
            raise ConfigurationError(field=name, value="<not shown>", remedy=f"write {meant[0]}, if that is meant")
    return {field: _parse(name, field, given[name]) for name, field in names.items() if name in given}


def _parse(name: str, field: str, text: str) -> object:
    if field in _MAY_BE_NONE and text.lower() == "none":
        return None
    parse, remedy = PARSERS[field]
    try:
        return parse(text)
    except (ValueError, KeyError, TypeError, OverflowError, ConfigurationError):
        shown = f"<{len(text)} characters, not shown>" if field in _SECRET else text
    # Outside the handler, so that a parser's error, which may quote the text, is not chained to ours.
    raise ConfigurationError(field=name, value=shown, remedy=remedy)


def variable_of(field: str, *, prefix: str) -> str:
    """Return the name of the variable that holds a field of the settings, or a part of it such as `replicas[0].url`."""
    whole = re.match(r"\w*", field).group()  # type: ignore[union-attr]  # it matches every text
    return f"{prefix}{whole}".upper() + field[len(whole) :]
