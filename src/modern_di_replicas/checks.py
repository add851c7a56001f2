"""Checks of plain values in the settings; each raises `ConfigurationError`."""

import datetime as dt
import re
import typing

from modern_di_replicas.errors import ConfigurationError


# A test's report ends where the settings are made; the error says what is wrong.
__tracebackhide__ = True


def check(field: str, value: object, *, usable: bool, remedy: str) -> None:
    """Check one value."""
    if not usable:
        raise ConfigurationError(field=field, value=value, remedy=remedy)


def check_number(field: str, value: object, *, whole: bool, minimum: int, exclusive: bool = False) -> None:
    """Check a size or a number of seconds."""
    types = int if whole else int | float
    check(
        field,
        value,
        usable=isinstance(value, types)
        and not isinstance(value, bool)
        and (value > minimum if exclusive else value >= minimum)
        and value != float("inf"),
        remedy=f"use a {'whole number' if whole else 'number of seconds'} {'above' if exclusive else 'of at least'} "
        f"{minimum}",
    )


def check_flag(field: str, value: object) -> None:
    """Check a flag; the text of an environment variable is not one."""
    remedy = "use True or False, not the text of an environment variable"
    check(field, value, usable=isinstance(value, bool), remedy=remedy)


def check_max_lag(field: str, value: object) -> None:
    """Check a limit of the lag."""
    check(
        field,
        value,
        usable=value is None or (isinstance(value, dt.timedelta) and value > dt.timedelta(0)),
        remedy="use a timedelta above zero, or None",
    )


_TOKEN_NAME: typing.Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_OF_HTTP: typing.Final = re.compile(
    "age|allow|alt-svc|authorization|cache-control|connection|cookie|date|domain|etag|expect|expires|forwarded|from"
    "|host|httponly|keep-alive|last-modified|link|location|max-age|origin|path|pragma|range|referer|refresh"
    "|retry-after|samesite|secure|server|server-timing|set-cookie|te|trailer|transfer-encoding|upgrade|user-agent"
    "|vary|via|warning|www-authenticate"
    "|(accept|access-control|content|if|proxy|sec|strict|x-forwarded)(-.*)?",
    re.IGNORECASE,
)
"""Names that HTTP gives to headers and to the attributes of cookies, and families of them."""


def check_token_name(field: str, value: object) -> None:
    """Check the name of a cookie or header."""
    check(
        field,
        value,
        usable=isinstance(value, str) and _TOKEN_NAME.fullmatch(value) is not None,
        remedy="use only letters, digits, `-` and `_`",
    )
    check(
        field,
        value,
        usable=_OF_HTTP.fullmatch(typing.cast(str, value)) is None,
        remedy="use a name without a meaning in HTTP, such as consistency-token; for a cookie under https, "
        "__Host-consistency-token, which no other subdomain can set",
    )
