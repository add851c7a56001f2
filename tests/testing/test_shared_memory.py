import ctypes
import pathlib
import sys
import typing

import pytest

from modern_di_replicas.testing import shared_memory


needs_table = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/sysvipc/shm")
CREATE = 0o1000 | 0o600
KEY_OF_NOBODY = 0x7E57_0000


def segments() -> set[int]:
    return {int(line.split()[1]) for line in shared_memory.TABLE.read_text().splitlines()[1:]}


@pytest.fixture
def segment() -> typing.Iterator[tuple[int, int]]:
    """Yield a shared-memory segment of this process, as key and identifier."""
    libc = ctypes.CDLL(None)
    key = KEY_OF_NOBODY + (id(libc) >> 4) % 0xFFFF
    identifier = libc.shmget(key, 64, CREATE)
    assert identifier >= 0
    yield key, identifier
    libc.shmctl(identifier, shared_memory.IPC_RMID, None)


@needs_table
def test_an_unused_segment_is_removed(segment: tuple[int, int]) -> None:
    """A killed postmaster leaves one, which would remain until the next boot."""
    assert segment[1] in segments()

    assert shared_memory.remove_segment(*segment)
    assert segment[1] not in segments()


@needs_table
def test_a_segment_of_another_key_stays(segment: tuple[int, int]) -> None:
    """The identifier may belong to another program by now."""
    key, identifier = segment

    assert not shared_memory.remove_segment(key + 1, identifier)
    assert identifier in segments()


@needs_table
def test_a_segment_in_use_stays(segment: tuple[int, int]) -> None:
    """Another process is attached."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    address = ctypes.c_void_p(libc.shmat(segment[1], None, 0))

    assert not shared_memory.remove_segment(*segment)
    assert segment[1] in segments()
    libc.shmdt(address)


def test_without_a_table_nothing_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """If the kernel does not report who uses a segment, it is left alone."""
    monkeypatch.setattr(shared_memory, "TABLE", tmp_path / "shm")

    assert not shared_memory.remove_segment(1, 1)
