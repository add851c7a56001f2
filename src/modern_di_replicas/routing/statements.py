"""What a statement will do, seen from its text before it is sent.

PostgreSQL has the last word: a standby refuses what is missed here, and the statement is run again on the primary.
Only what a standby would *not* refuse must be found: functions that lock or set something on the wrong server.
"""

import dataclasses
import enum
import functools
import re
import typing


class Need(enum.Enum):
    """What a statement needs that a replica in autocommit cannot give."""

    PRIMARY = "the primary, because it writes"
    TRANSACTION = "a transaction, because it sets something for the statements after it"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Foreseen:
    """A need, and the kind of statement that has it, such as `UPDATE` or `nextval()`."""

    need: Need
    kind: str

    @property
    def locks_rows(self) -> bool:
        """Whether it locks the rows it reads."""
        return self.kind.startswith("FOR ")


_READS: typing.Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN"})
_SETS: typing.Final = frozenset({"SET", "RESET"})

# String constants, dollar-quoted bodies, quoted identifiers and comments hide words that mean nothing.
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
        | (?P<update>UPDATE\s+(?:ONLY\s+)?[\w.]+(?:\s*\*)?(?:\s+(?:AS\s+)?\w+)?\s+SET)
        | (?P<delete>DELETE\s+FROM)
        | (?P<merge>MERGE\s+INTO)
        | (?P<lock>FOR\s+(?:NO\s+KEY\s+)?UPDATE|FOR\s+(?:KEY\s+)?SHARE)
        | (?P<function>nextval|setval|pg_notify|pg_(?:try_)?advisory_\w+|pg_current_xact_id|txid_current
            |lo_(?:creat|create|import|from_bytea|unlink|put))\s*\(
        | (?P<setting>set_config)\s*\(
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KINDS: typing.Final = {"insert": "INSERT", "update": "UPDATE", "delete": "DELETE", "merge": "MERGE"}


@functools.lru_cache(maxsize=4096)
def foresee(sql: str) -> Foreseen | None:
    """Return what a statement needs beyond a replica in autocommit; None when it only reads.

    Remembered for each text: SQLAlchemy sends the same text for the same statement.
    """
    text = _OPAQUE.sub(lambda found: " " if found["gone"] else " opaque ", sql)
    first = _FIRST_WORD.match(text)
    if first is None:
        return None
    word = first[1].upper()
    if word in _SETS:
        return Foreseen(need=Need.TRANSACTION, kind=word)
    if word not in _READS:
        return Foreseen(need=Need.PRIMARY, kind=word)
    needs = [_foreseen(found) for found in _WRITES.finditer(text)]
    # A write outweighs a setting: it needs the primary in every isolation.
    return min(needs, key=lambda foreseen: foreseen.need is not Need.PRIMARY, default=None)


def _foreseen(found: re.Match[str]) -> Foreseen:
    name = found.lastgroup or ""
    words = " ".join(found[name].split())
    if name == "setting":
        return Foreseen(need=Need.TRANSACTION, kind=f"{words.lower()}()")
    if name == "function":
        return Foreseen(need=Need.PRIMARY, kind=f"{words.lower()}()")
    return Foreseen(need=Need.PRIMARY, kind=_KINDS.get(name, words.upper()))
