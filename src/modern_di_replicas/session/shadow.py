"""In shadow mode a unit of work that reads runs on the primary; its writes are counted."""

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.observability.events import ShadowWrote
from modern_di_replicas.routing.statements import Need, foresee


def report_writes(session: Session, hooks: Hooks, *, endpoint: str) -> None:
    """Emit an event when a session sends its first statement that writes.

    A write by a function in a SELECT is not detected.

    Args:
        session: a session on the primary.
        hooks: receive the events.
        endpoint: the handler, as `module.name`.

    """
    reported = False

    def check_statement(  # noqa: PLR0913, PLR0917  # the event's signature
        connection: object,  # noqa: ARG001
        cursor: object,  # noqa: ARG001
        statement: str,
        parameters: object,  # noqa: ARG001
        context: object,  # noqa: ARG001
        executemany: bool,  # noqa: ARG001, FBT001
    ) -> None:
        nonlocal reported
        foreseen = None if reported else foresee(statement)
        if foreseen is not None and foreseen.need is Need.PRIMARY:
            reported = True
            hooks.emit(ShadowWrote(statement=foreseen.kind, endpoint=endpoint))

    def watch(session: Session, transaction: SessionTransaction, connection: Connection) -> None:  # noqa: ARG001
        event.listen(connection, "before_cursor_execute", check_statement)

    event.listen(session, "after_begin", watch)
