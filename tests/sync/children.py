"""The child processes of `test_processes.py`, in a separate module, so that a spawned process imports little.

As a script, `python -m tests.sync.children PRIMARY REPLICA`, it forks during a unit of work. Its child exits normally,
which frees all inherited objects; a child of pytest would free pytest's. It exits with 0 if every assertion holds.
"""

import contextlib
import os
import sys
import threading
import typing

from modern_di import Container
from sqlalchemy import text

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.sync import Dependencies, Monitor, ReplicaEngine, RoutedSession, unit_of_work
from tests.waiting import wait_for


PIDS = text("SELECT pg_backend_pid(), pg_is_in_recovery()")


Backends: typing.TypeAlias = set[tuple[int, bool]]
"""Process ids of servers, each with whether it is a standby."""


def use(container: Container) -> Backends:
    """Return the server processes of a read and a write."""
    found: Backends = set()
    for intent in (Intent.read(), Intent.write()):
        with unit_of_work(container, intent=intent) as unit:
            found.add(typing.cast(tuple[int, bool], tuple(unit.resolve(RoutedSession).execute(PIDS).one())))
    return found


def use_until_killed(settings: ReplicationSettings, pipe: typing.Any, of_parent: typing.Any) -> None:
    of_parent.close()
    with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
        unit_of_work(container) as unit,
    ):
        unit.resolve(RoutedSession).execute(PIDS)
        pipe.send(use(container))
        pipe.recv()


def fork_and_wait(settings: ReplicationSettings, pipe: typing.Any, of_parent: typing.Any) -> None:
    """Fork a child that lives until the pipe is closed."""
    of_parent.close()
    with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
        unit_of_work(container) as unit,
    ):
        unit.resolve(RoutedSession).execute(PIDS)
        seen = use(container)
        if os.fork() == 0:
            with contextlib.suppress(EOFError):
                pipe.recv()
            os._exit(0)
        pipe.send(seen)
        threading.Event().wait()


def forked(container: Container, session: RoutedSession, of_parent: Backends) -> typing.NoReturn:
    """Use the engines and the inherited session, and exit: open units of work end with the process."""
    assert not use(container) & of_parent, "a child has its own connections"
    assert container.resolve(ReplicaEngine).topology.watcher is not None
    session.close()
    assert session.execute(PIDS).scalar_one() not in {pid for pid, _ in of_parent}
    sys.exit(0)


def main(primary: str, *replicas: str) -> None:
    settings = ReplicationSettings(primary=primary, replicas=list(replicas), probe_interval=0.1)
    with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        before = use(container)
        with unit_of_work(container) as unit:
            session = unit.resolve(RoutedSession)
            session.execute(text("INSERT INTO written_before_a_fork VALUES (1)"))
            if (pid := os.fork()) == 0:
                forked(container, session, before)
            assert os.waitpid(pid, 0)[1] == 0
            session.commit()
            count = session.scalar(text("SELECT count(*) FROM written_before_a_fork"))
            assert count == 1, "the child's end did not roll it back"
        assert use(container) == before, "and closed no connection"
        replicas_engine = container.resolve(ReplicaEngine)
        snapshot = replicas_engine.snapshot
        wait_for(lambda: replicas_engine.snapshot is not snapshot)  # the monitor keeps running


if __name__ == "__main__":
    main(*sys.argv[1:])
