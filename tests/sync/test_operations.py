"""The table of `tests/session/test_operations.py`, on synchronous sessions."""

import collections.abc
import contextlib

import pytest
from sqlalchemy import text

from modern_di_replicas import ReplicationSettings, WriteOnReplicaError
from tests.session.test_operations import ISOLATIONS, MODES, OPERATIONS, Ends
from tests.sync.awaitable import run
from tests.sync.conftest import Servers, serving


Modes = dict[tuple[str, str], Servers]


@pytest.fixture(scope="module")
def modes(shop: ReplicationSettings) -> collections.abc.Iterator[Modes]:
    """Yield the servers in each isolation and mode, with pools that one leaked connection would exhaust."""
    with contextlib.ExitStack() as stack:
        yield {
            (isolation, on_write): stack.enter_context(
                serving(
                    shop,
                    read_isolation=isolation,
                    on_write=on_write,
                    replica_pool_size=2,
                    replica_max_overflow=0,
                    primary_pool_size=1,
                    primary_max_overflow=0,
                    primary_pool_timeout=1,
                )
            )
            for isolation in ISOLATIONS
            for on_write in MODES
        }


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("on_write", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_ends_where_it_should_with_the_right_result(
    modes: Modes, name: str, isolation: str, on_write: str
) -> None:
    """The server itself reports where the unit of work ended; every change is rolled back."""
    wanted = OPERATIONS[name]
    if name == "stream_of_a_write":
        pytest.skip("psycopg declares a cursor for a stream, which no write can have")
    servers = modes[isolation, on_write]
    with servers.session(expire_on_commit=False) as session:
        if wanted.ends is Ends.WRITES and on_write == "raise":
            with pytest.raises(WriteOnReplicaError) as caught:
                run(wanted.run, session)
            assert caught.value.endpoint == "shop.show"
            session.expunge_all()
            session.rollback()
        else:
            given = run(wanted.run, session)
            assert given == wanted.gives or name.startswith("EXPLAIN")  # whose text comes from PostgreSQL

        on_replica = (
            wanted.ends is Ends.READS
            or (wanted.ends is Ends.WRITES and on_write == "raise")
            or (wanted.ends is Ends.SETS and isolation != "AUTOCOMMIT")
        )
        assert session.scalar(text("SELECT pg_is_in_recovery()")) is on_replica
        assert (session.decision.server != "primary") is on_replica
        session.rollback()
    assert servers.checked_out() == 0
