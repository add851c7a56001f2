"""What a COMMIT looks like, whoever sends it."""

import re
import typing


COMMIT: typing.Final = re.compile(r"\s*(?:COMMIT|END)(?:\s+(?:WORK|TRANSACTION))?\s*;?\s*", re.IGNORECASE)
