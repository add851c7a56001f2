"""The declaration of one server."""

import collections.abc
import dataclasses
import datetime as dt
import typing
import urllib.parse

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


# URLs hold passwords, so a test's report leaves the frames of this module out.
__tracebackhide__ = True

DEFAULT_GROUP: typing.Final = "default"


@dataclasses.dataclass(slots=True, frozen=True)
class Primary:
    """The primary.

    Args:
        url: SQLAlchemy URL, `postgresql+asyncpg://user:password@host:port/database`: a text, SQLAlchemy's `URL`, or
            pydantic's `PostgresDsn` or `SecretStr`.
        name: how it is called in logs and errors; default `host:port`.
        connect_args: arguments of the driver's `connect`, over those of the settings.
        pooled: whether a pooler in transaction mode is in front of it; default: that of the settings.
        probe_url: where the monitor asks it, such as past the pooler; default: `url`.

    """

    url: str = dataclasses.field(repr=False)
    name: str = ""
    _: dataclasses.KW_ONLY
    connect_args: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict, repr=False, hash=False
    )
    pooled: bool | None = None
    probe_url: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        _set_urls(self)

    def __repr__(self) -> str:
        return _shown(self)

    @property
    def label(self) -> str:
        """The name; by default, the host and port."""
        return self.name or address(make_url(self.url))


@dataclasses.dataclass(slots=True, frozen=True)
class Replica:
    """One read replica.

    Args:
        url: SQLAlchemy URL, as that of a `Primary`.
        name: how it is called in logs and errors; default `host:port`.
        weight: its share of the reads, relative to the other replicas; a whole number from 1.
        groups: the groups of reads it serves; reads without a group are of the group `default`.
        max_lag: how far it may be behind the primary to serve reads; default: that of the settings.
        connect_args: arguments of the driver's `connect`, over those of the settings.
        pooled: whether a pooler in transaction mode is in front of it; default: that of the settings.
        probe_url: where the monitor asks it, such as past the pooler; default: `url`.
        promotable: whether it may become the primary. If not, writes never follow a promotion there, and its timeline
            does not count: a clone that is detached from a replica looks like a new primary.

    """

    url: str = dataclasses.field(repr=False)
    name: str = ""
    weight: int = 1
    groups: collections.abc.Set[str] = frozenset({DEFAULT_GROUP})
    max_lag: dt.timedelta | None = None
    _: dataclasses.KW_ONLY
    connect_args: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict, repr=False, hash=False
    )
    pooled: bool | None = None
    probe_url: str | None = dataclasses.field(default=None, repr=False)
    promotable: bool = True

    def __post_init__(self) -> None:
        _set_urls(self)

    def __repr__(self) -> str:
        return _shown(self)

    @property
    def label(self) -> str:
        """The name; by default, the host and port."""
        return self.name or address(make_url(self.url))


DeclaredServer = Primary | Replica


def url_text(given: object) -> typing.Any:  # noqa: ANN401  # what is no URL is checked with the settings
    """Return the text of a URL object, with its password; any other value unchanged."""
    if isinstance(given, URL):
        return given.render_as_string(hide_password=False)
    for name in ("get_secret_value", "unicode_string"):  # pydantic's SecretStr, and its URLs
        if (text := getattr(given, name, None)) is not None:
            return url_text(text())
    return given


def _set_urls(server: DeclaredServer) -> None:
    for field in ("url", "probe_url"):
        object.__setattr__(server, field, url_text(getattr(server, field)))


def _shown(server: DeclaredServer) -> str:
    """Return the `repr` of a server: its address, and the values that differ from the defaults, without secrets."""
    fields = [field for field in dataclasses.fields(server) if field.repr and field.name != "name"]
    values = [(field.name, getattr(server, field.name), field.default) for field in fields]
    said = [repr(shown_label(server)), *(f"{name}={value!r}" for name, value, default in values if value != default)]
    return f"{type(server).__name__}({', '.join(said)})"


def shown_label(server: DeclaredServer) -> str:
    """Return the label of a server; a placeholder if its URL is invalid, because it was not checked yet."""
    try:
        return server.label
    except (ArgumentError, AttributeError, TypeError, ValueError):
        return "<no URL>"


def address(url: URL) -> str:
    """Return `host:port`, or all of them for a URL of several hosts; the host may be the directory of a socket."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    hosts, ports = _listed(arguments.get("host") or "localhost"), _listed(arguments.get("port") or 5432)
    if len(ports) == 1:
        ports *= len(hosts)
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))


_PORTS: typing.Final = 1 << 16


def address_remedy(url: URL) -> str | None:
    """Return the remedy for invalid hosts and ports; None if they are usable."""
    try:
        _, arguments = url.get_dialect()().create_connect_args(url)
    except ArgumentError as error:
        return f"{error}".lower().rstrip(".")
    for port in _listed(arguments.get("port") or []):
        if port and not 0 < int(port) < _PORTS:
            return f"use a port from 1 to {_PORTS - 1}: {port} is not one"
    for host in _listed(arguments.get("host")):
        if host.startswith("/") and ":" in host:
            folder, _, port = host.partition(":")
            return f"write host={folder}&port={port}: the driver takes {host!r} for the name of a directory"
    return None


def _listed(given: object) -> list[str]:
    """Return SQLAlchemy's argument for the driver with several hosts or ports: a list, or a text with commas."""
    return [str(one) for one in given] if isinstance(given, list) else str(given).split(",")


def database(url: URL) -> str | None:
    """Return the database of a URL; by default, as in libpq, the one named like the user."""
    return url.database or url.username


_HIDDEN: typing.Final = "***"
_SEPARATORS: typing.Final = frozenset("@:?")


def redacted(url: URL) -> str:
    """Return a URL as text, without its password, and without parts that may contain a piece of it."""
    hidden = url.set(
        username=_hide_fragment(url.username),
        host=_hide_fragment(url.host),
        database=_hide_fragment(url.database),
        query=dict.fromkeys(url.query, _HIDDEN),
    )
    return hidden.render_as_string(hide_password=True).replace(urllib.parse.quote(_HIDDEN), _HIDDEN)


def _hide_fragment(part: str | None) -> str | None:
    """Hide a part that may be the rest of a password with an unencoded `@`, `:` or `?`."""
    return _HIDDEN if part is not None and set(part) & _SEPARATORS else part
