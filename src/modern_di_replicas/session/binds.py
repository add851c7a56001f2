"""Take the connection of each statement: of the replica, of the primary, or of a bind of the application."""

import typing

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm.session import JoinTransactionMode
from sqlalchemy.pool import QueuePool

from modern_di_replicas.cluster.engines.read_connections import ConnectionNotFresh
from modern_di_replicas.session.own_writes import OwnWritesSession


class BoundSession(OwnWritesSession):
    """A session that reads on its own connection, `_reading`, which is not part of the `Session`'s transaction.

    A replica's failure must not affect the session's commit.
    """

    # Here and not in each session, because they seldom change: see `GuardedSession`.
    _is_elsewhere: bool = False
    """Whether the current statement runs on a bind that the application has chosen."""
    _bound: Engine
    """The replica's engine, as the `Session` is bound to it; set by `ReplicaSession.route`."""
    _given_join_mode: JoinTransactionMode

    @property
    def join_transaction_mode(self) -> JoinTransactionMode:
        """How the session joins an external transaction; see `Session`.

        On the reading connection there is nothing to commit, and no savepoint to set.
        """
        reads = self._executing is not None and self.escalation is None and not self._is_elsewhere
        return "rollback_only" if reads else self._given_join_mode

    @join_transaction_mode.setter
    def join_transaction_mode(self, mode: JoinTransactionMode) -> None:
        self._given_join_mode = mode

    def get_bind(
        self,
        mapper: typing.Any = None,  # noqa: ANN401  # as `Session` has it
        *,
        clause: typing.Any = None,  # noqa: ANN401
        bind: typing.Any = None,  # noqa: ANN401
        **options: typing.Any,
    ) -> Engine | Connection:
        if bind is not None or self.has_binds or self.bind is not self._bound:
            found = super().get_bind(mapper, clause=clause, bind=bind, **options)
            if found is not self._bound:
                self._is_elsewhere = self._has_been_elsewhere = True
                return found  # chosen by the application: bind_arguments, `binds` for this mapper, or a new `bind`
        if self.escalation is not None:
            return self._primary
        executing = self._executing
        if executing is None:
            return self._bound
        return self._reading.get(executing) or self._connect(executing)

    def note_bind(self, found: Engine | Connection) -> None:
        """Record the result of a `get_bind()` of the application's class."""
        if found is self._primary and self.escalation is not None:
            return
        if found is not self._bound and found not in self._reading.values():
            self._is_elsewhere = self._has_been_elsewhere = True

    def _connect(self, engine: Engine) -> Connection:
        """Take a connection, and store it before anything else can run."""
        with self.provisioning():
            connection = self._reading[engine] = self._replica.reads.connect(
                # A `Session` takes one connection of an engine, and keeps it until the end of the transaction.
                engine.execution_options() if self._left else engine,
                autocommit=self._autocommit,
                stands_alone=self._stands_alone,
                streams=engine is not self._engine,
            )
            if self._must_have is not None and not self._replica.reads.is_fresh(connection, self._must_have):
                self._leave_connections(self._reading.pop(engine))
                raise ConnectionNotFresh
        return connection

    def bind_mapper(self, *args: typing.Any, **options: typing.Any) -> None:
        self.has_binds = True
        super().bind_mapper(*args, **options)

    def bind_table(self, *args: typing.Any, **options: typing.Any) -> None:
        self.has_binds = True
        super().bind_table(*args, **options)

    def commit(self) -> None:
        self.check_provisioning()
        super().commit()

    def rollback(self) -> None:
        self.check_provisioning()
        super().rollback()

    @property
    def ends_at_once(self) -> bool:
        """Whether closing it awaits nothing: it has read in autocommit, and its connection is only returned."""
        replica = self._replica
        if self.escalation is not None or self._has_been_elsewhere or self.in_flight:
            return False
        if not self._autocommit or self._engine is not replica.sync_engine:
            return False
        pool: QueuePool = replica.sync_engine.pool  # type: ignore[assignment]  # we made it, and a cast costs time
        # A listener of the application may send a statement.
        return not (self.has_streamed or pool.overflow() > 0 or pool.dispatch.reset or pool.dispatch.checkin)

    def close(self) -> None:
        if self.is_provisioning:
            msg = "Method 'close()' can't be called here: this session is provisioning a new connection"
            raise IllegalStateChangeError(msg, code="isce")
        try:
            super().close()
        finally:
            if self._reading or self._left:  # a transaction does not show that its end was cancelled
                self.end_reading()
