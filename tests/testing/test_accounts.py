import os
import pathlib
import pwd

import pytest

from modern_di_replicas.errors import AccountNotFoundError
from modern_di_replicas.testing.accounts import CANDIDATES, Account, account_for_programs


def test_without_root_the_programs_run_as_the_own_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root needs another account."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert account_for_programs() is None


def test_root_uses_the_first_existing_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nobody` is missing on some systems."""
    entry = pwd.getpwuid(os.getuid())

    def find(name: str) -> pwd.struct_passwd:
        if name == CANDIDATES[0]:
            raise KeyError(name)
        return entry

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)

    assert account_for_programs() == Account(name=CANDIDATES[1], uid=entry.pw_uid, gid=entry.pw_gid)


def test_the_error_for_root_without_an_account_lists_the_tried_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL would refuse later, with a less useful message."""

    def find(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)

    with pytest.raises(AccountNotFoundError) as caught:
        account_for_programs()

    assert caught.value.tried == CANDIDATES
    assert "nobody" in str(caught.value)


def test_an_account_runs_programs_without_the_groups_of_root(tmp_path: pathlib.Path) -> None:
    """A supplementary group would grant permissions that PostgreSQL must not have."""
    account = Account(name="me", uid=os.getuid(), gid=os.getgid())
    account.own(tmp_path)

    assert account.as_arguments() == {"user": os.getuid(), "group": os.getgid(), "extra_groups": []}
    assert tmp_path.stat().st_uid == os.getuid()
