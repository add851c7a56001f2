"""Validate pooled connections at their checkout, at the least possible cost."""

import asyncio
import time
import typing

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from modern_di_replicas.cluster.pools.sockets import Idle, IdleSocket, limit_silence
from modern_di_replicas.cluster.punctual import wait_punctually
from modern_di_replicas.cluster.waiting import Deadline, ask, complete
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import driver_of


IDLE_SECONDS: typing.Final = 1.0
"""Seconds after a validation in which a connection is not pinged, unless something has arrived on it."""

RECHECK_SECONDS: typing.Final = 0.01
"""Seconds after a validation in which not even the socket is checked: a check is a system call.

A connection that ends during a statement is as likely, and is handled.
"""

VALIDATED: typing.Final = "modern_di_replicas.validated"
"""The key in `info` of the time when a connection was last validated.

Not when it was returned: a checkout may have held it for long without using it, and its return sends nothing where no
transaction is open.
"""

_SOCKET: typing.Final = "modern_di_replicas.socket"

_QUESTION: typing.Final = "SELECT 1 AS alive"


def validate_idle(engine: Engine, *, timeout: float, silence: float) -> None:
    """Validate a pooled connection at its checkout; replace one that has ended or does not answer.

    A closed connection is detected without a query. A connection that was validated more than `IDLE_SECONDS` ago, or
    has received bytes, is pinged: a NAT or proxy may have dropped it silently. SQLAlchemy's own pre-ping asks at every
    checkout, which costs a busy application one round trip for each unit of work, and has no timeout.

    Args:
        engine: the engine.
        timeout: timeout in seconds for the answer to a ping.
        silence: timeout in seconds for the peer of a connection in use to acknowledge sent bytes.

    """
    driver, dialect = driver_of(engine), engine.dialect
    ping = _ping if dialect.is_async else _ping_blocking

    @event.listens_for(engine, "connect")
    def _limit(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        descriptor = driver.descriptor(dialect.get_driver_connection(connection))
        if descriptor is not None:
            limit_silence(descriptor, seconds=silence)
            record.info[_SOCKET] = IdleSocket(descriptor)

    @event.listens_for(engine, "checkout")
    def _validate(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:  # noqa: ARG001  # the event's signature
        info, now = record.info, time.monotonic()
        validated = info.get(VALIDATED)
        if validated is None:
            info[VALIDATED] = now  # it is new
            return
        opened = dialect.get_driver_connection(connection)
        since, is_closed = now - validated, driver.is_closed(opened)
        if since < RECHECK_SECONDS and not is_closed:
            return
        connected: IdleSocket | None = info.get(_SOCKET)
        idle = Idle.DEAD if is_closed else Idle.QUIET if connected is None else connected.check()
        if idle is Idle.DEAD:
            driver.terminate(opened)
            raise DisconnectionError
        info[VALIDATED] = now
        if idle is Idle.QUIET and since < IDLE_SECONDS:
            return
        error = ask(dialect, connection, lambda asked: ping(driver, asked, timeout))
        if error is not None:
            raise InvalidatePoolError from error


async def _ping(driver: Driver, opened: object, timeout: float) -> Exception | None:  # noqa: ASYNC109  # not of one await
    """Ping a connection and terminate it if it does not answer; return the reason, or None when it answers."""
    asking = asyncio.ensure_future(driver.fetch_row(opened, _QUESTION))
    # Its error may arrive when no task waits for it any more, and asyncio would log it.
    asking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        answered = await wait_punctually(asking, timeout=timeout)
    except asyncio.CancelledError:
        driver.terminate(opened)
        raise
    if answered and (error := asking.exception()) is None:
        return None
    # Without asking: SQLAlchemy would wait for the answer to a termination.
    driver.terminate(opened)
    await asyncio.wait({asking})
    return TimeoutError(f"no answer to a ping within {timeout:g} s") if not answered else typing.cast(Exception, error)


async def _ping_blocking(driver: Driver, opened: object, timeout: float) -> Exception | None:  # noqa: ASYNC109  # not of one await
    """Do the same where the driver blocks: the background thread terminates a connection that does not answer."""
    with Deadline(timeout, lambda: driver.terminate(opened)) as deadline:
        try:
            complete(driver.fetch_row(opened, _QUESTION))
        except Exception as error:  # noqa: BLE001  # whatever it is, the connection is not used
            driver.terminate(opened)
            return error
    # It may have been terminated between its answer and now.
    return TimeoutError(f"no answer to a ping within {timeout:g} s") if deadline.has_passed else None
