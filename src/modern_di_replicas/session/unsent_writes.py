"""Move to the primary before operations that write later, without a separate statement."""

import collections.abc
import typing

from sqlalchemy import Connection, event
from sqlalchemy.orm import SessionTransaction, UOWTransaction

from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.session.leaving import LeavingSession


class UnsentWritesSession(LeavingSession):
    """A session whose flushes, savepoints, merges and bulk operations move it to the primary before they begin."""

    def check_flush(self) -> None:
        """Move to the primary before a flush, and check that nothing stale is written.

        Raises:
            WriteOnReplicaError: `on_write` is `raise`.
            StaleWriteError: the flush would overwrite a row with values of a replica.

        """
        if self.new:
            self.escalate_write("INSERT")
        elif self.deleted:
            self.escalate_write("DELETE")
        elif any(self.is_modified(instance) for instance in self.dirty):
            self.escalate_write("UPDATE")
        self.escalate(Cause.WROTE, "flush")
        self.check_changes()

    def connection(self, *args: typing.Any, **options: typing.Any) -> Connection:
        # Later use of the connection can be neither foreseen nor run again.
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
        for instance in filter(self.has_contained, saved):
            self.check_written(instance, self.guard.check_object)
        super().bulk_save_objects(saved, *args, **options)

    def bulk_insert_mappings(self, *args: typing.Any, **options: typing.Any) -> None:
        self.escalate_write("bulk_insert_mappings()")
        super().bulk_insert_mappings(*args, **options)

    def bulk_update_mappings(self, *args: typing.Any, **options: typing.Any) -> None:
        self.escalate_write("bulk_update_mappings()")
        super().bulk_update_mappings(*args, **options)


@event.listens_for(UnsentWritesSession, "before_flush")
def _before_flush(session: UnsentWritesSession, context: UOWTransaction, instances: object) -> None:  # noqa: ARG001  # the event's signature
    session.check_flush()
