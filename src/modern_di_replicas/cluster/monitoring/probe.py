"""Probe one server: one round trip that returns its role and position."""

import asyncio
import collections.abc
import dataclasses
import functools
import time
import typing

from sqlalchemy.engine import make_url

from modern_di_replicas.cluster.names import names
from modern_di_replicas.cluster.punctual import wait_punctually
from modern_di_replicas.cluster.questions import about_server, find_missing
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.routing.snapshot import Observation


@dataclasses.dataclass(kw_only=True, slots=True)
class Probe:
    """Asks one server, on its own persistent connection.

    Args:
        url: the server.
        timeout: timeout in seconds for an answer, connecting included; time in which our event loop was late is not
            counted.
        connect_args: arguments of the driver's `connect`.

    """

    url: str = dataclasses.field(repr=False)
    timeout: float
    connect_args: collections.abc.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict, repr=False)
    missing: frozenset[str] = frozenset()
    """The sources that the server does not offer."""
    account: str = ""
    """The role of the connection, as the server reported it when a privilege was missing."""
    has_replaced_silent: bool = False
    """Whether a connection has been silent while a new one was answered, since this was last set to False."""
    _kept: typing.Any = None
    """The connection that is kept."""
    _second: typing.Any = None
    """The connection that replaces it, if it is answered."""
    _identity: int | None = None
    """The system identifier of the PostgreSQL cluster, from the last answer."""
    _run: tuple[int, object] | None = None
    """The system identifier of the server, and the time of its start."""
    _version: str = ""
    _timeline: int = 0
    """Its newest timeline since then."""
    _asking: asyncio.Future[Observation] | None = None
    _running: set[asyncio.Future[Observation]] = dataclasses.field(default_factory=set)
    """The running queries, including abandoned ones: a connection is closed when its query has ended."""

    @property
    def _driver(self) -> Driver:
        return driver_of(make_url(self.url))

    def descriptors(self) -> list[int]:
        """Return the file descriptors of its open connections."""
        found = [self._driver.descriptor(opened) for opened in (self._kept, self._second) if opened is not None]
        return [descriptor for descriptor in found if descriptor is not None]

    async def ask(self, *, briefly: bool = False) -> Observation:
        """Return the server's answer; concurrent callers share one query.

        Args:
            briefly: leave out the identity of the cluster, if it is known for this connection: it takes longer than the
                rest.

        Raises:
            TimeoutError: it did not answer in time.
            Exception: it refuses, and the SQLSTATE says why; or it cannot be reached, or the connection broke: see
                `Driver.lost_connection`.

        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask(briefly=briefly))
            # The callers may have been cancelled by the time the answer comes.
            self._asking.add_done_callback(_retrieve)
        asking = self._asking
        answered = await wait_punctually(asking, timeout=self.timeout)
        if not answered and asking is self._asking:
            self._abandon(asking)
        if not answered or asking.cancelled() or isinstance(asking.exception(), TimeoutError):
            msg = f"no answer within {self.timeout:g} s"
            raise TimeoutError(msg)
        return asking.result()

    async def _ask(self, *, briefly: bool) -> Observation:
        kept = self._kept
        if kept is None or self._driver.is_closed(kept):
            return await self._ask_on_new_connection()
        asking = self._start(self._question(kept, self._identity if briefly else None))
        if await wait_punctually(asking, timeout=self.timeout / 2):
            try:
                return asking.result()
            except self._driver.lost_connection:
                # It was closed while it was idle, which does not mean that the server is down.
                return await self._ask_on_new_connection()
        # Maybe only this connection is silent, and not the server: another one shows that.
        second = self._start(self._ask_on_new_connection())
        try:
            await asyncio.wait({asking, second}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and second.exception() is not None:
                return await asking
            if asking.done() and asking.exception() is None:
                return asking.result()
            seen = await second
        finally:
            if not second.done():
                self._end(self._second)
                second.cancel()
        self.has_replaced_silent = True
        return seen

    def _start(
        self, question: collections.abc.Coroutine[typing.Any, typing.Any, Observation]
    ) -> asyncio.Future[Observation]:
        running = asyncio.ensure_future(question)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        running.add_done_callback(_retrieve)
        return running

    async def _ask_on_new_connection(self) -> Observation:
        """Ask on a new connection, and keep it if it is answered."""
        url = make_url(self.url)
        await names.find(url.host or url.query.get("host"), timeout=self.timeout)
        self._second = opened = await self._driver.connect(url, self.connect_args)
        self.missing = frozenset()  # it may lead to another server, or have more privileges now
        if self._run is not None and self._run[1] is None:
            self._run = None
        try:
            seen = await self._question(opened, None)
        except BaseException:
            self._end(opened)
            raise
        self._end(self._kept)  # it may be half open
        self._kept, self._second = opened, None
        return seen

    async def _question(self, connection: object, identity: int | None) -> Observation:
        try:
            return await self._observe(connection, identity)
        finally:
            if connection not in (self._kept, self._second):
                self._end(connection)  # it was abandoned meanwhile; psycopg closes no connection during a query

    async def _observe(self, connection: object, identity: int | None) -> Observation:
        asked_at = time.monotonic()
        try:
            row = await self._driver.fetch_row(connection, about_server(self.missing, briefly=identity is not None))
        except Exception as error:
            if not await self._asks_less(connection, error):
                raise
            asked_at = time.monotonic()
            row = await self._driver.fetch_row(connection, about_server(self.missing, briefly=identity is not None))
        self._identity = system = row["system"] if identity is None else identity
        if identity is None:
            self._version = row["version"].split()[0]
        if identity is None and self._run != (system, row["started"]):
            self._run, self._timeline = (system, row["started"]), 0
        # A standby whose receiver has ended, because its primary is gone, reads its timeline from the control file,
        # which may be the previous one. While a server runs, its timeline does not go back.
        self._timeline = max(self._timeline, row["timeline"])
        return Observation(
            at=asked_at,
            answered=time.monotonic(),
            in_recovery=row["in_recovery"],
            lsn=row["lsn"],
            written=row["written"],
            timeline=self._timeline,
            system=system,
            database=row["database"],
            behind=row["behind"],
            version=self._version,
            started=None if self._run is None else self._run[1],
        )

    async def _asks_less(self, connection: object, error: Exception) -> bool:
        """Find the sources that the server does not offer; return whether there are new ones."""
        missing, account = await find_missing(
            self._driver, functools.partial(self._driver.fetch_row, connection), error
        )
        if missing <= self.missing:
            return False
        self.missing, self.account = missing, account
        return True

    def _end(self, connection: object) -> None:
        if connection is not None:
            self._driver.terminate(connection)

    def _abandon(self, asking: asyncio.Future[Observation]) -> None:
        # Cancelling alone is not enough: the driver would ask a frozen server to cancel the query.
        for connection in (self._kept, self._second):
            self._end(connection)
        self._kept = self._second = self._asking = None
        asking.cancel()

    async def close(self) -> None:
        """Close the connection, within the timeout of a probe."""
        asking = self._asking
        if asking is not None and not asking.done():
            self._abandon(asking)
            await asyncio.wait({asking})
        if self._running:
            await asyncio.wait(self._running, timeout=self.timeout)
        connection, self._kept = self._kept, None
        if connection is not None:
            await self._driver.close(connection, within=self.timeout)


def _retrieve(ended: asyncio.Future[Observation]) -> None:
    """Retrieve the error of an abandoned query, or asyncio would log it."""
    if not ended.cancelled():
        ended.exception()
