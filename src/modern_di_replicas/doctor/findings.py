"""The findings of the doctor. Each kind has a section in `docs/doctor.md`."""

import dataclasses
import typing

from modern_di_replicas.errors import DOCS_URL


Kind = typing.Literal[
    "unreachable",
    "not-examined",
    "role",
    "system",
    "timeline",
    "shared-endpoint",
    "in-hot-standby",
    "pooler",
    "prepared-statements",
    "lag",
    "replay-paused",
    "apply-delay",
    "inactive-slot",
    "no-slot",
    "hot-standby-feedback",
    "standby-delay",
    "read-only",
    "privileges",
    "tls",
    "clock",
    "connection-budget",
]
Severity = typing.Literal["problem", "advice"]


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Finding:
    """One problem, or one piece of advice."""

    kind: Kind
    server: str
    """The name of the server; empty if it concerns several."""
    message: str
    """The finding, with its figures."""
    remedy: str
    severity: Severity = "problem"
    """A problem makes the exit status 1; advice does not."""

    @property
    def page(self) -> str:
        """The link to its explanation."""
        return f"{DOCS_URL}/doctor/#{self.kind}"
