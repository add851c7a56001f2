"""Detect a transaction pooler that is not declared in the settings."""

import logging
import typing

from sqlalchemy import Engine, ExceptionContext, event

from modern_di_replicas.drivers.known import driver_of


logger = logging.getLogger("modern_di_replicas")

_STATEMENT_NAMES: typing.Final = frozenset({"26000", "42P05"})
"""invalid_sql_statement_name and duplicate_prepared_statement: it was prepared on another connection of the server."""


def warn_of_undeclared_pooler(engine: Engine, label: str) -> None:
    """Log one warning when a prepared statement is missing on its connection, or exists on another one.

    Args:
        engine: the engine of one server.
        label: the name of the server.

    """
    driver, has_warned = driver_of(engine), False

    @event.listens_for(engine, "handle_error")
    def _warn(context: ExceptionContext) -> None:
        nonlocal has_warned
        state = driver.sqlstate(context.original_exception)
        if state in _STATEMENT_NAMES and not has_warned:
            has_warned = True
            logger.warning(
                "%s seems to be behind a pooler in transaction mode that supports no prepared statements "
                "(SQLSTATE %s): set pooled=True, for this server or in the settings.",
                label,
                state,
            )
