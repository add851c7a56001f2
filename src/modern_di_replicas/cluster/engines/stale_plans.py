"""Run a statement again when a schema change has invalidated its plan.

After an `ALTER TABLE`, a statement that was prepared before fails once on each server. The error makes the driver and
SQLAlchemy prepare it again the next time; psycopg does so only after a rollback, which autocommit does not have. Here
it is run again at once, where that is safe.
"""

import typing

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext

from modern_di_replicas.drivers.known import driver_of


def run_again_when_stale(engine: Engine, *, in_transactions: bool) -> None:
    """Run statements with a stale plan again, in autocommit or at the start of a transaction.

    SQLAlchemy has no event around the execution of a statement; this wraps `Dialect.do_execute` of the engine's own
    dialect.

    Args:
        engine: the engine of one server.
        in_transactions: whether the first statement of a transaction is run again as well, after a rollback that undoes
            nothing. This checks the transaction's state before each statement, which costs a little.

    """
    dialect: typing.Any = engine.dialect
    driver, do_execute = driver_of(engine), engine.dialect.do_execute

    def execute(cursor: DBAPICursor, statement: str, parameters: typing.Any, context: ExecutionContext) -> None:  # noqa: ANN401  # as `Dialect` has it
        pooled: typing.Any = context.root_connection.connection
        # Not `pooled.driver_connection`, which a detached connection does not have.
        opened = dialect.get_driver_connection(pooled.dbapi_connection)
        begins = in_transactions and not driver.is_in_transaction(opened)
        try:
            do_execute(cursor, statement, parameters, context)
        except Exception as error:
            if not driver.is_stale_plan(error):
                raise
            if begins:
                pooled.dbapi_connection.rollback()
            elif driver.is_in_transaction(opened):
                raise
            driver.forget_plans(pooled.dbapi_connection)
            context.handle_dbapi_exception(error)  # this invalidates SQLAlchemy's cache
            context.pre_exec()
            do_execute(cursor, statement, parameters, context)

    dialect.do_execute = execute
