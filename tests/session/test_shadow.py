"""In shadow mode, writes in reading units of work are counted; on SQLite, because only the text matters."""

import collections.abc

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from modern_di_replicas.observability import ShadowWrote
from modern_di_replicas.observability.emission import Hooks
from modern_di_replicas.session.shadow import report_writes
from tests.observability.recorder import Recorder


@pytest.fixture
def session() -> collections.abc.Iterator[Session]:
    engine = create_engine("sqlite://")
    yield Session(engine)
    engine.dispose()


def written(session: Session, *statements: str) -> list[tuple[str, str]]:
    recorder = Recorder()
    report_writes(session, Hooks([recorder]), endpoint="shop.show")
    with session:
        for statement in statements:
            session.execute(text(statement))
            session.commit()
    return [(event.statement, event.endpoint) for event in recorder.of(ShadowWrote)]


def test_only_the_first_write_is_reported(session: Session) -> None:
    """A unit of work would have moved to the primary once, whatever its transactions."""
    statements = ("SELECT 1", "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)", "DELETE FROM t")
    assert written(session, *statements) == [("CREATE", "shop.show")]


def test_a_read_is_not_reported(session: Session) -> None:
    """Even if its text mentions a write."""
    assert written(session, "SELECT 'UPDATE t SET n = 1'") == []
