"""The text of a COMMIT, as each driver, SQLAlchemy and applications send it."""

import re
import typing


_COMMENT: typing.Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMIT: typing.Final = re.compile(
    r"\s*(?:COMMIT|END)(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+(?:NO\s+)?CHAIN)?\s*;?\s*", re.IGNORECASE
)


def is_commit(statement: str) -> bool:
    """Return whether a statement is a COMMIT and nothing else; comments do not matter."""
    return _COMMIT.fullmatch(_COMMENT.sub(" ", statement)) is not None
