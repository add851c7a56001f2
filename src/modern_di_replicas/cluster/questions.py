"""The queries for the state of a server, limited to the functions that the account may use.

On managed servers some functions may not be executed, or raise. A missing function is replaced by the next best one,
and finally by a constant that is the same on every server.
"""

import collections.abc
import dataclasses
import functools
import typing

from modern_di_replicas.drivers.driver import Driver, Row


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Source:
    """A function or view of PostgreSQL that not every account may use, and not every server has."""

    name: str
    kind: typing.Literal["FUNCTION", "TABLE"] = "FUNCTION"
    arguments: str = ""
    """The types of its arguments, as GRANT names them."""
    probe: str
    """An expression that uses it, on a primary as on a standby."""
    cost: str
    """The consequence of its absence, for the log."""

    def grant(self, role: str) -> str:
        """Return the statement that lets an account use it."""
        privilege = "SELECT" if self.kind == "TABLE" else "EXECUTE"
        signature = "" if self.kind == "TABLE" else f"({self.arguments})"
        return f'GRANT {privilege} ON {self.kind} pg_catalog.{self.name}{signature} TO "{role}"'


_ON_PRIMARY: typing.Final = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE {} END"
_ON_STANDBY: typing.Final = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN {} END"

SOURCES: typing.Final = {
    source.name: source
    for source in (
        Source(
            name="pg_control_system",
            probe="(SELECT system_identifier FROM pg_catalog.pg_control_system())",
            cost="another PostgreSQL cluster at the same address is not detected",
        ),
        Source(
            name="pg_control_checkpoint",
            probe="(SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())",
            cost="the timeline of a standby whose receiver has ended is not known",
        ),
        Source(
            name="pg_control_recovery",
            probe="(SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())",
            cost="the timeline of a standby whose receiver has ended may be out of date",
        ),
        Source(
            name="pg_stat_wal_receiver",
            kind="TABLE",
            probe="(SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)",
            cost="that a standby has followed a promotion is detected only at its next checkpoint",
        ),
        Source(
            name="pg_current_wal_flush_lsn",
            probe=_ON_PRIMARY.format("pg_catalog.pg_current_wal_flush_lsn()"),
            cost="the position of the primary is its write position, not its flush position",
        ),
        Source(
            name="pg_current_wal_lsn",
            probe=_ON_PRIMARY.format("pg_catalog.pg_current_wal_lsn()"),
            cost="the timeline of the primary is known at its next checkpoint only",
        ),
        Source(
            name="pg_current_wal_insert_lsn",
            probe=_ON_PRIMARY.format("pg_catalog.pg_current_wal_insert_lsn()"),
            cost="after a commit with synchronous_commit=off, the client reads from the primary",
        ),
        Source(
            name="pg_walfile_name",
            arguments="pg_lsn",
            # With a constant the planner would compute it before it is known whether the server is a standby.
            probe=_ON_PRIMARY.format(
                "pg_catalog.pg_walfile_name(('0/100000' || pg_catalog.pg_backend_pid() % 10)::pg_catalog.pg_lsn)"
            ),
            cost="the promotion of a server is detected only at its next checkpoint",
        ),
        Source(
            name="pg_last_wal_receive_lsn",
            probe=_ON_STANDBY.format("pg_catalog.pg_last_wal_receive_lsn()"),
            cost="the receive position of a standby is unknown",
        ),
        Source(
            name="pg_last_wal_replay_lsn",
            probe=_ON_STANDBY.format("pg_catalog.pg_last_wal_replay_lsn()"),
            cost="its lag is unknown, so it serves only with max_lag=None, and no reads after a write",
        ),
        Source(
            name="pg_last_xact_replay_timestamp",
            probe=_ON_STANDBY.format("pg_catalog.pg_last_xact_replay_timestamp()"),
            cost="right after the start, a lagging standby serves only after it was watched for as long as its lag",
        ),
        Source(
            name="pg_postmaster_start_time",
            probe="pg_catalog.pg_postmaster_start_time()",
            cost="a restart of a server is not detected",
        ),
    )
}
"""All sources besides `pg_is_in_recovery`."""

Missing = collections.abc.Set[str]
"""The names of sources that cannot be used."""


def _first(missing: Missing, *choices: tuple[str | None, str]) -> str:
    """Return the first expression whose source can be used."""
    return next(expression for name, expression in choices if name is None or name not in missing)


def _position(expression: str) -> str:
    return f"({expression} - '0/0'::pg_catalog.pg_lsn)::bigint"


def _of_primary(missing: Missing, *names: str) -> str:
    choices = [(name, _position(f"pg_catalog.{name}()")) for name in names]
    return _first(missing, *choices, (None, "0"))


def _timeline_of_control_file(missing: Missing) -> str:
    found = [SOURCES[name].probe for name in ("pg_control_checkpoint", "pg_control_recovery") if name not in missing]
    return f"greatest({', '.join([*found, '1'])})"


