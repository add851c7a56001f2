"""What the operator declares, checked once, at construction."""

import collections.abc
import dataclasses
import datetime as dt
import math
import re
import typing

import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from modern_di_replicas.consistency.levels import SESSION, Consistency, check_consistency
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import SCHEMES, driver_of
from modern_di_replicas.errors import ConfigurationError


DEFAULT_GROUP: typing.Final = "default"
Balancing = typing.Literal["least-in-use", "round-robin", "random"]
OnWrite = typing.Literal["escalate", "raise"]
TokenCarrier = typing.Literal["cookie", "header"]
ReadIsolation = typing.Literal["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"]

_NAME: typing.Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclasses.dataclass(slots=True, frozen=True)
class Replica:
    """One read replica.

    Args:
        url: SQLAlchemy URL, `postgresql+asyncpg://user:password@host:port/database`.
        name: how it is called in logs and errors; default `host:port`.
        weight: its share of the reads, relative to the other replicas; a whole number from 1.
        groups: the groups of reads it serves; reads without a group are of the group `default`.
        max_lag: how far it may be behind the primary to serve reads; default: that of the settings.

    """

    url: str = dataclasses.field(repr=False)
    name: str = ""
    weight: int = 1
    groups: collections.abc.Set[str] = frozenset({DEFAULT_GROUP})
    max_lag: dt.timedelta | None = None

    @property
    def label(self) -> str:
        """The name, or what stands in for it: the host and port."""
        return self.name or _address(make_url(self.url))


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ReplicationSettings:
    """The servers and how to use them.

    Plain data, checked once, here: whatever constructs it learns at once what is wrong.

    Args:
        primary: SQLAlchemy URL of the primary, `postgresql+asyncpg://user:password@host:port/database`.
        replicas: the read replicas, as URLs or `Replica`s; with none, everything goes to the primary.
        application_name: what PostgreSQL shows in `pg_stat_activity`, with `-primary` or `-replica` appended.
        on_write: what becomes of a write in a unit of work that reads from a replica: `escalate` moves it to the
            primary and logs one warning for each endpoint, `raise` raises `WriteOnReplicaError`.
        read_isolation: isolation of statements on a replica. `AUTOCOMMIT` gives each statement its own snapshot,
            as READ COMMITTED does, without the round trips of a transaction.
        primary_pool_size: connections kept open to the primary.
        primary_max_overflow: connections opened to the primary beyond the pool size, when all are busy.
        primary_pool_timeout: seconds to wait for a connection to the primary when all are busy.
        replica_pool_size: connections kept open to each replica.
        replica_max_overflow: connections opened to each replica beyond the pool size, when all are busy.
        replica_pool_timeout: seconds to wait for a connection to a replica when all are busy.
        connect_timeout: seconds to wait for a server to accept a connection; for a replica, at most `probe_timeout`.
        max_lag: how far a replica may be behind the primary to serve reads; None for any. Known while a monitor runs.
        primary_reads: whether the primary serves the reads that no replica can; without it they raise
            `NoReplicaAvailable`, for those who must protect their primary.
        balancing: how a replica is chosen: `least-in-use`, `round-robin`, `random`, or a callable that returns a
            `Balancer`. All heed the weights.
        probe_interval: seconds between two looks of the monitor at a server.
        probe_timeout: seconds a server has to answer the monitor; after that it is down, and what waits for it is
            run again elsewhere. The two together bound the slowest read while a server freezes.
        consistency: how fresh a read has to be that does not say so itself: EVENTUAL, SESSION, Bounded(lag=...) or
            STRONG.
        catch_up_wait: seconds a read waits for a replica to become fresh enough before it uses the primary.
        token_carrier: what carries a client's token from one request to the next: `cookie` or `header`; None for no
            tokens at all, so that SESSION promises nothing from one request to the next.
        token_name: the name of the cookie or header.
        token_lifetime: how long a token counts after its write; at least as long as the longest `max_lag`.
        token_secret: signs the tokens; of several, the last signs and all are accepted, so that secrets can be
            rotated. None for unsigned tokens, which are checked against what the primary has written.

    Raises:
        ConfigurationError: a value is not usable; its `field`, `value` and `remedy` say which, and what to do.

    """

    primary: str = dataclasses.field(repr=False)
    replicas: collections.abc.Sequence[str | Replica] = dataclasses.field(default=(), repr=False)
    application_name: str = "app"
    on_write: OnWrite = "escalate"
    read_isolation: ReadIsolation = "AUTOCOMMIT"
    primary_pool_size: int = 5
    primary_max_overflow: int = 10
    primary_pool_timeout: float = 30.0
    replica_pool_size: int = 5
    replica_max_overflow: int = 10
    replica_pool_timeout: float = 5.0
    connect_timeout: float = 5.0
    max_lag: dt.timedelta | None = dt.timedelta(seconds=10)
    primary_reads: bool = True
    balancing: Balancing | collections.abc.Callable[[], typing.Any] = "least-in-use"
    probe_interval: float = 0.5
    probe_timeout: float = 1.0
    consistency: Consistency = SESSION
    catch_up_wait: float = 0.005
    token_carrier: TokenCarrier | None = "cookie"  # noqa: S105  # a kind, not a secret
    token_name: str = "consistency-token"  # noqa: S105  # a name, not a secret
    token_lifetime: dt.timedelta = dt.timedelta(minutes=1)
    token_secret: str | collections.abc.Sequence[str] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_url("primary", self.primary)
        _check_replicas(self.replicas, primary=make_url(self.primary))
        _check(
            "application_name",
            self.application_name,
            usable=isinstance(self.application_name, str) and self.application_name != "",
            remedy="give the application a name of at least one character",
        )
        _check(
            "on_write",
            self.on_write,
            usable=self.on_write in typing.get_args(OnWrite),
            remedy=f"choose one of {', '.join(typing.get_args(OnWrite))}",
        )
        _check(
            "read_isolation",
            self.read_isolation,
            usable=self.read_isolation in typing.get_args(ReadIsolation),
            remedy=f"choose one of {', '.join(typing.get_args(ReadIsolation))} (a standby refuses SERIALIZABLE)",
        )
        for field in ("primary_pool_size", "replica_pool_size"):
            _check_number(field, getattr(self, field), whole=True, minimum=1)
        for field in ("primary_max_overflow", "replica_max_overflow"):
            _check_number(field, getattr(self, field), whole=True, minimum=0)
        for field in ("primary_pool_timeout", "replica_pool_timeout", "catch_up_wait"):
            _check_number(field, getattr(self, field), whole=False, minimum=0)
        for field in ("connect_timeout", "probe_interval", "probe_timeout"):
            _check_number(field, getattr(self, field), whole=False, minimum=0, exclusive=True)
        _check_max_lag("max_lag", self.max_lag)
        _check(
            "primary_reads",
            self.primary_reads,
            usable=isinstance(self.primary_reads, bool),
            remedy="give True or False, not the text of an environment variable",
        )
        _check(
            "balancing",
            self.balancing,
            usable=callable(self.balancing) or self.balancing in typing.get_args(Balancing),
            remedy=f"choose one of {', '.join(typing.get_args(Balancing))}, or give a callable that returns a Balancer",
        )
        check_consistency("consistency", self.consistency)
        self._check_tokens()

    def _check_tokens(self) -> None:
        _check(
            "token_carrier",
            self.token_carrier,
            usable=self.token_carrier is None or self.token_carrier in typing.get_args(TokenCarrier),
            remedy=f"choose one of {', '.join(typing.get_args(TokenCarrier))}, or None",
        )
        _check(
            "token_name",
            self.token_name,
            usable=isinstance(self.token_name, str) and _NAME.fullmatch(self.token_name) is not None,
            remedy="give letters, digits, `-` and `_`, as names of cookies and headers have them",
        )
        _check(
            "token_lifetime",
            self.token_lifetime,
            usable=isinstance(self.token_lifetime, dt.timedelta) and self.token_lifetime >= dt.timedelta(seconds=1),
            remedy="give a timedelta of at least one second",
        )
        secret = self.token_secret
        secrets = [secret] if isinstance(secret, str) or secret is None else secret
        _check(
            "token_secret",
            f"<{type(secret).__name__}, not shown>",
            usable=secret is None
            or (
                isinstance(secrets, collections.abc.Sequence)
                and len(secrets) > 0
                and all(isinstance(one, str) and one for one in secrets)
            ),
            remedy="give a text, or a list of texts of which the last signs; None for unsigned tokens",
        )

    @property
    def driver(self) -> Driver:
        """The driver of all servers."""
        return driver_of(make_url(self.primary))

    @property
    def servers(self) -> tuple[Replica, ...]:
        """The replicas, each as a `Replica`."""
        return tuple(_as_replica(replica) for replica in self.replicas)

    @property
    def token_secrets(self) -> tuple[str, ...]:
        """The secrets that sign tokens, the current one last; none for unsigned tokens."""
        secret = self.token_secret
        return () if secret is None else (secret,) if isinstance(secret, str) else tuple(secret)

    @property
    def token_seconds(self) -> int:
        """How many seconds a token counts.

        A replica may serve while it is up to its `max_lag` behind, so until then the token must keep reads off it.
        """
        lags = [self.max_lag, *(replica.max_lag for replica in self.servers)]
        return math.ceil(max([self.token_lifetime, *filter(None, lags)]).total_seconds())


