"""Route each statement of a session: to its replica, or to the primary once it has moved there."""

import collections.abc
import contextlib
import typing

from sqlalchemy import Connection, Engine, Executable, UpdateBase
from sqlalchemy.orm import Session

from modern_di_replicas.cluster.engines.catch_up import CatchUpRole
from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.cluster.engines.read_connections import (
    NotSent,
    StatementStreams,
    asks_to_stream,
)
from modern_di_replicas.cluster.failures import Failure
from modern_di_replicas.cluster.not_picklable import NotPicklable
from modern_di_replicas.cluster.waiting import wait_for
from modern_di_replicas.intent import Intent, is_primary_declared
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import Cause, on_primary
from modern_di_replicas.session.binds import BoundSession
from modern_di_replicas.session.guarded import ALL_AT_ONCE, mark_rows
from modern_di_replicas.session.re_run import reporting
from modern_di_replicas.session.unit_of_work import UnitOfWork


USE_PRIMARY: typing.Final = "use_primary"
"""The execution option that runs one statement, and the rest of its unit of work, on the primary."""

_ASKED: typing.Final = (Cause.USE_PRIMARY, f"the execution option {USE_PRIMARY}")
_DECLARED: typing.Final = (Cause.USE_PRIMARY, "use_primary()")
_NONE: typing.Final[collections.abc.Mapping[str, typing.Any]] = {}


