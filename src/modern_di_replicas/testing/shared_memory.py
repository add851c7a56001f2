import ctypes
import pathlib
import typing


TABLE: typing.Final = pathlib.Path("/proc/sysvipc/shm")
IPC_RMID: typing.Final = 0


def remove_segment(key: int, identifier: int) -> bool:
    """Remove the SysV shared-memory segment that a killed postmaster left, and say whether that happened.

    It goes only when key and identifier both fit and no process is attached. PostgreSQL derives the key from the
    inode of its data directory (`src/backend/port/sysv_shmem.c`). Linux only: elsewhere there is no table to ask.
    """
    if not TABLE.exists() or not _is_unused(key, identifier):
        return False
    result: int = ctypes.CDLL(None).shmctl(identifier, IPC_RMID, None)
    return result == 0


def _is_unused(key: int, identifier: int) -> bool:
    for line in TABLE.read_text().splitlines()[1:]:
        found_key, found_identifier, *_, attached = line.split()[:7]
        # The table prints the key as a signed number, postmaster.pid as an unsigned one.
        if int(found_key) & 0xFFFFFFFF == key & 0xFFFFFFFF and int(found_identifier) == identifier:
            return int(attached) == 0
    return False