def _as_replica(replica: str | Replica) -> Replica:
    return replica if isinstance(replica, Replica) else Replica(replica)


def _check_replicas(replicas: object, *, primary: URL) -> None:
    _check(
        "replicas",
        type(replicas).__name__,
        usable=isinstance(replicas, collections.abc.Sequence) and not isinstance(replicas, str | bytes),
        remedy="give a list of URLs or Replica(...), also for a single replica",
    )
    seen: dict[str, str] = {}
    for index, given in enumerate(typing.cast(collections.abc.Sequence[str | Replica], replicas)):
        field = f"replicas[{index}]"
        replica = _as_replica(given)
        url = _check_url(f"{field}.url", replica.url)
        _check(
            f"{field}.url",
            redacted(url),
            usable=_database(url) == _database(primary),
            remedy=f"a replica holds the database of its primary, which is {_database(primary)!r}",
        )
        _check(
            f"{field}.name",
            replica.name,
            usable=isinstance(replica.name, str) and replica.label not in seen,
            remedy=f"{replica.label!r} already names {seen.get(replica.label, 'nothing')}; give each server once, "
            "and each name to one server",
        )
        seen[replica.label] = field
        _check_number(f"{field}.weight", replica.weight, whole=True, minimum=1)
        _check_max_lag(f"{field}.max_lag", replica.max_lag)
        _check(
            f"{field}.groups",
            replica.groups,
            usable=isinstance(replica.groups, collections.abc.Set)
            and len(replica.groups) > 0
            and all(isinstance(group, str) and group for group in replica.groups),
            remedy=f"give a set of names, such as {{{DEFAULT_GROUP!r}}}",
        )


