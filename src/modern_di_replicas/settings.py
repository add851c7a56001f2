"""The settings, checked once, at construction."""

import collections.abc
import dataclasses
import datetime as dt
import math
import os
import typing

from sqlalchemy.engine import make_url

from modern_di_replicas.checks import check, check_flag, check_max_lag, check_number, check_token_name
from modern_di_replicas.consistency.levels import SESSION, Consistency, check_consistency
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.engine_options import check_engine_options
from modern_di_replicas.environment import read_environment, variable_of
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.server_checks import check_connect_args, check_primary, check_replicas
from modern_di_replicas.servers import Primary, Replica, shown_label, url_text


if typing.TYPE_CHECKING:
    from modern_di_replicas.observability.hook import Hook
else:
    Hook = typing.Any  # pydantic, which may fill these settings, knows no protocols

Balancing = typing.Literal["least-in-use", "round-robin", "random"]
OnWrite = typing.Literal["escalate", "raise"]
TokenCarrier = typing.Literal["cookie", "header"]
ReadIsolation = typing.Literal["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ"]

ISOLATION_REMEDY: typing.Final = (
    f"choose one of {', '.join(typing.get_args(ReadIsolation))} (a standby refuses SERIALIZABLE)"
)

# URLs and secrets are fields here, so a test's report leaves the frames of this module out.
__tracebackhide__ = True


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ReplicationSettings:
    """The servers and how to use them.

    Plain data, checked once, at construction.

    Args:
        primary: the primary, as a `Primary` or its URL, `postgresql+asyncpg://user:password@host:port/database`.
        replicas: the read replicas, as URLs or `Replica`s; with none, everything goes to the primary.
        connect_args: arguments of the driver's `connect`, for the pools and the monitor alike: TLS contexts, a
            `password` callable, `server_settings`. A server may have its own.
        engine_options: options of `create_async_engine` for every server: `echo`, `json_serializer`, `pool_recycle`.
        pooled: whether poolers in transaction mode are in front of the servers; a server may say otherwise.
        application_name: what PostgreSQL shows in `pg_stat_activity`, with `-primary` or `-replica` appended.
        on_write: what to do about a write in a unit of work that reads from a replica: `escalate` moves it to the
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
            `NoReplicaAvailable`, to protect the primary.
        primary_fallback_limit: how many reads that no replica can serve may use the primary at once; one more waits
            `replica_pool_timeout` and then raises `NoReplicaAvailable`. None for no limit.
        balancing: how a replica is chosen: `least-in-use`, `round-robin`, `random`, or a callable that returns a
            `Balancer`. The weights apply to all of them.
        probe_interval: seconds between two probes of a server by the monitor.
        probe_timeout: timeout in seconds for a server's answer to the monitor; after that it is down, and statements
            that wait for it are run again elsewhere. The two together bound the slowest read while a server freezes.
        consistency: the default level of reads: EVENTUAL, SESSION, Bounded(lag=...) or STRONG.
        catch_up_wait: seconds a read waits for a replica to become fresh enough before it uses the primary.
        token_carrier: what carries a client's token from one request to the next: `cookie` or `header`; None for no
            tokens, so that SESSION guarantees nothing across requests.
        token_name: the name of the cookie or header. Under https, a cookie may be called `__Host-consistency-token`: a
            browser then accepts it from this host only, not from another subdomain.
        token_lifetime: how long a token is valid after its write; at least the longest `max_lag`.
        token_secret: signs the tokens; of several, the last signs and all are accepted, so that secrets can be
            rotated. None for unsigned tokens, which are checked against the position of the primary.
        enabled: whether reads use the replicas; False sends everything to the primary, which is still followed
            when it moves.
        replica_share: the share of the reads that may use replicas, from 0 to 1, or a callable that returns it and is
            called for each choice. Reads with the same `Intent.affinity` get the same result each time, others are
            chosen at random.
        shadow: whether choices are only made and reported to the hooks, while everything uses the primary.
        server_timing: whether a response says in a `Server-Timing` header which server its unit of work used, and why.
        hooks: receive the events; see `modern_di_replicas.observability`.

    Raises:
        ConfigurationError: a value is not usable; its `field`, `value` and `remedy` say which, and what to do.

    """

    primary: str | Primary = dataclasses.field(repr=False)
    replicas: collections.abc.Sequence[str | Replica] = dataclasses.field(default=(), repr=False)
    connect_args: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict, repr=False, hash=False
    )
    engine_options: collections.abc.Mapping[str, typing.Any] = dataclasses.field(
        default_factory=dict, repr=False, hash=False
    )
    pooled: bool = False
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
    primary_fallback_limit: int | None = None
    balancing: Balancing | collections.abc.Callable[[], typing.Any] = "least-in-use"
    probe_interval: float = 0.5
    probe_timeout: float = 1.0
    consistency: Consistency = SESSION
    catch_up_wait: float = 0.005
    token_carrier: TokenCarrier | None = "cookie"  # noqa: S105  # a kind, not a secret
    token_name: str = "consistency-token"  # noqa: S105  # a name, not a secret
    token_lifetime: dt.timedelta = dt.timedelta(minutes=1)
    token_secret: str | collections.abc.Sequence[str] | None = dataclasses.field(default=None, repr=False)

    enabled: bool = True
    replica_share: float | collections.abc.Callable[[], float] = 1.0
    shadow: bool = False
    server_timing: bool = False
    hooks: collections.abc.Sequence[Hook] = ()

    @classmethod
    def from_env(
        cls,
        prefix: str = "DB_",
        *,
        environment: collections.abc.Mapping[str, str] | None = None,
        **given: typing.Any,
    ) -> typing.Self:
        """Return settings from environment variables: `DB_PRIMARY`, `DB_REPLICAS`, `DB_MAX_LAG`, and so on.

        Each is named like a field, in capitals. Durations are numbers of seconds; replicas are URLs with commas between
        them, or a JSON list of URLs and objects; `none` turns a limit off. An empty variable counts as unset.

        Args:
            prefix: the prefix of the names.
            environment: names and texts; default: `os.environ`.
            **given: fields that override the variables, such as `hooks`.

        Raises:
            ConfigurationError: a value is not usable; its `field` is the name of the variable.

        """
        fields = {**read_environment(os.environ if environment is None else environment, prefix=prefix), **given}
        try:
            return cls(**{"primary": None, **fields})
        except ConfigurationError as error:
            if error.field.partition("[")[0].partition(".")[0] in given:
                raise
            found = error
        raise ConfigurationError(field=variable_of(found.field, prefix=prefix), value=found.value, remedy=found.remedy)

    def __repr__(self) -> str:
        servers = self.servers if isinstance(self.replicas, tuple) else ()
        said = f"primary={shown_label(self.declared_primary)!r}, replicas={[*map(shown_label, servers)]!r}"
        fields = [field for field in dataclasses.fields(self) if field.repr]
        changed = [
            f"{one.name}={getattr(self, one.name)!r}" for one in fields if getattr(self, one.name) != one.default
        ]
        return f"ReplicationSettings({', '.join([said, *changed])})"

    def __post_init__(self) -> None:
        # A URL as text, for comparisons and for passing it on.
        object.__setattr__(self, "primary", url_text(self.primary))
        if isinstance(self.replicas, collections.abc.Sequence) and not isinstance(self.replicas, str | bytes):
            object.__setattr__(self, "replicas", tuple(url_text(one) for one in self.replicas))
        primary = self.declared_primary
        url = check_primary(primary)
        check_flag("pooled", self.pooled)
        check_connect_args("connect_args", self.connect_args, driver_of(url))
        check_engine_options("engine_options", self.engine_options, url)
        check_replicas(self.replicas, primary=primary, pooled=self.pooled)
        check(
            "application_name",
            self.application_name,
            usable=isinstance(self.application_name, str) and self.application_name != "",
            remedy="give the application a name of at least one character",
        )
        check(
            "on_write",
            self.on_write,
            usable=self.on_write in typing.get_args(OnWrite),
            remedy=f"choose one of {', '.join(typing.get_args(OnWrite))}",
        )
        check(
            "read_isolation",
            self.read_isolation,
            usable=self.read_isolation in typing.get_args(ReadIsolation),
            remedy=ISOLATION_REMEDY,
        )
        for field in ("primary_pool_size", "replica_pool_size"):
            check_number(field, getattr(self, field), whole=True, minimum=1)
        for field in ("primary_max_overflow", "replica_max_overflow"):
            check_number(field, getattr(self, field), whole=True, minimum=0)
        for field in ("primary_pool_timeout", "replica_pool_timeout", "catch_up_wait"):
            check_number(field, getattr(self, field), whole=False, minimum=0)
        for field in ("connect_timeout", "probe_interval", "probe_timeout"):
            check_number(field, getattr(self, field), whole=False, minimum=0, exclusive=True)
        check_max_lag("max_lag", self.max_lag)
        check_flag("primary_reads", self.primary_reads)
        if self.primary_fallback_limit is not None:
            check_number("primary_fallback_limit", self.primary_fallback_limit, whole=True, minimum=1)
        check(
            "balancing",
            self.balancing,
            usable=callable(self.balancing) or self.balancing in typing.get_args(Balancing),
            remedy=f"choose one of {', '.join(typing.get_args(Balancing))}, or a callable that returns a Balancer",
        )
        check_consistency("consistency", self.consistency)
        self._check_tokens()
        self._check_rollout()
        check(
            "hooks",
            self.hooks,
            usable=isinstance(self.hooks, collections.abc.Sequence)
            and all(callable(getattr(hook, "on_event", None)) for hook in self.hooks),
            remedy="use a list of hooks, each with a method on_event(event)",
        )

    def _check_rollout(self) -> None:
        for field in ("enabled", "shadow", "server_timing"):
            check_flag(field, getattr(self, field))
        share = self.replica_share
        check(
            "replica_share",
            share,
            usable=callable(share)
            or (isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1),
            remedy="use a number from 0 to 1, or a callable that returns one",
        )

    def _check_tokens(self) -> None:
        check(
            "token_carrier",
            self.token_carrier,
            usable=self.token_carrier is None or self.token_carrier in typing.get_args(TokenCarrier),
            remedy=f"choose one of {', '.join(typing.get_args(TokenCarrier))}, or None",
        )
        check_token_name("token_name", self.token_name)
        check(
            "token_lifetime",
            self.token_lifetime,
            usable=isinstance(self.token_lifetime, dt.timedelta) and self.token_lifetime >= dt.timedelta(seconds=1),
            remedy="use a timedelta of at least one second",
        )
        secret = self.token_secret
        secrets = [secret] if isinstance(secret, str) or secret is None else secret
        check(
            "token_secret",
            f"<{type(secret).__name__}, not shown>",
            usable=secret is None
            or (
                isinstance(secrets, collections.abc.Sequence)
                and len(secrets) > 0
                and all(isinstance(one, str) and one for one in secrets)
            ),
            remedy="use a string, or a list of strings of which the last signs; None for unsigned tokens",
        )

    @property
    def driver(self) -> Driver:
        """The driver of all servers."""
        return driver_of(make_url(self.declared_primary.url))

    @property
    def declared_primary(self) -> Primary:
        """The primary as a `Primary`."""
        return self.primary if isinstance(self.primary, Primary) else Primary(self.primary)

    @property
    def servers(self) -> tuple[Replica, ...]:
        """The replicas, each as a `Replica`."""
        return tuple(one if isinstance(one, Replica) else Replica(one) for one in self.replicas)

    @property
    def token_secrets(self) -> tuple[str, ...]:
        """The secrets that sign tokens, the current one last; none for unsigned tokens."""
        secret = self.token_secret
        return () if secret is None else (secret,) if isinstance(secret, str) else tuple(secret)

    @property
    def token_seconds(self) -> int:
        """For how many seconds a token is valid.

        A replica serves with a lag of up to its `max_lag`, so the token must be valid for that long.
        """
        lags = [self.max_lag, *(replica.max_lag for replica in self.servers)]
        return math.ceil(max([self.token_lifetime, *filter(None, lags)]).total_seconds())
