"""Ask every server, and return the facts."""

import asyncio
import collections.abc
import contextlib
import json
import time
import typing

from sqlalchemy import make_url

from modern_di_replicas.cluster.connecting import is_pooled
from modern_di_replicas.doctor.facts import Examination, Facts, Pooling, Pools, Slot
from modern_di_replicas.doctor.questions import (
    ACCESS,
    BUSY,
    CONFIGURATION,
    CONNECTION,
    IDENTITY,
    PROCESS,
    SLOTS,
    SYSTEM,
    WAL,
)
from modern_di_replicas.drivers.driver import Row
from modern_di_replicas.servers import DeclaredServer, Primary
from modern_di_replicas.settings import ReplicationSettings


CATCH_UP: typing.Final = 2.0
"""Timeout in seconds for a replica to replay up to the primary's position at its query."""

PAUSE: typing.Final = 0.05

REPETITIONS: typing.Final = 6
"""How often a driver executes a statement at most before it prepares it: psycopg five times, asyncpg never."""

Clock = collections.abc.Callable[[], float]
Span = tuple[float, float]
"""The time of this machine before a query and after its answer."""


async def examine(settings: ReplicationSettings, *, workers: int, clock: Clock = time.time) -> Examination:
    """Ask every server of the settings.

    Args:
        settings: the servers, and the pools of the application.
        workers: how many processes run the application.
        clock: the time of this machine, in seconds since 1970.

    """
    declared: list[DeclaredServer] = [settings.declared_primary, *settings.servers]
    examined = [Examined(settings, server, clock) for server in declared]
    await asyncio.gather(*(one.ask_everything() for one in examined))
    await _compare_positions(examined)
    await asyncio.gather(*(one.close() for one in examined))
    pools = Pools(
        workers=workers,
        primary=settings.primary_pool_size + settings.primary_max_overflow,
        replica=settings.replica_pool_size + settings.replica_max_overflow,
    )
    return Examination(servers=tuple(one.facts for one in examined), pools=pools)


async def _compare_positions(examined: collections.abc.Sequence["Examined"]) -> None:
    primary, *replicas = examined
    written = await primary.position()
    if written is not None:
        await asyncio.gather(*(replica.reach(written) for replica in replicas))


class Examined:
    """One server, on its own connection.

    Args:
        settings: the connection arguments.
        server: the server.
        clock: the time of this machine.

    """

    def __init__(self, settings: ReplicationSettings, server: DeclaredServer, clock: Clock) -> None:
        self._settings = settings
        self._server = server
        self._driver = settings.driver
        self._url = make_url(server.url)
        self._clock = clock
        self._connection: typing.Any = None
        max_lag = settings.max_lag
        if not isinstance(server, Primary) and server.max_lag is not None:
            max_lag = server.max_lag
        self.facts = Facts(
            name=server.label,
            declared="primary" if isinstance(server, Primary) else "replica",
            host=self._url.host or "",
            is_declared_pooled=is_pooled(settings, server),
            max_lag=None if max_lag is None else max_lag.total_seconds(),
        )

    async def ask_everything(self) -> None:
        """Connect, and run every query."""
        try:
            self._connection = await self._connect()
        except Exception as error:  # noqa: BLE001  # in how many ways it fails is what is to be told
            self.facts.unreachable = self._described(error)
            return
        self.facts.reports_standby = self._driver.reports_standby(self._connection)
        for name, question, note in QUESTIONS:
            before = self._clock()
            row = await self._ask(name, question)
            if row is not None:
                note(self.facts, row, (before, self._clock()))
        await self._look_for_pooler()

    async def position(self) -> int | None:
        """Return the server's position in the WAL; None if unknown."""
        row = None if self._connection is None else await self._ask("wal", WAL)
        return None if row is None else int(row["lsn"])

    async def reach(self, written: int) -> None:
        """Wait until a replica has reached the primary's position, and record its remaining lag."""
        began = time.monotonic()
        deadline = began + min(CATCH_UP, self.facts.max_lag or CATCH_UP)
        while (position := await self.position()) is not None:
            self.facts.behind = max(0, written - position)
            if self.facts.behind == 0 or time.monotonic() > deadline:
                break
            await asyncio.sleep(PAUSE)
        self.facts.waited = time.monotonic() - began

    async def close(self) -> None:
        if self._connection is not None:
            await self._driver.close(self._connection, within=1.0)

    async def _connect(self, *, pooled: bool = True) -> typing.Any:  # noqa: ANN401  # the driver's own type
        # As behind a pooler: that works everywhere.
        arguments = self._driver.connect_args(
            {**self._settings.connect_args, **self._server.connect_args},
            application_name=f"{self._settings.application_name}-doctor",
            timeout=self._settings.connect_timeout,
            pooled=pooled,
        )
        return await asyncio.wait_for(
            self._driver.connect(self._url, arguments), timeout=self._settings.connect_timeout
        )

    async def _ask(self, name: str, question: str) -> Row | None:
        try:
            asked = self._driver.fetch_row(self._connection, question)
            return await asyncio.wait_for(asked, timeout=self._settings.connect_timeout)
        except Exception as error:  # noqa: BLE001  # the error is the answer
            self.facts.errors[name] = self._described(error)
            return None

    async def _look_for_pooler(self) -> None:
        """Open another connection: a pooler gives both the same process, or processes they were not told of."""
        try:
            other = await self._connect(pooled=self.facts.is_declared_pooled)
        except Exception as error:  # noqa: BLE001  # the error is the answer
            self.facts.errors["a second connection"] = self._described(error)
            return
        try:
            first = await self._driver.fetch_row(self._connection, PROCESS)
            second = await self._driver.fetch_row(other, PROCESS)
            self.facts.pooling = _pooling(first["pid"], second["pid"], reported=reported_process(other))
            if self.facts.pooling == "transaction":
                await self._execute_elsewhere(other)
        except Exception as error:  # noqa: BLE001  # the error is the answer
            self.facts.prepared_statements = self._described(error)
        finally:
            with contextlib.suppress(Exception):
                await self._driver.close(other, within=1.0)

    async def _execute_elsewhere(self, other: typing.Any) -> None:  # noqa: ANN401  # the driver's own type
        """Execute a prepared statement in a process that has not prepared it: the one that has is busy."""
        for _ in range(REPETITIONS):
            await self._driver.fetch_row(other, PROCESS)
        busy = asyncio.create_task(self._ask("busy", BUSY))
        while not busy.done():
            await asyncio.sleep(PAUSE)  # first, so that the other connection has the process
            await self._driver.fetch_row(other, PROCESS)

    def _described(self, error: BaseException) -> str:
        state = self._driver.sqlstate(error)
        words = str(error).strip().splitlines() or ["no answer in time"]
        return f"{type(error).__name__}: {words[0]}" + (f" ({state})" if state else "")


