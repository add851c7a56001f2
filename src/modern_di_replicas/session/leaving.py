"""A session that leaves its replica: for the primary, permanently, or for another replica."""

import contextlib
import dataclasses
import typing

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.orm import SessionTransaction

from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.cluster.engines.read_connections import ConnectionNotFresh, StatementNotForReplica
from modern_di_replicas.cluster.failures import MAX_CONNECTS, MAX_RUNS, Failure, classify
from modern_di_replicas.cluster.freshness import FreshRead
from modern_di_replicas.cluster.waiting import wait_for
from modern_di_replicas.errors import WriteOnReplicaError
from modern_di_replicas.intent import Intent
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.observability.events import Escalated
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import Cause, Decision, on_primary, on_replica
from modern_di_replicas.routing.statements import Need
from modern_di_replicas.session.guarded import GuardedSession


class LeavingSession(GuardedSession):
    """A session that reads from a replica, on its own connections, until it leaves it."""

    # Here and not in each session, because they seldom change: see `GuardedSession`.
    _has_been_elsewhere: bool = False
    _has_read: bool = False
    """Whether it has read from a replica: later reads may not be older."""
    _left: tuple[Connection, ...] = ()
    """Unused connections, which are returned at the end of the transaction."""
    _failed: frozenset[str] = frozenset()
    """The replicas that this unit of work has left."""
    _must_have: FreshRead | None = None
    """The freshness that each connection has to prove, if the name of the replica leads to several servers."""

    # Set by `ReplicaSession.route`.
    _intent: Intent
    _primary: Engine | Connection
    _reading: dict[Engine, Connection]
    _replica: OneReplicaRole
    _engine: Engine
    _autocommit: bool
    _executing: Engine | None = None
    """The engine of the current statement."""
    _stands_alone: bool
    """Whether its statements are independent: in autocommit, even if each is a transaction behind a pooler."""

    def _read_from(self, replica: OneReplicaRole) -> None:
        self._replica = replica
        if self._intent.isolation is None:
            self._engine, isolation = replica.sync_engine, replica.isolation
        else:
            isolation = replica.isolation_of(self._intent)
            self._engine = replica.isolated(isolation)
        self._autocommit = isolation == "AUTOCOMMIT"
        self._stands_alone = (self._intent.isolation or replica.settings.read_isolation) == "AUTOCOMMIT"

    @property
    def decision(self) -> Decision:
        """Where this unit of work runs now, and why."""
        declared, escalation = self._intent.reason, self.escalation
        if escalation is None:
            return on_replica(self.label, declared)
        return dataclasses.replace(escalation, reason=f"{declared}, escalated: {escalation.reason}")

    @property
    def label(self) -> str:
        """The name of the replica it reads from."""
        return self._replica.label

    @property
    def endpoint(self) -> str:
        """The handler of the unit of work, as `module.name`."""
        return self._intent.endpoint

    @property
    def hooks(self) -> Hooks | None:
        """The hooks; None where there are none."""
        return self._replica.topology.hooks

    # Leaving after an error

    def _leave_after(self, error: Exception, engine: Engine, *, stands_alone: bool, losses: int) -> bool:
        """Prepare to run a statement again after an error of the replica, or raise the error.

        Args:
            error: the error of the statement.
            engine: the engine on which it was run.
            stands_alone: whether it can be run again.
            losses: how often it has failed on this replica.

        Returns:
            Whether to run it elsewhere; otherwise on a new connection to the same replica.

        Raises:
            WriteOnReplicaError: it writes, and `on_write` is `raise`, or it cannot be run again at this point.
            NoReplicaAvailable: no other replica can run it, and the settings say `primary_reads=False`.

        """
        if isinstance(error, StatementNotForReplica):
            if error.foreseen.need is Need.PRIMARY:
                self.escalate_write(error.foreseen.kind)
            else:
                self.escalate(Cause.NEEDS_TRANSACTION, f"{error.foreseen.kind} needs a transaction")
            return True
        if isinstance(error, ConnectionNotFresh):
            self._replica.topology.without_replica(self._intent.group)
            self.escalate(Cause.NOT_FRESH, f"the connection to {self.label} leads to a server that is behind")
            return True
        failure = classify(error)
        if failure is Failure.OWN:
            raise error
        if failure is Failure.WRITE:
            statement = "a write that only the server could see"
            if not stands_alone:
                raise WriteOnReplicaError(endpoint=self._intent.endpoint, statement=statement) from error
            self.escalate_write(statement)
            return True
        health = self._replica.health
        ejected = failure is Failure.DOWN and health.failed(error)
        if not stands_alone:
            raise error
        if failure is Failure.LOST:
            # It is returned to the pool already; a load inside this statement may have replaced it.
            connection = self._reading.pop(engine, None)
            self._leave_connections(*filter(None, [connection]))
            tries = MAX_CONNECTS if connection is None else MAX_RUNS
            if losses < tries and not health.is_down and not self._may_go_back:
                return False
            ejected = connection is None and health.failed()
        self._replica.policy.report_loss(server=self.label, error=error, ejected=ejected)
        self._leave_replica(failure, f"failed ({type(error).__name__})", error)
        return True

    @property
    def _may_go_back(self) -> bool:
        """Whether the next connection may be less fresh than the last one: the name leads to several servers."""
        return self._has_read and self._replica.topology.leads_to_several(self.label)

    def _leave_replica(self, failure: Failure, reason: str, error: Exception | None = None) -> None:
        """Move to the primary; or to another replica, if the primary may not serve reads or is unknown."""
        replica, primary_reads = self._replica, self._replica.policy.primary_reads
        self._failed |= {replica.label}
        if not primary_reads or replica.topology.has_lost_primary:
            looking = replica.another(self._intent, without=self._failed, has_read=self._has_read)
            other = wait_for(replica.sync_engine.dialect, looking)
            if other is not None:
                self._read_from(typing.cast(OneReplicaRole, other))
                if self._unit is not None:
                    self._unit.replica = self._replica
                self._leave_connections(*self._reading.values())
                self._reading.clear()
                note_decision(self.decision)
                return
        if primary_reads:
            self.escalate(Cause.REPLICA_FAILED, f"{replica.label} {reason}")
        elif error is not None and failure is Failure.REFUSED:
            raise error
        else:
            raise replica.topology.refusal(self._intent.group) from error

    def _leave_connections(self, *connections: Connection) -> None:
        self._has_been_elsewhere = True
        self._left = (*self._left, *connections)

    # Moving to the primary

    def escalate(self, cause: Cause, reason: str, *, is_announced: bool = False) -> None:
        """Move this unit of work to the primary permanently; emit the event, unless the choice of a server has."""
        if self.escalation is None:
            self.escalation = on_primary(cause, reason)
            if isinstance(self._primary, Engine):
                self._primary = self._replica.topology.limited(self._primary, cause)
            if self._unit is not None and self._unit.escalation is None:
                self._unit.escalation = self.escalation
            self.guard.left_replica(self)
            note_decision(self.decision)
            if self.hooks is not None and not is_announced:
                self.hooks.emit(Escalated(server=self.label, cause=cause, reason=reason, endpoint=self.endpoint))

    def escalate_write(self, statement: str) -> None:
        """Move to the primary because of a write where a read was declared.

        Raises:
            WriteOnReplicaError: `on_write` is `raise`.

        """
        if self.escalation is None:
            self._replica.policy.report_write(endpoint=self._intent.endpoint, statement=statement)
            self.escalate(Cause.WROTE, statement)

    def end_reading(self) -> None:
        """Return the replica's connections at the end of a transaction."""
        while self._reading:
            _, connection = self._reading.popitem()
            _give_back(connection)
        while self._left:
            connection, *left = self._left
            self._left = tuple(left)
            _give_back(connection)


def _give_back(connection: Connection) -> None:
    try:
        connection.close()
    except BaseException:
        # Cancelled halfway, without another reference to it: older versions of SQLAlchemy leave it open.
        for end in (connection.invalidate, connection.close):
            with contextlib.suppress(ResourceClosedError):
                end()
        raise


@event.listens_for(LeavingSession, "after_transaction_end")
def _after_transaction_end(session: LeavingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.end_reading()
