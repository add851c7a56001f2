"""The text of a COMMIT, as each driver and SQLAlchemy send it."""

import re
import typing


COMMIT: typing.Final = re.compile(r"\s*(?:COMMIT|END)(?:\s+(?:WORK|TRANSACTION))?\s*;?\s*", re.IGNORECASE)