def _check(field: str, value: object, *, usable: bool, remedy: str) -> None:
    if not usable:
        raise ConfigurationError(field=field, value=value, remedy=remedy)


def _check_number(field: str, value: object, *, whole: bool, minimum: int, exclusive: bool = False) -> None:
    types = int if whole else int | float
    _check(
        field,
        value,
        usable=isinstance(value, types)
        and not isinstance(value, bool)
        and (value > minimum if exclusive else value >= minimum)
        and value != float("inf"),
        remedy=f"give a {'whole number' if whole else 'number of seconds'} {'above' if exclusive else 'of at least'} "
        f"{minimum}",
    )


def _check_max_lag(field: str, value: object) -> None:
    _check(
        field,
        value,
        usable=value is None or (isinstance(value, dt.timedelta) and value > dt.timedelta(0)),
        remedy="give a timedelta above zero, or None",
    )


def _check_url(field: str, value: object) -> URL:
    """Return the parsed URL. No text that could hold a password ever reaches the error."""
    try:
        url = make_url(typing.cast(str, value))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        url = None
    if url is None:
        # Outside the handler, so that the parser's error, which quotes the URL, is not chained to ours.
        raise ConfigurationError(
            field=field,
            value=f"<{type(value).__name__}, not shown: it may hold a password>",
            remedy=f"give a URL of the form {SCHEMES[0]}://user:password@host:5432/database",
        )
    _check(
        field,
        redacted(url),
        usable=url.drivername in SCHEMES,
        remedy=f"write {SCHEMES[0]}:// in front: the driver has to be asyncpg, and has to be named",
    )
    # Else the driver would say so at each attempt to connect, which looks like a server that is down.
    for name in url.query:
        remedy = driver_of(url).parameter_remedy(name)
        _check(field, redacted(url), usable=remedy is None, remedy=remedy or "")
    remedy = _address_remedy(url)
    _check(field, redacted(url), usable=remedy is None, remedy=remedy or "")
    return url


def redacted(url: URL) -> str:
    """Return a URL as text, without its password."""
    secret = {key: "***" for key in url.query if "password" in key}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def _database(url: URL) -> str | None:
    # As libpq does: the default database is the one named like the user.
    return url.database or url.username


def _address(url: URL) -> str:
    """Return `host:port`, or all of them for a URL of several hosts; the host may be the directory of a socket."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    hosts, ports = _listed(arguments.get("host") or "localhost"), _listed(arguments.get("port") or 5432)
    if len(ports) == 1:
        ports *= len(hosts)
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))


def _address_remedy(url: URL) -> str | None:
    """Return what to do about hosts and ports that no server is reached by; None where there is nothing to do."""
    try:
        _, arguments = url.get_dialect()().create_connect_args(url)
    except sqlalchemy.exc.ArgumentError as error:
        return f"{error}".lower().rstrip(".")
    for host in _listed(arguments.get("host")):
        if host.startswith("/") and ":" in host:
            folder, _, port = host.partition(":")
            return f"write host={folder}&port={port}: the driver takes {host!r} for the name of a directory"
    return None


def _listed(given: object) -> list[str]:
    """Return what SQLAlchemy passes to the driver for several hosts or ports: a list, or a text with commas."""
    return [str(one) for one in given] if isinstance(given, list) else str(given).split(",")
