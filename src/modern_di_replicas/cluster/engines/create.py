"""Create the engines of the two roles from the settings."""

import collections.abc
import dataclasses
import functools
import logging
import typing

from sqlalchemy import Engine, Pool

# Looked up at each call: instrumentation replaces `create_async_engine` after this module was imported.
from sqlalchemy.ext import asyncio

from modern_di_replicas.cluster.commits import Writes
from modern_di_replicas.cluster.connecting import connect_args, is_pooled, may_autocommit
from modern_di_replicas.cluster.direct_use import allow_lost_rollbacks, watch_driver
from modern_di_replicas.cluster.engines.either import AnyEngine, sync_of
from modern_di_replicas.cluster.engines.limited import FallbackLimit
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine, OneReplicaRole
from modern_di_replicas.cluster.engines.primary import PrimaryEngine, PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaEngine, ReplicaRole
from modern_di_replicas.cluster.engines.stale_plans import run_again_when_stale
from modern_di_replicas.cluster.engines.undeclared_pooler import warn_of_undeclared_pooler
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.listeners import forward_listeners
from modern_di_replicas.cluster.pools.all_replicas import AllReplicasPool
from modern_di_replicas.cluster.pools.connection_checks import refuse_regressed, refuse_standbys
from modern_di_replicas.cluster.pools.fenced import FencedPool
from modern_di_replicas.cluster.pools.pre_ping import validate_idle
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool
from modern_di_replicas.cluster.server import Server
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.engine_options import POOL_OPTIONS
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.routing.balancing import STRATEGIES
from modern_di_replicas.routing.rollout import Rollout
from modern_di_replicas.servers import Replica
from modern_di_replicas.settings import ReplicationSettings


logger = logging.getLogger("modern_di_replicas")


Primary = typing.TypeVar("Primary", bound=PrimaryRole)
Replicas = typing.TypeVar("Replicas", bound=ReplicaRole)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Half(typing.Generic[Primary, Replicas]):
    """What differs between asynchronous and synchronous engines."""

    create_engine: collections.abc.Callable[..., Engine]
    """SQLAlchemy's, which returns the synchronous engine."""
    primary_pool: type[Pool]
    replica_pool: type[Pool]
    # The library's engines, made from those of SQLAlchemy.
    primary: collections.abc.Callable[..., Primary]
    replicas: collections.abc.Callable[..., Replicas]
    one_replica: collections.abc.Callable[..., OneReplicaRole]
    limit: type[FallbackLimit] = FallbackLimit


ASYNCHRONOUS: typing.Final = Half(
    create_engine=lambda url, **options: asyncio.create_async_engine(url, **options).sync_engine,
    primary_pool=FencedPool,
    replica_pool=ReplaceablePool,
    primary=PrimaryEngine,
    replicas=ReplicaEngine,
    one_replica=OneReplicaEngine,
)


def create_primary_engine(settings: ReplicationSettings) -> PrimaryEngine:
    """Return the engine of the primary; nothing is connected yet."""
    return create_primary(ASYNCHRONOUS, settings)


def create_replica_engine(settings: ReplicationSettings, primary: PrimaryEngine) -> ReplicaEngine:
    """Return the engine that stands for all replicas; nothing is connected yet.

    Args:
        settings: the replicas and their pools.
        primary: serves the reads when there are no replicas.

    """
    return create_replicas(ASYNCHRONOUS, settings, primary)


def create_primary(half: Half[Primary, Replicas], settings: ReplicationSettings) -> Primary:
    """Return the engine of the primary; see `create_primary_engine`."""
    declared = settings.declared_primary
    arguments = connect_args(settings, declared, "primary")
    engine = half.create_engine(
        declared.url,
        **settings.engine_options,
        connect_args=arguments,
        logging_name="primary",
        pool_logging_name="primary",
        poolclass=half.primary_pool,
        pool_size=settings.primary_pool_size,
        max_overflow=settings.primary_max_overflow,
        pool_timeout=settings.primary_pool_timeout,
    )
    validate_idle(engine, timeout=settings.probe_timeout, silence=settings.connect_timeout)
    run_again_when_stale(engine, in_transactions=True)
    warn_of_undeclared_pooler(engine, "the primary")
    if settings.replicas:
        has_poolers = is_pooled(settings, declared) or any(is_pooled(settings, one) for one in settings.servers)
        refuse_standbys(engine, always_ask=has_poolers)
    allow_lost_rollbacks(engine)
    # Without replicas, or without a token carrier, positions are never read.
    notices_writes = settings.replicas and settings.token_carrier is not None
    if not notices_writes:
        watch_driver(engine)  # a commit that was rolled back still raises
    return half.primary(
        engine,
        writes=Writes(engine) if notices_writes else None,
        connect_args=arguments,
        hooks=Hooks.of(settings.hooks),
    )


