import hypothesis
import pytest
from hypothesis import strategies as st

from modern_di_replicas.routing.statements import Foreseen, Need, foresee


WRITES = {
    "INSERT INTO t VALUES (1)": "INSERT",
    "  \n update t set a = 1": "UPDATE",
    "; DELETE FROM t": "DELETE",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING": "MERGE",
    "WITH a AS (SELECT 1), b AS (DELETE FROM t RETURNING *) SELECT * FROM b": "DELETE",
    "WITH a AS (UPDATE s.t AS x SET a = 1 RETURNING *) SELECT * FROM a": "UPDATE",
    'WITH a AS (UPDATE "T" SET a = 1 RETURNING *) SELECT * FROM a': "UPDATE",
    'WITH a AS (INSERT INTO "T" VALUES (1) RETURNING *) SELECT * FROM a': "INSERT",
    "SELECT * FROM (SELECT 1 FROM t FOR  NO  KEY  UPDATE) AS s": "FOR NO KEY UPDATE",
    "SELECT 1 FROM t for key share": "FOR KEY SHARE",
    "SELECT nextval ('s')": "nextval()",
    "SELECT pg_catalog.pg_try_advisory_lock(1)": "pg_try_advisory_lock()",
    "SELECT pg_advisory_unlock_all()": "pg_advisory_unlock_all()",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (1)": "INSERT",
    "VACUUM t": "VACUUM",
    "LISTEN c": "LISTEN",
    "LOCK TABLE t": "LOCK",
    "COPY t TO STDOUT": "COPY",
    "CALL p()": "CALL",
    "CREATE TEMPORARY TABLE t (n int)": "CREATE",
    "SELECT set_config('a', 'b', true), nextval('s')": "nextval()",
}
READS = [
    "",
    "-- nothing",
    "SELECT 1",
    "(SELECT 1) UNION (SELECT 2)",
    "TABLE t",
    "VALUES (1)",
    "SHOW search_path",
    "EXPLAIN SELECT 1",
    "SELECT 'INSERT INTO t' || E'it\\'s FOR UPDATE' || $x$ DELETE FROM t $x$",
    'SELECT "nextval" FROM t',
    "SELECT updated, for_update, nextval FROM t WHERE set = 1",
    "/* UPDATE t SET a = 1 */ SELECT 1 -- FOR UPDATE",
    "SELECT update FROM t",
    "SELECT my_nextval('s')",
]


@pytest.mark.parametrize(("sql", "kind"), WRITES.items())
def test_a_write_is_foreseen_by_its_text(sql: str, kind: str) -> None:
    """At any depth, in any case, behind any spaces."""
    assert foresee(sql) == Foreseen(need=Need.PRIMARY, kind=kind)


@pytest.mark.parametrize("sql", READS)
def test_a_read_is_not_taken_for_a_write(sql: str) -> None:
    """INVARIANT: where writes raise, a false alarm would be an error that a user sees."""
    assert foresee(sql) is None


@pytest.mark.parametrize(
    ("sql", "kind"),
    [("SET LOCAL a = 'b'", "SET"), ("RESET ALL", "RESET"), ("SELECT set_config('a', 'b', true)", "set_config()")],
)
def test_a_setting_needs_a_transaction(sql: str, kind: str) -> None:
    """In autocommit it would have no effect, or stay on a pooled connection for the next user of it."""
    assert foresee(sql) == Foreseen(need=Need.TRANSACTION, kind=kind)


quoted = st.text(st.characters(codec="ascii", exclude_characters="'\\"), max_size=30)


@hypothesis.given(quoted, st.sampled_from(sorted(WRITES)))
def test_what_stands_in_a_string_means_nothing(words: str, sql: str) -> None:
    """INVARIANT: a value is not a statement, whatever it says."""
    inside = sql.replace("'", "''")
    assert foresee(f"SELECT '{words} {inside}', 1") is None


@hypothesis.given(st.text(max_size=200))
def test_no_text_is_too_strange(sql: str) -> None:
    """PostgreSQL has the last word on what is a statement at all."""
    foresee(sql)