def reported_process(connection: typing.Any) -> int:  # noqa: ANN401  # the driver's own type
    """Return the process id that the server, or a pooler, has reported at the connect."""
    get = getattr(connection, "get_server_pid", None)  # asyncpg's way; psycopg has it in `info`
    return int(connection.info.backend_pid if get is None else get())


def _pooling(first: int, second: int, *, reported: int) -> Pooling:
    if first == second:
        return "transaction"
    return "none" if reported == second else "session"


def _note_identity(facts: Facts, row: Row, asked: Span) -> None:
    facts.in_recovery, facts.database = row["in_recovery"], row["database"]
    facts.started, facts.version = row["started"], row["version"].split()[0]
    facts.clock_offset = _offset(row["clock"], *asked)


def _note_settings(facts: Facts, row: Row, _: Span) -> None:
    facts.settings = json.loads(row["settings"])
    facts.uses_slot = facts.settings.get("primary_slot_name", "") != ""


def _note_slots(facts: Facts, row: Row, _: Span) -> None:
    facts.slots = [Slot(**slot) for slot in json.loads(row["slots"])]


def _note_system(facts: Facts, row: Row, _: Span) -> None:
    facts.system = row["system"]


def _note_wal(facts: Facts, row: Row, _: Span) -> None:
    facts.timeline, facts.replay_paused = row["timeline"], row["replay_paused"]


def _note_access(facts: Facts, row: Row, _: Span) -> None:
    facts.sees_statistics, facts.role_limit = row["sees_statistics"], row["role_limit"]
    facts.connections = row["connections"]


def _note_connection(facts: Facts, row: Row, _: Span) -> None:
    facts.is_encrypted, facts.is_local = row["is_encrypted"], row["is_local"]


QUESTIONS: typing.Final[tuple[tuple[str, str, collections.abc.Callable[[Facts, Row, Span], None]], ...]] = (
    ("identity", IDENTITY, _note_identity),
    ("system", SYSTEM, _note_system),
    ("wal", WAL, _note_wal),
    ("settings", CONFIGURATION, _note_settings),
    ("slots", SLOTS, _note_slots),
    ("access", ACCESS, _note_access),
    ("connection", CONNECTION, _note_connection),
)


def _offset(theirs: float, before: float, after: float) -> float:
    """Return by how much a clock is ahead; 0 if the time of the answer could explain it."""
    if before <= theirs <= after:
        return 0.0
    return theirs - (after if theirs > after else before)