def create_replicas(half: Half[Primary, Replicas], settings: ReplicationSettings, primary: AnyEngine) -> Replicas:
    """Return the engine that stands for all replicas; see `create_replica_engine`."""
    policy = EscalationPolicy(
        primary=primary, on_write=settings.on_write, primary_reads=settings.primary_reads or not settings.replicas
    )
    balancing, limit = settings.balancing, settings.primary_fallback_limit
    rollout = Rollout(enabled=settings.enabled, share=settings.replica_share, shadow=settings.shadow)
    hooks = primary.hooks if isinstance(primary, PrimaryRole) else Hooks.of(settings.hooks)
    topology = Topology(
        primary=primary,
        balancer=STRATEGIES[balancing]() if isinstance(balancing, str) else balancing(),
        primary_reads=settings.primary_reads,
        fallback=None if limit is None else half.limit(limit, timeout=settings.replica_pool_timeout, hooks=hooks),
        writes=primary.writes if isinstance(primary, PrimaryRole) else None,
        rollout=None if rollout.is_complete else rollout,
        hooks=hooks,
        primary_capacity=settings.primary_pool_size + settings.primary_max_overflow,
    )
    # The declared primary is one of the servers: after a switchover it is a standby like the others.
    primary_as_replica = _as_replica(settings)
    for replica in (primary_as_replica, *settings.servers):
        engine = _create_one_replica(half, settings, replica, policy, topology)
        max_lag = settings.max_lag if replica.max_lag is None else replica.max_lag
        topology.add(
            Server(
                name=replica.label,
                declared=replica,
                engine=engine,
                health=engine.health,
                weight=replica.weight,
                groups=frozenset(replica.groups),
                max_lag=None if max_lag is None else max_lag.total_seconds(),
                capacity=settings.replica_pool_size + settings.replica_max_overflow,
                is_declared_primary=replica is primary_as_replica,
            )
        )
    options = settings.engine_options
    engine_of_all = half.create_engine(
        # Only the kind of database is read from this URL: the servers have the addresses.
        settings.declared_primary.url,
        **{name: options[name] for name in options.keys() - POOL_OPTIONS},
        isolation_level=settings.read_isolation,
        logging_name="replicas",
        pool=AllReplicasPool(topology),
    )
    receivers = [typing.cast(Engine, sync_of(server.engine)) for server in topology.servers]
    forward_listeners(engine_of_all, lambda: receivers)
    return half.replicas(engine_of_all, settings=settings, policy=policy, topology=topology)


def _as_replica(settings: ReplicationSettings) -> Replica:
    """Return the declared primary as a replica, with a unique name."""
    primary = settings.declared_primary
    # In development one server may be both.
    is_both = primary.label in {replica.label for replica in settings.servers}
    return Replica(
        primary.url,
        f"{primary.label} (primary)" if is_both else primary.label,
        connect_args=primary.connect_args,
        pooled=primary.pooled,
        probe_url=primary.probe_url,
    )


def _create_one_replica(
    half: Half[typing.Any, typing.Any],
    settings: ReplicationSettings,
    replica: Replica,
    policy: EscalationPolicy,
    topology: Topology,
) -> OneReplicaRole:
    isolation, autocommits = settings.read_isolation, may_autocommit(settings, replica)
    if isolation == "AUTOCOMMIT" and not autocommits:
        isolation = "READ COMMITTED"
        logger.info("%s is read in %s: %s", replica.label, isolation, "this driver cannot autocommit behind a pooler.")
    engine = half.create_engine(
        replica.url,
        **settings.engine_options,
        connect_args=connect_args(settings, replica, "replica"),
        # Set on the engine it costs nothing; chosen for each checkout it costs 50 µs.
        isolation_level=isolation,
        logging_name=replica.label,
        pool_logging_name=replica.label,
        poolclass=half.replica_pool,
        pool_size=settings.replica_pool_size,
        max_overflow=settings.replica_max_overflow,
        pool_timeout=settings.replica_pool_timeout,
    )
    validate_idle(engine, timeout=settings.probe_timeout, silence=settings.connect_timeout)
    run_again_when_stale(engine, in_transactions=False)
    warn_of_undeclared_pooler(engine, replica.label)
    refuse_regressed(engine, functools.partial(topology.furthest, replica.label))
    return half.one_replica(
        engine,
        settings=settings,
        policy=policy,
        topology=topology,
        isolation=isolation,
        autocommits=autocommits,
    )
