import contextlib
import dataclasses
import pathlib
import signal
import typing

import psutil

from modern_di_replicas.testing.shared_memory import remove_segment
from modern_di_replicas.testing.waiting import wait_until


PROGRAMS: typing.Final = frozenset({"initdb", "pg_basebackup", "pg_rewind", "postgres", "psql"})
PID_FILE: typing.Final = "postmaster.pid"
QUIT_SECONDS: typing.Final = 10.0
KILL_SECONDS: typing.Final = 10.0


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class PidFile:
    """The contents of `postmaster.pid` (`src/include/utils/pidfile.h`)."""

    pid: int
    segment: tuple[int, int] | None
    """The key and the identifier of its SysV shared-memory segment."""
    status: str


def read_pid_file(data_directory: pathlib.Path) -> PidFile | None:
    """Read `postmaster.pid`; None when it is not there or only begun."""
    try:
        lines = (data_directory / PID_FILE).read_text().splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    lines += [""] * (8 - len(lines))
    numbers = lines[6].split()
    segment = (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else None
    return PidFile(pid=pid, segment=segment, status=lines[7].strip())


def find_postmaster(data_directory: pathlib.Path) -> psutil.Process | None:
    """Find the live postmaster of a data directory.

    The number in `postmaster.pid` may since belong to another process, so the process counts only when it is a
    PostgreSQL server that was started for this data directory and works in it.
    """
    record = read_pid_file(data_directory)
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        ours = _is_postmaster_below(process, data_directory)
    except psutil.Error:
        return None
    return process if ours else None


def programs_below(folder: pathlib.Path) -> list[psutil.Process]:
    """Find every live PostgreSQL process that works in the folder or below it."""
    return [process for process in psutil.process_iter() if _works_below(process, folder)]


def end_everything_below(folder: pathlib.Path) -> bool:
    """End every PostgreSQL process that works below the folder, frozen ones too, and free its shared memory.

    Returns:
        Whether none is left.

    """
    postmasters: list[psutil.Process] = []
    for process in programs_below(folder):
        with contextlib.suppress(psutil.Error):
            # A postmaster that quits by itself ends its children and removes its shared memory.
            if _is_postmaster_below(process, folder):
                process.send_signal(signal.SIGQUIT)
                postmasters.append(process)
            process.resume()
    wait_until(lambda: not any(_works_below(process, folder) for process in postmasters), timeout=QUIT_SECONDS)
    ended = wait_until(lambda: not _kill_below(folder), timeout=KILL_SECONDS)
    for path in folder.glob(f"*/{PID_FILE}"):
        record = read_pid_file(path.parent)
        if record is not None and record.segment is not None:
            remove_segment(*record.segment)
    return ended


def _works_below(process: psutil.Process, folder: pathlib.Path) -> bool:
    try:
        return process.name() in PROGRAMS and pathlib.Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, FileNotFoundError):  # the latter from psutil before 7.1, of a process that is ending
        return False


def _is_postmaster_below(process: psutil.Process, folder: pathlib.Path) -> bool:
    # A postmaster keeps the arguments it was started with; its children replace theirs with a title.
    match process.cmdline():
        case [program, "-D", directory, *_]:
            return (
                pathlib.Path(program).name == "postgres"
                and pathlib.Path(directory).is_relative_to(folder)
                and _works_below(process, folder)
            )
        case _:
            return False


def _kill_below(folder: pathlib.Path) -> list[psutil.Process]:
    found = programs_below(folder)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return found
