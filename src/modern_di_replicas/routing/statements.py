"""Predict what a statement does from its text, before it is sent.

PostgreSQL decides: a standby refuses a write that is missed here, and the statement is run again on the primary. Only
effects that a standby would *not* refuse must be found: functions that lock, set or do something on the wrong server.
"""

import dataclasses
import enum
import functools
import re
import typing


class Need(enum.Enum):
    """A need of a statement that a replica in autocommit does not meet."""

    PRIMARY = "the primary, because it writes"
    TRANSACTION = "a transaction, because it sets something for the statements after it"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Foreseen:
    """A need, and the kind of the statement, such as `UPDATE` or `nextval()`."""

    need: Need
    kind: str

    @property
    def locks_rows(self) -> bool:
        """Whether it locks the rows it reads."""
        return self.kind.startswith("FOR ")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READS: typing.Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN"})
_SETS: typing.Final = frozenset({"SET", "RESET"})

# Words in string constants, dollar-quoted bodies, quoted identifiers and comments have no effect.
_OPAQUE: typing.Final = re.compile(
    r"""
    (?P<gone> --[^\n]* | /\*.*?\*/ )
    | [eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$
    """,
    re.VERBOSE | re.DOTALL,
)
_FIRST_WORD: typing.Final = re.compile(r"[\s(;]*([A-Za-z]+)")
_WRITES: typing.Final = re.compile(
    r"""
    \b(?:
        (?P<insert>INSERT\s+INTO)
        | (?P<update>UPDATE\s+(?:ONLY\s+)?[\w$]+(?:\s*\.\s*[\w$]+)*(?:\s*\*)?(?:\s+(?:AS\s+)?[\w$]+)?\s+SET)
        | (?P<delete>DELETE\s+FROM)
        | (?P<merge>MERGE\s+INTO)
        | (?P<lock>FOR\s+(?:NO\s+KEY\s+)?UPDATE|FOR\s+(?:KEY\s+)?SHARE)
        | (?P<function>nextval|setval|pg_notify|pg_(?:try_)?advisory_\w+|pg_current_xact_id|txid_current
            |lo_(?:creat|create|import|export|from_bytea|unlink|put)
            # What has an effect on the server it runs on, or from there on another one.
            |pg_(?:cancel|terminate)_backend|pg_reload_conf|pg_rotate_logfile(?:_\w+)?|pg_log_backend_memory_contexts
            |pg_log_standby_snapshot|pg_stat_reset\w*|pg_stat_statements_reset|pg_stat_force_next_flush
            |pg_switch_wal|pg_create_restore_point|pg_backup_(?:start|stop)|pg_(?:start|stop)_backup
            |pg_promote|pg_wal_replay_(?:pause|resume)
            |pg_(?:create|copy)_(?:physical|logical)_replication_slot|pg_drop_replication_slot|pg_sync_replication_slots
            |pg_replication_(?:slot_advance|origin_\w+)|pg_logical_(?:emit_message|slot_get_(?:binary_)?changes)
            |pg_file_(?:write|rename|sync|unlink)|pg_buffercache_(?:evict|mark_dirty)\w*|dblink\w*)\s*\(
        | (?P<setting>set_config)\s*\(
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KINDS: typing.Final = {"insert": "INSERT", "update": "UPDATE", "delete": "DELETE", "merge": "MERGE"}


_CALL: typing.Final = re.compile(r"(?P<schema>[\w$]+\s*\.\s*)?(?P<name>[\w$]+)\s*\(")
_HIDDEN_WRITE: typing.Final = re.compile(r"\b(?:INTO|UPDATE|DELETE|MERGE|ANALYZE|ANALYSE)\b|;\s*[^\s;]", re.IGNORECASE)
"""`SELECT ... INTO`, `WITH ... AS (UPDATE ...)`, `EXPLAIN ANALYZE`, and a second statement."""

_COMMITS: typing.Final = re.compile(r"(?:^|;)\s*(?:COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)

_CONTROLS: typing.Final = frozenset({"BEGIN", "START", "SAVEPOINT", "RELEASE", "ROLLBACK", "DEALLOCATE", "LISTEN"})
"""Statements that a replica in autocommit cannot run, although they write nothing."""
_BEFORE_PARENTHESIS: typing.Final = _words(
    """
    all and any array as between bit by case char character cross cube decimal distinct else end except exists explain
    filter first float from full group grouping having ilike in inner interval intersect is join lateral left like limit
    materialized next not null numeric offset on only or order over partition precision recursive right rollup row
    select sets similar some table then time timestamp timestamptz timetz to union using values varbit varchar varying
    when where window with within
    """
)
_PURE_FUNCTIONS: typing.Final = _words(
    """
    abs age any_value array_agg array_append array_cat array_length array_position array_remove array_to_json
    array_to_string array_upper avg bool_and bool_or btrim cardinality cast ceil ceiling char_length character_length
    clock_timestamp coalesce concat concat_ws corr count cume_dist current_database current_schema current_setting
    current_user date date_bin date_part date_trunc decode dense_rank encode every exp extract first_value floor format
    generate_series generate_subscripts gen_random_uuid greatest host inet_server_addr inet_server_port initcap isfinite
    json_agg json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
    json_object_agg jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_each jsonb_each_text jsonb_object_agg jsonb_object_keys jsonb_set jsonb_typeof
    jsonb_path_exists jsonb_path_query jsonb_path_query_array jsonb_strip_nulls justify_interval lag last_value lead
    least length ln log lower lpad ltrim make_date make_interval make_time make_timestamp make_timestamptz max md5 min
    mod mode now nth_value ntile nullif num_nonnulls num_nulls octet_length overlay percent_rank percentile_cont
    percentile_disc pg_backend_pid pg_column_size pg_current_xact_id_if_assigned pg_is_in_recovery pg_relation_size
    pg_size_pretty pg_table_size pg_total_relation_size phraseto_tsquery plainto_tsquery position pow power random
    range_agg rank regexp_match regexp_matches regexp_replace regexp_split_to_array repeat replace reverse round
    row_number row_to_json rpad rtrim set_config sha256 sign split_part sqrt starts_with statement_timestamp stddev
    string_agg string_to_array string_to_table strpos substr substring sum to_char to_date to_json to_jsonb to_number
    to_timestamp to_tsquery to_tsvector transaction_timestamp translate treat trim trunc ts_headline ts_rank ts_rank_cd
    unnest upper variance version websearch_to_tsquery width_bucket
    """
)
"""Built-in functions that write nothing. PostgreSQL, chapter 9, "Functions and Operators"."""


@functools.lru_cache(maxsize=4096)
def may_write(sql: str) -> bool:
    """Return whether a statement may write, on the primary.

    A query writes nothing if it only calls functions that are known to write nothing; any other function may write. A
    function call in a view or an operator is not detected.
    """
    foreseen = foresee(sql)
    if foreseen is not None and foreseen.need is Need.PRIMARY and foreseen.kind not in _CONTROLS:
        return True
    text = _hide(sql)
    if _HIDDEN_WRITE.search(text):
        return True
    return any(_is_unknown_call(found) for found in _CALL.finditer(text))


@functools.lru_cache(maxsize=4096)
def commits(sql: str) -> bool:
    """Return whether a statement ends its transaction and may commit its writes."""
    return _COMMITS.search(_hide(sql)) is not None


def _is_unknown_call(found: re.Match[str]) -> bool:
    schema, name = found["schema"], found["name"].lower()
    if schema is not None and schema.rstrip(". \n\t").lower() != "pg_catalog":
        return True
    return name not in _PURE_FUNCTIONS and name not in _BEFORE_PARENTHESIS


@functools.lru_cache(maxsize=4096)
def foresee(sql: str) -> Foreseen | None:
    """Return the need of a statement that a replica in autocommit does not meet; None when it only reads.

    Cached by the text: SQLAlchemy sends the same text for the same statement.
    """
    text = _hide(sql)
    first = _FIRST_WORD.match(text)
    if first is None:
        return None
    word = first[1].upper()
    if word in _SETS:
        return Foreseen(need=Need.TRANSACTION, kind=word)
    if word not in _READS:
        return Foreseen(need=Need.PRIMARY, kind=word)
    needs = [_foreseen(found) for found in _WRITES.finditer(text)]
    # A write takes precedence over a setting: it needs the primary in every isolation.
    return min(needs, key=lambda foreseen: foreseen.need is not Need.PRIMARY, default=None)


def _hide(sql: str) -> str:
    return _OPAQUE.sub(lambda found: " " if found["gone"] else " opaque ", sql)


def _foreseen(found: re.Match[str]) -> Foreseen:
    name = found.lastgroup or ""
    words = " ".join(found[name].split())
    if name == "setting":
        return Foreseen(need=Need.TRANSACTION, kind=f"{words.lower()}()")
    if name == "function":
        return Foreseen(need=Need.PRIMARY, kind=f"{words.lower()}()")
    return Foreseen(need=Need.PRIMARY, kind=_KINDS.get(name, words.upper()))
