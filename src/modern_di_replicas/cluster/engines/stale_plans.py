"""Running a statement again whose plan a change of the schema has made invalid.

After an `ALTER TABLE`, a statement that was prepared before fails once on each server: the driver and SQLAlchemy learn
of it by the error, and prepare it anew the next time; psycopg does so after a rollback only, which autocommit has none
of. Here that next time is now, where nothing is lost by it.
"""

import typing

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext

from modern_di_replicas.drivers.known import driver_of


def run_again_when_stale(engine: Engine, *, in_transactions: bool) -> None:
    """Have statements run again whose plan is stale, where they stand alone or begin a transaction.

    SQLAlchemy has no event around the execution of a statement; this stands around `Dialect.do_execute` of the engine's
    own dialect.

    Args:
        engine: of one server.
        in_transactions: whether the first statement of a transaction is run again as well, after a rollback of what has
            done nothing. That has to be asked before each statement, and costs a little.

    """
    dialect: typing.Any = engine.dialect
    driver, do_execute = driver_of(engine), engine.dialect.do_execute

    def execute(cursor: DBAPICursor, statement: str, parameters: typing.Any, context: ExecutionContext) -> None:  # noqa: ANN401  # as `Dialect` has it
        pooled: typing.Any = context.root_connection.connection
        begins = in_transactions and not driver.is_in_transaction(pooled.driver_connection)
        try:
            do_execute(cursor, statement, parameters, context)
        except Exception as error:
            if not driver.is_stale_plan(error):
                raise
            if begins:
                pooled.dbapi_connection.rollback()
            elif driver.is_in_transaction(pooled.driver_connection):
                raise
            driver.forget_plans(pooled.dbapi_connection)
            context.handle_dbapi_exception(error)  # by this SQLAlchemy learns of it
            context.pre_exec()
            do_execute(cursor, statement, parameters, context)

    dialect.do_execute = execute
