"""All of the routing: a session that reads from a replica, and moves to the primary when it must, once, for good."""

import collections.abc
import dataclasses
import time
import typing

from sqlalchemy import Connection, Engine, Executable, UpdateBase, event
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_only

from modern_di_replicas.cluster.engines.catch_up import CatchUpEngine
from modern_di_replicas.cluster.engines.one_replica import OneReplicaEngine
from modern_di_replicas.cluster.engines.read_connections import StatementNotForReplica
from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.errors import NoReplicaAvailable, WriteOnReplicaError
from modern_di_replicas.intent import Intent
from modern_di_replicas.observability.events import Escalated, ReRun
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import Cause, Decision, on_primary
from modern_di_replicas.routing.statements import Need
from modern_di_replicas.session.guarded import ALL_AT_ONCE, GuardedSession, mark_rows


CONNECTIONS_TRIED: typing.Final = 3
"""How many connections to one replica a statement is run on, when they are lost."""

USE_PRIMARY: typing.Final = "use_primary"
"""The execution option that runs one statement, and the rest of its unit of work, on the primary."""

_ASKED: typing.Final = (Cause.USE_PRIMARY, f"the execution option {USE_PRIMARY}")
_NONE: typing.Final[collections.abc.Mapping[str, typing.Any]] = {}


