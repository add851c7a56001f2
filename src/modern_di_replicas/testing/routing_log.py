"""Record which server ran which statement, by asking the servers and not the library."""

import collections.abc
import contextlib
import dataclasses
import typing

from sqlalchemy import Connection, Engine, event

from modern_di_replicas.cluster.direct_use import EXPECTED, info_of
from modern_di_replicas.routing.statements import Need, foresee
from modern_di_replicas.testing.shared_connection import TakingTurns


# The name of a server in a LocalCluster, or its address. A transaction that has written has an id.
_SERVER_QUERY: typing.Final = """
SELECT pg_catalog.pg_is_in_recovery(),
       coalesce(nullif(pg_catalog.current_setting('cluster_name'), ''),
                pg_catalog.host(pg_catalog.inet_server_addr()) || ':' || pg_catalog.inet_server_port()),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN false
            ELSE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL END
"""


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Visit:
    """One statement, and the server that ran it."""

    server: str
    """`primary`, or the name of the replica; without a `cluster_name`, its address."""
    is_replica: bool
    wrote: bool
    """Whether the statement, or its transaction so far, has written."""
    statement: str

    def __str__(self) -> str:
        return f"{self.server}{' (wrote)' if self.wrote else ''}: {' '.join(self.statement.split())}"


@dataclasses.dataclass(slots=True)
class RoutingLog:
    """The statements of a block, in their order."""

    visits: list[Visit] = dataclasses.field(default_factory=list)

    @property
    def servers(self) -> list[str]:
        """The server of each statement."""
        return [visit.server for visit in self.visits]

    def clear(self) -> None:
        """Forget the statements so far."""
        self.visits.clear()

    def assert_only_replicas(self) -> None:
        """Assert that there were statements, and that replicas ran all of them."""
        self._assert("no statement was run on a replica", ok=bool(self.visits))
        self._assert("the primary ran statements", ok=all(visit.is_replica for visit in self.visits))

    def assert_only_primary(self) -> None:
        """Assert that there were statements, and that the primary ran all of them."""
        self._assert("no statement was run on the primary", ok=bool(self.visits))
        self._assert("replicas ran statements", ok=not any(visit.is_replica for visit in self.visits))

    def assert_nothing_written(self) -> None:
        """Assert that no statement wrote."""
        self._assert("statements wrote", ok=not any(visit.wrote for visit in self.visits))

    def _assert(self, problem: str, *, ok: bool) -> None:
        if not ok:
            raise AssertionError("\n".join([f"{problem}:", *map(str, self.visits)]))


@contextlib.contextmanager
def routing_log() -> collections.abc.Iterator[RoutingLog]:
    """Record which server runs each statement of SQLAlchemy in this block.

    It asks the server after each statement, on the same connection: for tests, not for production.
    """
    log = RoutingLog()

    def ask(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        info = info_of(connection.connection)
        info[EXPECTED] = _SERVER_QUERY  # bypasses SQLAlchemy, so that it does not count as a write of the application
        cursor = connection.connection.cursor()
        cursor.execute(_SERVER_QUERY)
        is_replica, name, has_written = cursor.fetchall()[0]
        cursor.close()
        opened = connection.connection.dbapi_connection
        if isinstance(opened, TakingTurns):
            opened.ended(cursor)  # it counts other open cursors as statements in progress
        foreseen = foresee(statement)
        writes = not is_replica and foreseen is not None and foreseen.need is Need.PRIMARY
        server = name if is_replica else "primary"
        log.visits.append(Visit(server=server, is_replica=is_replica, wrote=has_written or writes, statement=statement))

    event.listen(Engine, "after_cursor_execute", ask)
    try:
        yield log
    finally:
        event.remove(Engine, "after_cursor_execute", ask)
