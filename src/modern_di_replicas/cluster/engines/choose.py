"""The engine of a unit of work, in both halves: the primary's for a write, that of one replica for a read."""

import typing

from modern_di_replicas.cluster.engines.either import AnyEngine, PerUnitOfWork
from modern_di_replicas.cluster.engines.primary import PrimaryRole
from modern_di_replicas.cluster.engines.replica import ReplicaRole
from modern_di_replicas.consistency.client import declare_write
from modern_di_replicas.intent import Intent
from modern_di_replicas.observability.events import Decided
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import decision_of


def choose(intent: Intent, primary: AnyEngine, replica: AnyEngine) -> typing.Any:  # noqa: ANN401  # an engine of the same half
    """Return the engine a unit of work uses; see `choose_engine`."""
    if isinstance(primary, PerUnitOfWork):
        return primary.for_unit_of_work(intent)
    if intent.is_write:
        declare_write()
        if isinstance(replica, ReplicaRole):
            replica.topology.ensure_watched()
        note_decision(decision_of(primary))
        if isinstance(primary, PrimaryRole) and primary.hooks is not None:
            primary.hooks.emit(Decided(decision=primary.decision, endpoint=intent.endpoint))
        return primary
    if not isinstance(replica, ReplicaRole):
        return replica  # a test may put any engine or connection in the place of the replicas
    if not isinstance(primary, PrimaryRole):
        return primary  # or only of the primary: its writes do not reach the replicas
    chosen = replica.choose_for(intent)
    note_decision(decision_of(chosen))
    return chosen