class ReplicaSession(BoundSession, NotPicklable):
    """The synchronous half of a `RoutedSession` that reads from a replica: all of the routing.

    After an escalation it is an ordinary session on the primary.
    """

    # Here and not in each session, because they seldom change: see `GuardedSession`.
    _streams: bool = False
    _catch_up: CatchUpRole | None = None

    def route(
        self,
        *,
        replica: OneReplicaRole,
        primary: Engine | Connection,
        intent: Intent,
        catch_up: CatchUpRole | None,
        options: collections.abc.Mapping[str, typing.Any],
    ) -> None:
        """Set where the session reads and writes; called once, after its construction.

        Not arguments of `__init__`, because a class of the application may override it without them.

        Args:
            replica: the engine of one replica.
            primary: the target of an escalation.
            intent: the intent of the unit of work.
            catch_up: finds a replica that is fresh enough, before the first statement; None if `replica` is.
            options: the options of the session.

        """
        self._intent = intent
        self._bound = replica.sync_engine
        self._read_from(replica)
        self._primary = primary
        self._reading: dict[Engine, Connection] = {}
        self.watch_client()
        if catch_up is not None:
            self._catch_up = catch_up
        if options.get("binds"):
            self.has_binds = True
        always = options.get("execution_options") or _NONE
        if always or replica.options:
            self._streams = asks_to_stream(always) or asks_to_stream(replica.options)
            if "isolation_level" in always or "isolation_level" in replica.options:
                # The isolation on a replica comes from the settings or the intent.
                self.escalation = on_primary(Cause.NEEDS_TRANSACTION, "its own isolation level")
            elif always.get(USE_PRIMARY):
                self.escalation = on_primary(*_ASKED)

    def join_unit(self, unit: UnitOfWork) -> None:
        """Share a unit of work with other sessions; it begins on the primary if one of them has moved there."""
        self._unit = unit
        if unit.escalation is not None and self.escalation is None:
            is_announced = unit.escalation.cause is Cause.NOT_FRESH
            self.escalate(unit.escalation.cause, unit.escalation.reason, is_announced=is_announced)
        elif self.escalation is not None:
            unit.escalation = self.escalation
        elif unit.replica is not None:
            self._catch_up = None
            self._read_from(unit.replica)
            self._must_have = unit.must_have
        elif self._catch_up is None:
            unit.replica = self._replica

    def execute(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        return self._run(Session.execute, statement, args, options)

    def scalar(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        return self._run(Session.scalar, statement, args, options)

    def scalars(self, statement: typing.Any, *args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401
        return self._run(Session.scalars, statement, args, options)

    def get_uncached(self, entity: typing.Any, ident: typing.Any, options: dict[str, typing.Any]) -> typing.Any:  # noqa: ANN401
        given = options.get("execution_options")
        if self.escalation is None and ((given and given.get(USE_PRIMARY)) or is_primary_declared()):
            self.escalate(*_asked(given))
            options["populate_existing"] = options.get("populate_existing") or self._may_reload
        return super().get_uncached(entity, ident, options)

    @property
    def _may_reload(self) -> bool:
        """Whether the objects from the replica can be overwritten without losing a pending change."""
        return self.autoflush or not self.dirty

    def _reload(self, options: dict[str, typing.Any]) -> None:
        """Let a statement on the primary overwrite the objects from the replica."""
        if self._may_reload:
            given = options.get("execution_options") or _NONE
            options["execution_options"] = {"populate_existing": True, **given}

    def _run(
        self,
        run: collections.abc.Callable[..., typing.Any],
        statement: typing.Any,  # noqa: ANN401
        args: tuple[typing.Any, ...],
        options: dict[str, typing.Any],
    ) -> typing.Any:  # noqa: ANN401
        """Run a statement on the replica, and again on the primary if the replica cannot run it.

        Every statement of a session runs here, including those of the ORM's own loading; the event `do_orm_execute`
        would see them as well, at twice the cost.

        Raises:
            WriteOnReplicaError: it writes, and `on_write` is `raise`, or it cannot be run again at this point.

        """
        self.in_flight += 1
        try:
            return self._run_with_retries(run, statement, args, options)
        finally:
            if self.in_flight == 1:
                self._executing = None  # tasks that use the session at the same time may have set it
            self.ended()

    def _run_with_retries(
        self,
        run: collections.abc.Callable[..., typing.Any],
        statement: typing.Any,  # noqa: ANN401
        args: tuple[typing.Any, ...],
        options: dict[str, typing.Any],
    ) -> typing.Any:  # noqa: ANN401
        attempt, losses = run, 0
        given = options.get("execution_options") or _NONE
        while self.escalation is None and (engine := self._choose_engine(run, statement, options)) is not None:
            # In a requested transaction, statements after the first may rely on earlier ones, such as a SET LOCAL.
            stands_alone = self._stands_alone or not self._reading
            enclosing, self._executing = self._executing, engine
            self._is_elsewhere = False
            rows_of_replica = [True]
            is_plain = self._autocommit and engine is self._engine
            marked = options if is_plain else mark_rows(options, rows_of_replica)
            try:
                result = attempt(self, statement, *args, **marked)
            except StatementStreams:
                # Known only here: set by `Query.yield_per()`, or by a listener that has set an execution option.
                options["execution_options"] = {"stream_results": True, **given}
            except Exception as error:
                # A flush or a load inside this statement may have left the replica: then the error is the primary's.
                if self.escalation is not None or self._is_elsewhere:
                    raise
                failed_on = self.label
                losses += 1
                if self._leave_after(error, engine, stands_alone=stands_alone, losses=losses):
                    losses = 0
                if not isinstance(error, NotSent):
                    attempt = reporting(run, self, server=failed_on, error=error)
                elif error.locks_rows:
                    self._reload(options)
            else:
                if self.escalation is not None:
                    rows_of_replica.clear()  # a flush before it has moved it to the primary, where it was run
                self._has_read = True
                return result
            finally:
                self._executing = enclosing
        return self.run_on_primary(attempt, statement, args, options)

    def _choose_engine(self, run: object, statement: object, options: dict[str, typing.Any]) -> Engine | None:
        """Return the engine for a statement; None when the unit of work moves to the primary for it."""
        given = options.get("execution_options") or _NONE
        own = statement.get_execution_options() if isinstance(statement, Executable) else _NONE
        has_options = bool(given or own)
        if (has_options and (given.get(USE_PRIMARY) or own.get(USE_PRIMARY))) or is_primary_declared():
            self.escalate(*(_DECLARED if is_primary_declared() else _ASKED))
            self._reload(options)
        elif isinstance(statement, UpdateBase):
            self.escalate_write("INSERT" if statement.is_insert else "UPDATE" if statement.is_update else "DELETE")
        else:
            if not self._reading:
                self._find_replica()
            if self.lacks_own_writes:
                self.include_own_writes()
        if self.escalation is not None:
            return None
        if self._streams or (has_options and (asks_to_stream(given) or asks_to_stream(own))):
            return self._start_streaming()
        if run is not Session.scalar:  # its row has been read when it returns
            _load_all_at_once(options)
        return self._engine

    def _start_streaming(self) -> Engine:
        self.has_streamed = True
        return self._replica.streaming if self._autocommit else self._engine

    def _find_replica(self) -> None:
        """Check before the first statement that the replica can serve; otherwise move to the primary."""
        if self._catch_up is not None:
            self._wait_for_replica(self._catch_up)
        elif self._replica.health.is_down:
            self._leave_replica(Failure.DOWN, "went down")

    def _wait_for_replica(self, catch_up: CatchUpRole) -> None:
        """Read from a replica that has caught up, or from the primary if none has."""
        unit = self._unit
        if unit is None or not unit.is_settled:
            with self.provisioning():
                found = wait_for(catch_up.sync_engine.dialect, catch_up.catch_up())
        self._catch_up = None
        with contextlib.nullcontext() if unit is None else unit.lock:
            if unit is not None and unit.is_settled:  # another session of the unit of work was faster
                self.join_unit(unit)
            elif isinstance(found, OneReplicaRole):
                self._read_from(found)
                if catch_up.read.topology.leads_to_several(self.label):
                    self._must_have = catch_up.read
                if unit is not None:
                    unit.replica, unit.must_have = found, self._must_have
                note_decision(self.decision)
            else:
                self.escalate(Cause.NOT_FRESH, catch_up.decision.reason, is_announced=True)


def _load_all_at_once(options: dict[str, typing.Any]) -> None:
    given = options.get("execution_options")
    if not given:
        options["execution_options"] = ALL_AT_ONCE
    elif "prebuffer_rows" not in given:
        options["execution_options"] = ALL_AT_ONCE.union(given)


def _asked(options: collections.abc.Mapping[str, typing.Any] | None) -> tuple[Cause, str]:
    return _ASKED if options and options.get(USE_PRIMARY) else _DECLARED