class ReplicaSession(GuardedSession):
    """The synchronous half of a `RoutedSession` that reads from a replica: all of the routing.

    It reads on a connection of its own, `_reading`, which the `Session` is only lent: what becomes of a replica
    must not matter to the session's commit. From the moment it escalates, it is an ordinary session on the primary.

    Args:
        replica: the engine of one replica.
        primary: where it escalates to.
        intent: what the unit of work declared.
        catch_up: finds a replica that is fresh enough, before the first statement; None where `replica` is.
        **options: those of `Session`.

    """

    # Here and not in `__init__`, because they seldom change: Python makes an object of some 30 attributes of its own
    # for half as much again.
    _is_elsewhere: bool = False
    """Whether the current statement runs on a bind the application chose."""
    _has_been_elsewhere: bool = False
    _has_read: bool = False
    """Whether it has read from a replica: what it reads next may not be older."""
    _left: tuple[Connection, ...] = ()
    """Connections that are not used any more; they end with the transaction."""
    _failed: frozenset[str] = frozenset()
    """The replicas that this unit of work has left."""
    _executing: Engine | None = None
    _streams: bool = False
    _catch_up: CatchUpEngine | None = None

    def __init__(
        self,
        bind: typing.Any = None,  # noqa: ANN401  # as `Session` has it
        *,
        replica: OneReplicaEngine,
        primary: Engine | Connection,
        intent: Intent,
        catch_up: CatchUpEngine | None = None,
        **options: typing.Any,
    ) -> None:
        super().__init__(bind=bind, **options)
        self._replica = replica
        self._bound = replica.sync_engine
        self._primary = primary
        self._intent = intent
        self._reading: dict[Engine, Connection] = {}
        if catch_up is not None:
            self._catch_up = catch_up
        if options.get("binds"):
            self.has_binds = True
        always = options.get("execution_options") or _NONE
        if always or replica.options:
            self._streams = _asks_to_stream(always)
            if "isolation_level" in always or "isolation_level" in replica.options:
                # A replica's is that of the settings.
                self.escalation = on_primary(Cause.NEEDS_TRANSACTION, "an isolation level of its own")
            elif always.get(USE_PRIMARY):
                self.escalation = on_primary(*_ASKED)

    # Where a statement goes

    def get_bind(
        self,
        mapper: typing.Any = None,  # noqa: ANN401  # as `Session` has it
        *,
        clause: typing.Any = None,  # noqa: ANN401
        bind: typing.Any = None,  # noqa: ANN401
        **options: typing.Any,
    ) -> Engine | Connection:
        if bind is not None or self.has_binds:
            found = super().get_bind(mapper, clause=clause, bind=bind, **options)
            if found is not self._bound:
                self._is_elsewhere = self._has_been_elsewhere = True
                return found  # the application chose: bind_arguments, or `binds` for this mapper
        if self.escalation is not None:
            return self._primary
        executing = self._executing
        if executing is None:
            return self._bound
        connection = self._reading.get(executing)
        if connection is None:
            # A `Session` takes one connection of an engine, and keeps it to the end of the transaction, lost or not.
            engine = executing.execution_options() if self._left else executing
            connection = self._reading[executing] = self._replica.reads.connect(engine)
        return connection

    def bind_mapper(self, *args: typing.Any, **options: typing.Any) -> None:
        self.has_binds = True
        super().bind_mapper(*args, **options)

    def bind_table(self, *args: typing.Any, **options: typing.Any) -> None:
        self.has_binds = True
        super().bind_table(*args, **options)

    def execute(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        return self._run(Session.execute, statement, args, options)

    def scalar(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        return self._run(Session.scalar, statement, args, options)

    def scalars(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        return self._run(Session.scalars, statement, args, options)

    def get(self, entity: typing.Any, ident: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        given = options.get("execution_options")
        if given and given.get(USE_PRIMARY) and self.escalation is None:
            self.escalate(*_ASKED)
            options["populate_existing"] = options.get("populate_existing") or self._may_be_read_anew
        return super().get(entity, ident, **options)

    @property
    def _may_be_read_anew(self) -> bool:
        """Whether what the session holds from the replica can be overwritten: no change of its user's is lost by it."""
        return self.autoflush or not self.dirty

    def _read_anew(self, options: dict[str, typing.Any]) -> None:
        """Have a statement on the primary overwrite what the session holds from the replica."""
        if self._may_be_read_anew:
            given = options.get("execution_options") or _NONE
            options["execution_options"] = {"populate_existing": True, **given}

    def _run(
        self,
        run: collections.abc.Callable[..., typing.Any],
        statement: typing.Any,  # noqa: ANN401
        args: tuple[typing.Any, ...],
        options: dict[str, typing.Any],
    ) -> typing.Any:  # noqa: ANN401
        """Run a statement on the replica, and again on the primary when the replica cannot do it.

        Every statement of a session comes through here, those of the ORM's own loading included; the event
        `do_orm_execute` would see them as well, for twice the work.

        Raises:
            WriteOnReplicaError: it writes, and `on_write` is `raise`, or it cannot be run again where it stands.

        """
        attempt, losses = run, 0
        while self.escalation is None and (engine := self._choose_engine(run, statement, options)) is not None:
            # In autocommit each statement stands alone. In a transaction only the first does: those after it may rely
            # on what went before, such as a SET LOCAL.
            stands_alone = self._replica.reads.autocommit or not self._reading
            enclosing, self._executing = self._executing, engine
            self._is_elsewhere = False
            rows_of_replica = [True]
            marked = mark_rows(options, rows_of_replica) if engine is self._replica.streaming else options
            try:
                result = attempt(self, statement, *args, **marked)
            except Exception as error:
                # By a flush or by a load inside this statement it may have left: then the error is the primary's.
                if self.escalation is not None or self._is_elsewhere:
                    raise
                failed_on = self.label
                losses += 1
                if self._leave_after(error, engine, stands_alone=stands_alone, losses=losses):
                    losses = 0
                if not isinstance(error, StatementNotForReplica):
                    attempt = self._reporting(run, server=failed_on, error=type(error).__name__)
                elif error.foreseen.locks_rows:
                    self._read_anew(options)  # whoever locks rows is about to change them
            else:
                if self.escalation is not None:
                    rows_of_replica.clear()  # by a flush before it, it has moved, and was run on the primary
                self._has_read = True
                return result
            finally:
                self._executing = enclosing
        return self.run_on_primary(attempt, statement, args, options)

    def _reporting(
        self, run: collections.abc.Callable[..., typing.Any], *, server: str, error: str
    ) -> collections.abc.Callable[..., typing.Any]:
        """Return what runs a statement again, and tells the hooks how that ended."""
        hooks = self._replica.topology.hooks
        if hooks is None:
            return run

        def run_again(*args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
            began, succeeded = time.monotonic(), False
            try:
                result = run(*args, **options)
                succeeded = True
                return result
            finally:
                decision = self.decision
                is_on_replica = decision.cause is Cause.REPLICA  # on a new connection, or on another replica
                hooks.emit(
                    ReRun(
                        server=server,
                        again_on=decision.server,
                        cause=Cause.REPLICA_FAILED if is_on_replica else decision.cause,
                        error=error,
                        seconds=time.monotonic() - began,
                        succeeded=succeeded,
                        endpoint=self._intent.endpoint,
                    )
                )

        return run_again

    def _choose_engine(self, run: object, statement: object, options: dict[str, typing.Any]) -> Engine | None:
        """Return the engine a statement reads on; None when the unit of work moves to the primary for it."""
        given = options.get("execution_options") or _NONE
        own = statement.get_execution_options() if isinstance(statement, Executable) else _NONE
        has_options = bool(given or own)
        if has_options and (given.get(USE_PRIMARY) or own.get(USE_PRIMARY)):
            self.escalate(*_ASKED)
            self._read_anew(options)
        elif isinstance(statement, UpdateBase):
            self.escalate_write("INSERT" if statement.is_insert else "UPDATE" if statement.is_update else "DELETE")
        elif not self._reading:
            self._find_replica()
        if self.escalation is not None:
            return None
        if self._streams or (has_options and (_asks_to_stream(given) or _asks_to_stream(own))):
            self.has_streamed = True
            return self._replica.streaming
        if run is not Session.scalar:  # which has read its row when it returns
            _load_all_at_once(options)
        return self._replica.sync_engine

    def _find_replica(self) -> None:
        """Make sure, before the first statement, that the replica can serve; move to the primary otherwise."""
        if self._catch_up is not None:
            self._wait_for_replica(self._catch_up)
        elif self._replica.health.is_down:
            self._leave_replica(Failure.DOWN, "went down")

    def _wait_for_replica(self, catch_up: CatchUpEngine) -> None:
        """Read from a replica that is fresh enough by now; from the primary when none is."""
        found = await_only(catch_up.catch_up())
        self._catch_up = None
        if isinstance(found, OneReplicaEngine):
            self._replica = found
            note_decision(self.decision)
        else:
            self.escalate(Cause.NOT_FRESH, catch_up.decision.reason)

    @property
    def decision(self) -> Decision:
        """Where this unit of work runs now, and why."""
        declared, escalation = self._intent.reason, self.escalation
        if escalation is None:
            return Decision(server=self.label, cause=Cause.REPLICA, reason=declared)
        return dataclasses.replace(escalation, reason=f"{declared}, escalated: {escalation.reason}")

    @property
    def label(self) -> str:
        """The name of the replica it reads from."""
        return self._replica.label

    def _leave_after(self, error: Exception, engine: Engine, *, stands_alone: bool, losses: int) -> bool:
        """Have a statement run again after an error of the replica, or raise the error.

        Args:
            error: what the statement met.
            engine: where it was run.
            stands_alone: whether it can be run again.
            losses: how often it has failed on this replica.

        Returns:
            Whether it is run elsewhere; otherwise it is run on a new connection to the same replica.

        Raises:
            WriteOnReplicaError: it writes, and `on_write` is `raise`, or it cannot be run again where it stands.
            NoReplicaAvailable: no other replica can run it, and the settings say `primary_reads=False`.

        """
        if isinstance(error, StatementNotForReplica):
            if error.foreseen.need is Need.PRIMARY:
                self.escalate_write(error.foreseen.kind)
            else:
                self.escalate(Cause.NEEDS_TRANSACTION, f"{error.foreseen.kind} needs a transaction")
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
        ejected = failure is Failure.DOWN and health.failed()
        if not stands_alone:
            raise error
        if failure is Failure.LOST:
            if (connection := self._reading.pop(engine, None)) is not None:
                self._leave_connections(connection)  # its place in the pool is free already
            if losses < CONNECTIONS_TRIED and not health.is_down:
                return False
        self._replica.policy.report_loss(server=self.label, error=error, ejected=ejected)
        self._leave_replica(failure, f"failed ({type(error).__name__})", error)
        return True

    def _leave_replica(self, failure: Failure, reason: str, error: Exception | None = None) -> None:
        """Move to the primary; or to another replica, where the primary is not to read or is not known."""
        replica, primary_reads = self._replica, self._replica.policy.primary_reads
        self._failed |= {replica.label}
        if not primary_reads or replica.topology.has_lost_primary:
            other = await_only(replica.another(self._intent, without=self._failed, has_read=self._has_read))
            if other is not None:
                self._replica = typing.cast(OneReplicaEngine, other)
                self._leave_connections(*self._reading.values())
                self._reading.clear()
                return
        if primary_reads:
            self.escalate(Cause.REPLICA_FAILED, f"{replica.label} {reason}")
        elif error is not None and failure is Failure.REFUSED:
            raise error
        else:
            raise NoReplicaAvailable(group=self._intent.group) from error

    def _leave_connections(self, *connections: Connection) -> None:
        self._has_been_elsewhere = True
        self._left = (*self._left, *connections)

    # Moving to the primary

    def escalate(self, cause: Cause, reason: str) -> None:
        """Move this unit of work to the primary, to its end."""
        if self.escalation is None:
            self.escalation = on_primary(cause, reason)
            self.guard.left_replica(self)
            note_decision(self.decision)
            if (hooks := self._replica.topology.hooks) is not None and cause is not Cause.NOT_FRESH:
                hooks.emit(Escalated(server=self.label, cause=cause, reason=reason, endpoint=self._intent.endpoint))

    def escalate_write(self, statement: str) -> None:
        """Move to the primary because of a write where a read was declared.

        Raises:
            WriteOnReplicaError: `on_write` is `raise`.

        """
        if self.escalation is None:
            self._replica.policy.report_write(endpoint=self._intent.endpoint, statement=statement)
            self.escalate(Cause.WROTE, statement)

    @property
    def ends_at_once(self) -> bool:
        """Whether closing it awaits nothing: it has read in autocommit, and its pool just takes the connection back."""
        replica = self._replica
        if self.escalation is not None or self._has_been_elsewhere or not replica.reads.autocommit:
            return False
        pool: QueuePool = replica.sync_engine.pool  # type: ignore[assignment]  # we made it, and a cast costs time
        has_streamed = len(self._reading) > (replica.sync_engine in self._reading)
        # A listener of the application may send something.
        return not (has_streamed or pool.overflow() > 0 or pool.dispatch.reset or pool.dispatch.checkin)

    def end_reading(self) -> None:
        """Give the replica's connections back, at the end of a transaction."""
        while self._reading:
            _, connection = self._reading.popitem()
            connection.close()
        while self._left:
            connection, *left = self._left
            self._left = tuple(left)
            connection.close()

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._reading or self._left:  # a transaction whose end is cancelled does not say so
                self.end_reading()

    def check_flush(self) -> None:
        """Move to the primary before a flush, and check that nothing stale is written.

        Raises:
            WriteOnReplicaError: `on_write` is `raise`.
            StaleWriteError: the flush would overwrite a row with what a replica had.

        """
        if self.new:
            self.escalate_write("INSERT")
        elif self.deleted:
            self.escalate_write("DELETE")
        elif any(self.is_modified(instance) for instance in self.dirty):
            self.escalate_write("UPDATE")
        self.escalate(Cause.WROTE, "flush")
        self.check_changes()

    # What writes without a statement of its own

    def connection(self, *args: typing.Any, **options: typing.Any) -> Connection:
        # What its user will do with it cannot be foreseen, nor run again.
        self.escalate(Cause.NEEDS_TRANSACTION, "connection()")
        return super().connection(*args, **options)

    def begin_nested(self) -> SessionTransaction:
        self.escalate_write("SAVEPOINT")
        return super().begin_nested()

    def merge(self, instance: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        self.escalate_write("merge()")
        return super().merge(instance, *args, **options)

    def bulk_save_objects(
        self, objects: collections.abc.Iterable[object], *args: typing.Any, **options: typing.Any
    ) -> None:
        self.escalate_write("bulk_save_objects()")
        saved = list(objects)
        for instance in filter(self.has_had, saved):
            self.check_written(instance, self.guard.check_object)
        super().bulk_save_objects(saved, *args, **options)

    def bulk_insert_mappings(self, *args: typing.Any, **options: typing.Any) -> None:
        self.escalate_write("bulk_insert_mappings()")
        super().bulk_insert_mappings(*args, **options)

    def bulk_update_mappings(self, *args: typing.Any, **options: typing.Any) -> None:
        self.escalate_write("bulk_update_mappings()")
        super().bulk_update_mappings(*args, **options)


def _load_all_at_once(options: dict[str, typing.Any]) -> None:
    given = options.get("execution_options")
    if not given:
        options["execution_options"] = ALL_AT_ONCE
    elif "prebuffer_rows" not in given:
        options["execution_options"] = ALL_AT_ONCE.union(given)


def _asks_to_stream(options: collections.abc.Mapping[str, typing.Any]) -> bool:
    return bool(options.get("stream_results") or options.get("yield_per"))


@event.listens_for(ReplicaSession, "before_flush")
def _before_flush(session: ReplicaSession, context: UOWTransaction, instances: object) -> None:  # noqa: ARG001
    session.check_flush()


@event.listens_for(ReplicaSession, "after_transaction_end")
def _after_transaction_end(session: ReplicaSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.end_reading()
