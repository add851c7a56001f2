"""Metrics for Prometheus. The extra `prometheus` brings the client, which is imported when the hook is made."""

import contextlib
import math
import os
import typing
import weakref

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.observability.events import (
    CaughtUp,
    Decided,
    Ejected,
    Escalated,
    PrimaryChanged,
    ReadRefused,
    ReRun,
    Shadowed,
    ShadowWrote,
    SnapshotPublished,
    TokenReceived,
    TokenSent,
)
from modern_di_replicas.observability.hook import Event
from modern_di_replicas.routing.decision import PRIMARY, Cause
from modern_di_replicas.routing.snapshot import Role


if typing.TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


WAITS: typing.Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
"""The buckets of waits for a replica, in seconds."""

FALLBACKS: typing.Final = frozenset({Cause.NO_REPLICA_SERVES, Cause.NOT_FRESH, Cause.POSITION_UNKNOWN})
"""The causes of reads on the primary that a replica should have served."""


class PrometheusHook:
    """Counts events, and keeps gauges of the servers and their pools.

    Several hooks on one registry share their metrics, for several settings, or an application that is created again.

    Args:
        registry: where the metrics are registered; default: the client's own. With several processes
            (`PROMETHEUS_MULTIPROC_DIR`), scrape through a `MultiProcessCollector`, as the client's documentation says.

    Raises:
        ConfigurationError: `prometheus-client` is not installed.

    """

    def __init__(self, *, registry: "CollectorRegistry | None" = None) -> None:
        try:
            import prometheus_client  # noqa: PLC0415  # an optional part
        except ModuleNotFoundError:
            raise ConfigurationError(
                field="hooks", value="PrometheusHook", remedy="pip install 'modern-di-replicas[prometheus]'"
            ) from None
        self._metrics = _metrics_of(prometheus_client.REGISTRY if registry is None else registry)

    def on_event(self, event: Event, /) -> None:
        """Count an event."""
        count = _COUNTED.get(type(event))
        if count is not None:
            count(self._metrics, event)


