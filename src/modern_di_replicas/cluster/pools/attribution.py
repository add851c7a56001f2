"""Attribute the errors of checkouts to the server or to the application; see `failures`."""

import typing

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from modern_di_replicas.cluster.failures import Failure, classify_connecting, note_failure
from modern_di_replicas.drivers.known import driver_of


def attribute_checkouts(engine: Engine) -> None:
    """Classify the errors of an engine's checkouts.

    Errors of connecting are the server's. An error in a listener to "checkout" is the server's only if the connection
    is lost: the pool invalidates the connection after any such error, and the event has both.
    """
    driver, connect = driver_of(engine), engine.dialect.connect

    def open_connection(*args: typing.Any, **options: typing.Any) -> DBAPIConnection:
        try:
            return connect(*args, **options)
        except Exception as error:
            note_failure(error, classify_connecting(error, driver.sqlstate(error)))
            raise

    # SQLAlchemy has no event around the driver's `connect` alone; the dialect is the engine's own.
    typing.cast(typing.Any, engine.dialect).connect = open_connection

    @event.listens_for(engine, "invalidate")
    def _attribute(connection: DBAPIConnection, record: object, error: BaseException | None) -> None:  # noqa: ARG001  # the event's signature
        """Classify an error after which a connection is given up; errors of statements are classified already."""
        if error is not None:
            is_gone = driver.is_lost(error) or driver.is_closed(engine.dialect.get_driver_connection(connection))
            note_failure(error, Failure.LOST if is_gone else Failure.OWN)
