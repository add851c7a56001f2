import hypothesis
import pytest
from hypothesis import strategies as st

from modern_di_replicas.routing.statements import Foreseen, Need, commits, foresee, may_write


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
    'WITH a AS (UPDATE "Shop"."order" AS o SET b = 1 RETURNING 1) SELECT 1': "UPDATE",
    'WITH a AS (UPDATE ONLY public . "order" SET b = 1 RETURNING 1) SELECT 1': "UPDATE",
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
    """At any depth, in any case, after any whitespace."""
    assert foresee(sql) == Foreseen(need=Need.PRIMARY, kind=kind)


@pytest.mark.parametrize(
    "function",
    [
        "lo_export",
        *("pg_cancel_backend", "pg_terminate_backend", "pg_reload_conf", "pg_rotate_logfile", "pg_rotate_logfile_old"),
        *("pg_stat_reset", "pg_stat_reset_shared", "pg_stat_reset_single_table_counters", "pg_stat_statements_reset"),
        *("pg_switch_wal", "pg_create_restore_point", "pg_log_backend_memory_contexts", "pg_backup_start"),
        *("pg_wal_replay_pause", "pg_promote", "pg_drop_replication_slot", "pg_create_logical_replication_slot"),
        *("pg_replication_origin_advance", "pg_logical_emit_message", "pg_logical_slot_get_binary_changes"),
        *("pg_file_unlink", "pg_buffercache_evict", "dblink", "dblink_exec"),
    ],
)
def test_a_function_with_an_effect_on_its_server_needs_the_primary(function: str) -> None:
    """INVARIANT: a standby would execute it on itself without an error; reads of the same state are not writes."""
    assert foresee(f"SELECT pg_catalog.{function} (1)") == Foreseen(need=Need.PRIMARY, kind=f"{function}()")
    assert foresee(f"SELECT {function}, pg_blocking_pids(1)") is None


@pytest.mark.parametrize("sql", READS)
def test_a_read_is_not_taken_for_a_write(sql: str) -> None:
    """INVARIANT: where writes raise, a false positive would be an error for a user."""
    assert foresee(sql) is None


@pytest.mark.parametrize(
    ("sql", "kind"),
    [("SET LOCAL a = 'b'", "SET"), ("RESET ALL", "RESET"), ("SELECT set_config('a', 'b', true)", "set_config()")],
)
def test_a_setting_needs_a_transaction(sql: str, kind: str) -> None:
    """In autocommit it would have no effect, or remain on a pooled connection for its next user."""
    assert foresee(sql) == Foreseen(need=Need.TRANSACTION, kind=kind)


quoted = st.text(st.characters(codec="ascii", exclude_characters="'\\"), max_size=30)


@hypothesis.given(quoted, st.sampled_from(sorted(WRITES)))
def test_the_content_of_strings_is_ignored(words: str, sql: str) -> None:
    """INVARIANT: a value is not a statement, whatever it contains."""
    inside = sql.replace("'", "''")
    assert foresee(f"SELECT '{words} {inside}', 1") is None


@hypothesis.given(st.text(max_size=200))
def test_any_text_is_accepted(sql: str) -> None:
    """PostgreSQL decides what is a valid statement."""
    foresee(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a.x, count(*) FROM a WHERE a.id IN ($1, $2) GROUP BY a.x",
        "SELECT lower(x)::varchar(20), 'f(' || \"x\", pg_catalog.now() FROM a -- g(",
        "WITH a AS (SELECT 1) SELECT * FROM a JOIN LATERAL (VALUES (1)) AS b ON true",
        "EXPLAIN SELECT 1;",
        "SET LOCAL work_mem = '4MB'",
        "SELECT set_config('a.b', 'c', true)",
        "SAVEPOINT one",
        "RELEASE SAVEPOINT one",
        "ROLLBACK TO one",
        "BEGIN;",
        ";",
    ],
)
def test_statements_without_unknown_functions_write_nothing(sql: str) -> None:
    """A transaction of such statements needs no question after its commit."""
    assert not may_write(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO a VALUES (1)",
        "SELECT f()",
        "SELECT F (1)",
        'SELECT "f"(1)',
        "SELECT my.lower('x')",
        "SELECT my$lower('x')",
        "SELECT * FROM f(1) AS g",
        "SELECT 1 INTO b",
        'WITH a AS (UPDATE U&"d\\0061t" SET b = 1 RETURNING 1) SELECT 1',
        "EXPLAIN ANALYZE EXECUTE a",
        "SELECT 1; DROP TABLE a",
        "SELECT set_config('a.b', 'c', true), f()",
        "SELECT 1 FROM a FOR UPDATE",
        "CALL f()",
        "COMMIT;",
        "CREATE TABLE a (b int)",
    ],
)
def test_all_other_statements_may_write(sql: str) -> None:
    """INVARIANT: a missed write has no token, and its client may not see it."""
    assert may_write(sql)


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "commit and chain;", "END", "/* a */ COMMIT", "UPDATE a SET b = 1; COMMIT", "PREPARE TRANSACTION 'a'"],
)
def test_a_commit_that_is_sent_as_a_statement_is_one(sql: str) -> None:
    """INVARIANT: it has already committed what is rolled back afterwards."""
    assert commits(sql)


@pytest.mark.parametrize("sql", ["SELECT 'COMMIT', CASE WHEN a THEN 1 END FROM b", "PREPARE a AS SELECT 1", "ROLLBACK"])
def test_a_text_that_only_mentions_commit_is_not_one(sql: str) -> None:
    """Its transaction has written nothing when it is rolled back."""
    assert not commits(sql)