class Metrics:
    """The metrics of one registry.

    Args:
        registry: where they are registered.

    """

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415  # an optional part

        # With several processes a gauge is a file of each process and cannot be removed; for a removed server it is
        # NaN.
        self._is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(name, words, labels, registry=registry)

        def gauge(
            name: str,
            words: str,
            *labels: str,
            mode: typing.Literal["livemax", "livemin", "livesum"],
        ) -> Gauge:
            return Gauge(name, words, labels, registry=registry, multiprocess_mode=mode)

        self.routes = counter("db_read_route", "Reads, by the role they were decided for, and why", "target", "reason")
        self.writes = counter("db_write_route", "Units of work that were declared to write")
        self.fallbacks = counter("db_read_fallback", "Reads that the primary served instead of a replica", "reason")
        self.refusals = counter(
            "db_read_refused", "Reads that no replica could serve, and that a setting kept off the primary", "by"
        )
        self.escalations = counter(
            "db_escalations", "Units of work that left their replica for the primary", "endpoint", "reason"
        )
        self.reruns = counter(
            "db_reruns", "Statements run again after a failure on a replica", "reason", "target", "outcome"
        )
        self.failovers = counter("db_failover", "Changes of the primary")
        self.ejections = counter("db_ejections", "Ejections of servers", "server", "by")
        self.tokens = counter("db_consistency_tokens", "Consistency tokens of clients", "direction", "outcome")
        self.waits: Histogram = Histogram(
            "db_catch_up_wait_seconds",
            "Waits for a replica to be fresh enough",
            ["target"],
            registry=registry,
            buckets=WAITS,
        )
        self.shadow = counter("db_shadow_reads", "Reads in shadow mode, by their outcome without it", "outcome")
        self.lag_seconds = gauge(
            "db_replication_lag_seconds", "How long ago the primary had this position", "server", mode="livemax"
        )
        self.lag_bytes = gauge(
            "db_replication_lag_bytes", "WAL between the primary and this replica", "server", mode="livemax"
        )
        self.up = gauge("db_server_up", "Whether a server answers the monitor", "server", mode="livemin")
        self.role = gauge("db_server_role", "1 for the role a server has", "server", "role", mode="livemax")
        self.in_use = gauge("db_pool_in_use", "Connections checked out of a pool", "server", "pool", mode="livesum")
        self.size = gauge(
            "db_pool_size", "Maximum connections of a pool, overflow included", "server", "pool", mode="livesum"
        )
        self._children: dict[tuple[object, ...], typing.Any] = {}
        self._roles: dict[str, Role] = {}

    def _child(self, metric: "Counter | Gauge | Histogram", *labels: str) -> typing.Any:  # noqa: ANN401  # any kind
        # The client's own `labels()` takes a lock, and as much time as the count itself.
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child

    def decided(self, event: Decided) -> None:
        cause = event.decision.cause
        if not event.is_read:
            self.writes.inc()
            return
        self._child(self.routes, _role_of(event.decision.server), cause.value).inc()
        if cause in FALLBACKS:
            self._child(self.fallbacks, cause.value).inc()

    def read_refused(self, event: ReadRefused) -> None:
        self._child(self.refusals, event.by).inc()

    def escalated(self, event: Escalated) -> None:
        self._child(self.escalations, event.endpoint, event.cause.value).inc()
        if event.cause is Cause.REPLICA_FAILED:
            self._child(self.fallbacks, event.cause.value).inc()

    def re_run(self, event: ReRun) -> None:
        outcome = "succeeded" if event.succeeded else "failed"
        self._child(self.reruns, event.cause.value, _role_of(event.again_on), outcome).inc()

    def caught_up(self, event: CaughtUp) -> None:
        self._child(self.waits, "primary" if event.server is None else "replica").observe(event.seconds)

    def ejected(self, event: Ejected) -> None:
        self._child(self.ejections, event.server, event.by).inc()

    def primary_changed(self, event: PrimaryChanged) -> None:  # noqa: ARG002  # its servers are in the gauges
        self.failovers.inc()

    def token_received(self, event: TokenReceived) -> None:
        self._child(self.tokens, "in", event.outcome).inc()

    def token_sent(self, event: TokenSent) -> None:
        self._child(self.tokens, "out", event.outcome).inc()

    def shadowed(self, event: Shadowed) -> None:
        outcome = "stale" if event.stale else "primary" if event.server is None else "replica"
        self._child(self.shadow, outcome).inc()

    def shadow_wrote(self, event: ShadowWrote) -> None:  # noqa: ARG002  # its endpoint is in the log
        self._child(self.shadow, "wrote").inc()

    def snapshot_published(self, event: SnapshotPublished) -> None:
        if event.snapshot is None:
            self._forget_servers()
            return
        for name, state in event.snapshot.servers.items():
            self._child(self.up, name).set(state.up)
            if self._roles.get(name) is not state.role:
                self._roles[name] = state.role
                for role in Role:
                    self.role.labels(name, role.value).set(role is state.role)
            self._set(self.lag_seconds, name, state.lag_seconds)
            self._set(self.lag_bytes, name, state.lag_bytes)
        for pool in event.pools:
            self._child(self.in_use, pool.server, pool.pool).set(pool.in_use)
            self._child(self.size, pool.server, pool.pool).set(pool.capacity)

    def _set(self, gauge: "Gauge", server: str, value: float | None) -> None:
        if value is not None:
            gauge.labels(server).set(value)
        elif self._is_shared:
            gauge.labels(server).set(math.nan)
        else:
            with contextlib.suppress(KeyError):
                gauge.remove(server)

    def _forget_servers(self) -> None:
        self._roles.clear()
        if not self._is_shared:
            self._children.clear()
            for gauge in (self.up, self.role, self.lag_seconds, self.lag_bytes, self.in_use, self.size):
                gauge.clear()


def _role_of(server: str) -> str:
    return "primary" if server == PRIMARY else "replica"


_COUNTED: typing.Final[dict[type[Event], typing.Callable[[Metrics, typing.Any], None]]] = {
    Decided: Metrics.decided,
    ReadRefused: Metrics.read_refused,
    Escalated: Metrics.escalated,
    ReRun: Metrics.re_run,
    CaughtUp: Metrics.caught_up,
    Ejected: Metrics.ejected,
    PrimaryChanged: Metrics.primary_changed,
    TokenReceived: Metrics.token_received,
    TokenSent: Metrics.token_sent,
    Shadowed: Metrics.shadowed,
    ShadowWrote: Metrics.shadow_wrote,
    SnapshotPublished: Metrics.snapshot_published,
}


_known: typing.Final["weakref.WeakKeyDictionary[CollectorRegistry, Metrics]"] = weakref.WeakKeyDictionary()


def _metrics_of(registry: "CollectorRegistry") -> Metrics:
    metrics = _known.get(registry)
    if metrics is None:
        metrics = _known[registry] = Metrics(registry)
    return metrics