def timeline_of_primary(missing: Missing) -> str:
    """Return the expression for a primary's timeline: at once from its WAL, else from its last checkpoint."""
    if missing & {"pg_walfile_name", "pg_current_wal_lsn"}:
        return _timeline_of_control_file(missing)
    name = "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())"
    return f"('x' || pg_catalog.left({name}, 8))::pg_catalog.bit(32)::int"


def system(missing: Missing) -> str:
    """Return the expression for the identity of the PostgreSQL cluster; 0 if it is unavailable."""
    return _first(missing, ("pg_control_system", SOURCES["pg_control_system"].probe), (None, "0::bigint"))


def flushed(missing: Missing) -> str:
    """Return the expression for the flush position of a primary; 0 if it is unavailable."""
    return _of_primary(missing, "pg_current_wal_flush_lsn", "pg_current_wal_lsn", "pg_current_wal_insert_lsn")


def inserted(missing: Missing) -> str:
    """Return the expression for the insert position of a primary; 0 if it is unavailable."""
    return _of_primary(missing, "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_current_wal_flush_lsn")


@functools.lru_cache
def about_server(missing: frozenset[str], *, briefly: bool) -> str:
    """Return the query of the monitor.

    The timeline of a primary is in the name of its WAL files: after a promotion, pg_control_checkpoint() returns the
    new one only from the next checkpoint on. On a standby the receiver has it at once, but shows it only to members of
    pg_monitor; for others, and without a receiver, it is read from the control file, which may be minutes late.

    Args:
        missing: the sources that cannot be used.
        briefly: leave out the facts that never change on a connection: they take longer than the rest.

    """
    replayed = _first(
        missing,
        ("pg_last_wal_replay_lsn", f"coalesce({_position('pg_catalog.pg_last_wal_replay_lsn()')}, 0)"),
        (None, "0"),
    )
    received = _first(
        missing,
        ("pg_last_wal_receive_lsn", f"coalesce({_position('pg_catalog.pg_last_wal_receive_lsn()')}, 0)"),
        (None, replayed),
    )
    # As an interval on the server's own clock, so that the two clocks need not agree.
    behind = _first(
        missing,
        (
            "pg_last_xact_replay_timestamp",
            "extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8",
        ),
        (None, "NULL::float8"),
    )
    control_file = _timeline_of_control_file(missing)
    receiver = SOURCES["pg_stat_wal_receiver"].probe
    timeline = control_file if "pg_stat_wal_receiver" in missing else f"coalesce({receiver}, {control_file})"
    started = _first(
        missing,
        ("pg_postmaster_start_time", "pg_catalog.pg_postmaster_start_time()"),
        (None, "NULL::pg_catalog.timestamptz"),
    )
    version = "pg_catalog.current_setting('server_version')"
    identity = "" if briefly else f",\n       {started} AS started, {system(missing)} AS system, {version} AS version"
    return f"""
SELECT in_recovery,
       CASE WHEN in_recovery THEN {replayed} ELSE {flushed(missing)} END AS lsn,
       CASE WHEN in_recovery THEN {received} ELSE {inserted(missing)} END AS written,
       CASE WHEN in_recovery THEN {behind} END AS behind,
       CASE WHEN in_recovery THEN {timeline} ELSE {timeline_of_primary(missing)} END AS timeline,
       pg_catalog.current_database() AS database{identity}
FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS server
"""  # noqa: S608  # constants in a constant


def about_source(source: Source) -> str:
    """Return a query that fails where a source cannot be used."""
    return f"SELECT {source.probe} AS answer"  # a constant in a constant


Fetch = collections.abc.Callable[[str], collections.abc.Awaitable[Row]]

_OF_CONNECTIONS: typing.Final = ("08", "25P02", "28", "3D", "53", "57")
"""SQLSTATEs of the connection, the transaction or the server as a whole, not of a function."""


async def find_missing(driver: Driver, fetch: Fetch, error: Exception) -> tuple[frozenset[str], str]:
    """Return the sources that a server does not offer, and the account, after a query has failed.

    Args:
        driver: the driver.
        fetch: returns the row of a query, on the same connection.
        error: the error of the query.

    """
    missing: set[str] = set()
    if not _is_of_source(driver, error):
        return frozenset(), ""
    account = (await fetch("SELECT current_user AS account"))["account"]
    for source in SOURCES.values():
        try:
            await fetch(about_source(source))
        except Exception as refusal:
            if not _is_of_source(driver, refusal):
                raise
            missing.add(source.name)
    return frozenset(missing), account


def _is_of_source(driver: Driver, error: Exception) -> bool:
    state = driver.sqlstate(error)
    return state is not None and not state.startswith(_OF_CONNECTIONS)
