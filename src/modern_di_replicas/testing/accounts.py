import dataclasses
import os
import pathlib
import typing

from modern_di_replicas.errors import AccountNotFoundError
from modern_di_replicas.testing.posix import pwd


CANDIDATES: typing.Final = ("nobody", "postgres", "daemon")


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Account:
    """An unprivileged account of this system."""

    name: str
    uid: int
    gid: int

    def own(self, path: pathlib.Path) -> None:
        """Make this account the owner of one of the cluster's files or folders."""
        os.chown(path, self.uid, self.gid)

    def as_arguments(self) -> dict[str, typing.Any]:
        """Return the arguments of `subprocess` for running a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account_for_programs() -> Account | None:
    """Choose the account for PostgreSQL: None is that of Python, which PostgreSQL refuses for root only.

    Raises:
        AccountNotFoundError: Python runs as root and no candidate exists.

    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise AccountNotFoundError(tried=CANDIDATES)
