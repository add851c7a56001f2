"""From the settings to the engines of the two roles."""

import functools
import typing

from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas.cluster.commits import Writes
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine
from modern_di_replicas.cluster.engines.primary import PrimaryEngine
from modern_di_replicas.cluster.engines.replica import ReplicaEngine
from modern_di_replicas.cluster.escalation import EscalationPolicy
from modern_di_replicas.cluster.pools.all_replicas import AllReplicasPool
from modern_di_replicas.cluster.pools.connection_checks import refuse_setbacks, refuse_standbys
from modern_di_replicas.cluster.pools.fenced import FencedPool
from modern_di_replicas.cluster.pools.pre_ping import ping_when_idle
from modern_di_replicas.cluster.pools.replaceable import ReplaceablePool
from modern_di_replicas.cluster.topology import Server, Topology
from modern_di_replicas.routing.balancing import STRATEGIES
from modern_di_replicas.settings import Replica, ReplicationSettings


def create_primary_engine(settings: ReplicationSettings) -> PrimaryEngine:
    """Return the engine of the primary; nothing is connected yet."""
    engine = create_async_engine(
        settings.primary,
        connect_args=_connect_args(settings, role="primary"),
        logging_name="primary",
        poolclass=FencedPool,
        pool_size=settings.primary_pool_size,
        max_overflow=settings.primary_max_overflow,
        pool_timeout=settings.primary_pool_timeout,
    )
    ping_when_idle(engine.sync_engine)
    if settings.replicas:
        refuse_standbys(engine.sync_engine)
    # Without replicas, or without a token carrier, positions are never read.
    notices_writes = settings.replicas and settings.token_carrier is not None
    return PrimaryEngine(engine.sync_engine, writes=Writes(engine.sync_engine) if notices_writes else None)


def create_replica_engine(settings: ReplicationSettings, primary: PrimaryEngine) -> ReplicaEngine:
    """Return the engine that stands for all replicas; nothing is connected yet.

    Args:
        settings: the replicas and their pools.
        primary: serves the reads when there are no replicas.

    """
    policy = EscalationPolicy(
        primary=primary, on_write=settings.on_write, primary_reads=settings.primary_reads or not settings.replicas
    )
    balancing = settings.balancing
    topology = Topology(
        primary=primary,
        balancer=STRATEGIES[balancing]() if isinstance(balancing, str) else balancing(),
        primary_reads=settings.primary_reads,
        writes=primary.writes if isinstance(primary, PrimaryEngine) else None,
    )
    # The declared primary is one of the servers: after a switchover it is a standby like the others.
    declared_primary = Replica(settings.primary, name=_name_of_primary(settings))
    for replica, is_declared_primary in [(declared_primary, True), *((replica, False) for replica in settings.servers)]:
        engine = _create_one_replica_engine(settings, replica, policy, topology)
        max_lag = settings.max_lag if replica.max_lag is None else replica.max_lag
        topology.add(
            Server(
                name=replica.label,
                url=replica.url,
                engine=engine,
                health=engine.health,
                weight=replica.weight,
                groups=frozenset(replica.groups),
                max_lag=None if max_lag is None else max_lag.total_seconds(),
                capacity=settings.replica_pool_size + settings.replica_max_overflow,
                is_declared_primary=is_declared_primary,
            )
        )
    engine_of_all = create_async_engine(
        # Only the kind of database is read from this URL: the servers have the addresses.
        settings.primary,
        isolation_level=settings.read_isolation,
        logging_name="replicas",
        pool=AllReplicasPool(topology),
    )
    return ReplicaEngine(engine_of_all.sync_engine, settings=settings, policy=policy, topology=topology)


def _name_of_primary(settings: ReplicationSettings) -> str:
    label = Replica(settings.primary).label
    # In development one server may be both.
    return f"{label} (primary)" if label in {replica.label for replica in settings.servers} else label


def _create_one_replica_engine(
    settings: ReplicationSettings, replica: Replica, policy: EscalationPolicy, topology: Topology
) -> OneReplicaEngine:
    engine = create_async_engine(
        replica.url,
        connect_args=_connect_args(settings, role="replica"),
        # Set on the engine it costs nothing; chosen for each checkout it costs 50 µs.
        isolation_level=settings.read_isolation,
        logging_name=replica.label,
        poolclass=ReplaceablePool,
        pool_size=settings.replica_pool_size,
        max_overflow=settings.replica_max_overflow,
        pool_timeout=settings.replica_pool_timeout,
    )
    refuse_setbacks(engine.sync_engine, functools.partial(topology.furthest, replica.label))
    return OneReplicaEngine(engine.sync_engine, settings=settings, policy=policy, topology=topology)


def _connect_args(settings: ReplicationSettings, *, role: str) -> dict[str, typing.Any]:
    timeout = settings.connect_timeout
    if role == "replica":
        # What the monitor would call down is not worth a longer wait: the primary is there.
        timeout = min(timeout, settings.probe_timeout)
    name = f"{settings.application_name}-{role}"
    return settings.driver.pool_arguments(application_name=name, timeout=timeout)
