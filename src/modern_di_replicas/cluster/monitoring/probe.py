"""One round trip to one server, which says what it is."""

import asyncio
import collections.abc
import dataclasses
import time
import typing

from sqlalchemy.engine import make_url

from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.snapshot import Observation


# The timeline of a primary is in the name of its WAL files: pg_control_checkpoint() tells it only at the next
# checkpoint after a promotion. Of a standby the receiver knows it at once, but tells only servers of pg_monitor;
# for others, and without a receiver, it is what the control file has, which may be minutes late.
BRIEF_QUESTION: typing.Final = """
SELECT in_recovery,
       (CASE WHEN in_recovery THEN coalesce(pg_last_wal_replay_lsn(), '0/0')
             ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint AS lsn,
       (CASE WHEN in_recovery THEN coalesce(pg_last_wal_receive_lsn(), '0/0')
             ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint AS written,
       CASE WHEN in_recovery THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                                           greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                                                    (SELECT min_recovery_end_timeline FROM pg_control_recovery())))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline
FROM (SELECT pg_is_in_recovery() AS in_recovery) AS server
"""

QUESTION: typing.Final = f"""
SELECT answer.*,
       pg_postmaster_start_time() AS started,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database
FROM ({BRIEF_QUESTION}) AS answer
"""  # noqa: S608  # a constant in a constant


@dataclasses.dataclass(kw_only=True, slots=True)
class Probe:
    """Asks one server, on a connection of its own that it keeps.

    Args:
        url: the server.
        timeout: seconds a server has to answer, connecting included.
        connect_args: arguments of the driver's `connect`.

    """

    url: str = dataclasses.field(repr=False)
    timeout: float
    connect_args: collections.abc.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict, repr=False)
    _connection: typing.Any = None
    _identity: tuple[int, int] | None = None
    """Which PostgreSQL cluster and database the connection leads to, as the last answer said."""
    _run: tuple[int, object] | None = None
    """Which server, and since when it runs."""
    _timeline: int = 0
    """The newest timeline it was seen on since then."""
    _asking: asyncio.Future[Observation] | None = None

    @property
    def _driver(self) -> Driver:
        return driver_of(make_url(self.url))

    async def ask(self, *, briefly: bool = False) -> Observation:
        """Return what the server says of itself; those who ask at the same time share one question.

        Args:
            briefly: leave out which cluster and database it is, if it has said so on this connection: to find that out
                takes it longer than the rest.

        Raises:
            TimeoutError: it did not answer in time.
            Exception: it refuses, and the SQLSTATE says why; or it cannot be reached, or the connection broke: see
                `Driver.lost_connection`.

        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask(briefly=briefly))
            # The callers may have been cancelled by the time the answer comes.
            self._asking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        asking = self._asking
        done, _ = await asyncio.wait({asking}, timeout=self.timeout)
        if not done and asking is self._asking:
            self._abandon(asking)
        if not done or asking.cancelled():
            msg = f"no answer within {self.timeout:g} s"
            raise TimeoutError(msg)
        return asking.result()

    async def _ask(self, *, briefly: bool) -> Observation:
        if self._connection is not None and not self._driver.is_closed(self._connection):
            try:
                return await self._question(self._identity if briefly else None)
            except self._driver.lost_connection:
                # It was closed while it was idle: that says nothing of the server now. It may be half open.
                self._driver.terminate(self._connection)
        self._connection = await self._driver.connect(make_url(self.url), self.connect_args)
        return await self._question(None)

    async def _question(self, identity: tuple[int, int] | None) -> Observation:
        asked_at = time.monotonic()
        row = await self._driver.fetch_row(self._connection, QUESTION if identity is None else BRIEF_QUESTION)
        self._identity = system, database = identity or (row["system"], row["database"])
        if identity is None and self._run != (system, row["started"]):
            self._run, self._timeline = (system, row["started"]), 0
        # A standby whose receiver has ended, because its primary is gone, only knows what the control file has: perhaps
        # the timeline before. It does not go back to that while it runs.
        self._timeline = max(self._timeline, row["timeline"])
        return Observation(
            at=asked_at,
            answered=time.monotonic(),
            in_recovery=row["in_recovery"],
            lsn=row["lsn"],
            written=row["written"],
            timeline=self._timeline,
            system=system,
            database=database,
            started=None if self._run is None else self._run[1],
        )

    def _abandon(self, asking: asyncio.Future[Observation]) -> None:
        # Not by cancelling alone: the driver would ask a frozen server, politely, to forget the question.
        if self._connection is not None:
            self._driver.terminate(self._connection)
            self._connection = None
        self._asking = None
        asking.cancel()

    async def close(self) -> None:
        """Close the connection, within the time a probe has."""
        asking = self._asking
        if asking is not None and not asking.done():
            self._abandon(asking)
            await asyncio.wait({asking})
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._driver.close(connection, within=self.timeout)
