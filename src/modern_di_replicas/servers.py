"""One server, as the operator declares it."""

import collections.abc
import dataclasses
import datetime as dt
import typing

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


DEFAULT_GROUP: typing.Final = "default"


@dataclasses.dataclass(slots=True, frozen=True)
class Primary:
    """The primary.

    Args:
        url: SQLAlchemy URL, `postgresql+asyncpg://user:password@host:port/database`.
        name: how it is called in logs and errors; default `host:port`.
        connect_args: arguments of the driver's `connect`, over those of the settings.
        pooled: whether a pooler in transaction mode is in front of it; default: what the settings say.
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

    @property
    def label(self) -> str:
        """The name, or what stands in for it: the host and port."""
        return self.name or address(make_url(self.url))


@dataclasses.dataclass(slots=True, frozen=True)
class Replica:
    """One read replica.

    Args:
        url: SQLAlchemy URL, `postgresql+asyncpg://user:password@host:port/database`.
        name: how it is called in logs and errors; default `host:port`.
        weight: its share of the reads, relative to the other replicas; a whole number from 1.
        groups: the groups of reads it serves; reads without a group are of the group `default`.
        max_lag: how far it may be behind the primary to serve reads; default: that of the settings.
        connect_args: arguments of the driver's `connect`, over those of the settings.
        pooled: whether a pooler in transaction mode is in front of it; default: what the settings say.
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

    @property
    def label(self) -> str:
        """The name, or what stands in for it: the host and port."""
        return self.name or address(make_url(self.url))


DeclaredServer = Primary | Replica


def address(url: URL) -> str:
    """Return `host:port`, or all of them for a URL of several hosts; the host may be the directory of a socket."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    hosts, ports = _listed(arguments.get("host") or "localhost"), _listed(arguments.get("port") or 5432)
    if len(ports) == 1:
        ports *= len(hosts)
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))


def address_remedy(url: URL) -> str | None:
    """Return what to do about hosts and ports that no server is reached by; None where there is nothing to do."""
    try:
        _, arguments = url.get_dialect()().create_connect_args(url)
    except ArgumentError as error:
        return f"{error}".lower().rstrip(".")
    for host in _listed(arguments.get("host")):
        if host.startswith("/") and ":" in host:
            folder, _, port = host.partition(":")
            return f"write host={folder}&port={port}: the driver takes {host!r} for the name of a directory"
    return None


def _listed(given: object) -> list[str]:
    """Return what SQLAlchemy passes to the driver for several hosts or ports: a list, or a text with commas."""
    return [str(one) for one in given] if isinstance(given, list) else str(given).split(",")


def database(url: URL) -> str | None:
    """Return the database that a URL leads to. As for libpq, the default is the one named like the user."""
    return url.database or url.username


def redacted(url: URL) -> str:
    """Return a URL as text, without its password."""
    secret = {key: "***" for key in url.query if "password" in key}
    return url.update_query_dict(secret).render_as_string(hide_password=True)
