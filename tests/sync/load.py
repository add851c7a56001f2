"""Thirty threads read and one writes while servers fail: `python -m tests.sync.load` prints their results.

Freeze, crash, stop, lag, exhausted pools and a promotion, each on the same cluster: no read may fail, and none may take
longer than `probe_interval` + `probe_timeout` + 1 s.
"""

import argparse
import collections
import collections.abc
import contextlib
import dataclasses
import threading
import time
import typing

from sqlalchemy import text

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.sync import Monitor, PrimaryEngine, ReplicaEngine, RoutedSession
from modern_di_replicas.sync.engines import create_primary_engine, create_replica_engine
from modern_di_replicas.testing import LocalCluster


THREADS: typing.Final = 30
PAUSE: typing.Final = 0.02
"""Seconds between two reads of a thread: many threads of one process, on a machine that runs the servers too."""
READ: typing.Final = text("SELECT sum(amount), pg_is_in_recovery(), pg_sleep(0.005) FROM stock")
WRITE: typing.Final = text("UPDATE stock SET amount = amount WHERE id = 1")
ROWS: typing.Final = 100


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Fault:
    """A fault of the servers, and its end."""

    inject: collections.abc.Callable[[LocalCluster], None]
    mend: collections.abc.Callable[[LocalCluster], None]
    settings: collections.abc.Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)


def nothing(cluster: LocalCluster) -> None:
    """Do nothing: the fault does not end, or it is in the settings."""


def pause_replay(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.pause_replay()


def resume_replay(cluster: LocalCluster) -> None:
    for replica in cluster.replicas:
        replica.resume_replay()


def promote(cluster: LocalCluster) -> None:
    cluster.primary.stop("immediate")
    cluster.replicas[0].promote()


FAULTS: typing.Final[dict[str, Fault]] = {
    "freeze": Fault(inject=lambda cluster: cluster.replicas[0].freeze(), mend=lambda c: c.replicas[0].thaw()),
    "crash": Fault(inject=lambda cluster: cluster.replicas[0].stop("immediate"), mend=lambda c: c.replicas[0].start()),
    "stop": Fault(inject=lambda cluster: cluster.replicas[0].stop("fast"), mend=lambda c: c.replicas[0].start()),
    "lag": Fault(inject=pause_replay, mend=resume_replay),
    "exhausted": Fault(
        inject=nothing,
        mend=nothing,
        settings={"replica_pool_size": 1, "replica_max_overflow": 0, "replica_pool_timeout": 0.05},
    ),
    "frozen primary": Fault(inject=lambda cluster: cluster.primary.freeze(), mend=lambda c: c.primary.thaw()),
    "promotion": Fault(inject=promote, mend=nothing),  # last: the cluster has another primary afterwards
}


@dataclasses.dataclass(kw_only=True, slots=True)
class Report:
    """The results of the threads."""

    bound: float
    """Maximum duration of a read, in seconds."""
    reads: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    """Of reads."""
    slowest: float = 0.0
    served: collections.Counter[bool] = dataclasses.field(default_factory=collections.Counter)
    """Reads by replicas, and by the primary."""
    failed_writes: int = 0
    writes_back: float = 0.0
    """Seconds from the fault to the last write that failed, or took longer than a read may take."""
    wrote_at_the_end: bool = False

    def __str__(self) -> str:
        on_replicas = self.served[True] / max(1, self.reads)
        return (
            f"{self.reads} reads, {len(self.errors)} failed, slowest {self.slowest:.2f} s (bound {self.bound:g} s), "
            f"{on_replicas:.0%} on replicas; {self.failed_writes} writes failed, writes back after "
            f"{self.writes_back:.2f} s"
        )


class Load:
    """The threads, on the engines of one application."""

    def __init__(self, primary: PrimaryEngine, replica: ReplicaEngine, report: Report) -> None:
        self._primary = primary
        self._replica = replica
        self._report = report
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.warm = threading.Event()
        self.fault_at = 0.0

    @contextlib.contextmanager
    def running(self, threads: int) -> collections.abc.Iterator[None]:
        """Read and write until the block ends, and then until a write succeeds or ten seconds have passed."""
        readers = [threading.Thread(target=self._read, daemon=True) for _ in range(threads)]
        writer = threading.Thread(target=self._write, daemon=True)
        for thread in (*readers, writer):
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in (*readers, writer):
                thread.join(60)
                assert not thread.is_alive(), "a thread hangs"

    def _read(self) -> None:
        report = self._report
        while not self._ended.is_set():
            began = time.monotonic()
            error = replica = None
            try:
                with RoutedSession(self._replica, primary=self._primary, intent=Intent.read()) as session:
                    total, replica, _ = session.execute(READ).one()
                    assert total == ROWS
            except Exception as raised:  # noqa: BLE001  # each one counts
                error = f"{type(raised).__name__}: {raised}"
            took = time.monotonic() - began
            with self._lock:
                report.reads += 1
                report.slowest = max(report.slowest, took)
                if error is not None:
                    report.errors.append(error)
                elif replica is not None:
                    report.served[replica] += 1
                if report.reads >= THREADS:
                    self.warm.set()
            time.sleep(PAUSE)

    def _write(self) -> None:
        report = self._report
        give_up: float | None = None
        while give_up is None or time.monotonic() < give_up:
            began = time.monotonic()
            try:
                with self._primary.begin() as connection:
                    connection.execute(WRITE)
                report.wrote_at_the_end = True
            except Exception:  # noqa: BLE001  # until the primary is back
                report.failed_writes += 1
                report.wrote_at_the_end = False
            now = time.monotonic()
            if self.fault_at and (not report.wrote_at_the_end or now - began > report.bound):
                report.writes_back = now - self.fault_at
            if self._ended.is_set():
                if report.wrote_at_the_end:
                    return
                give_up = give_up or now + 10
            time.sleep(PAUSE)


def create_stock(cluster: LocalCluster) -> None:
    cluster.primary.execute("DROP TABLE IF EXISTS stock")
    cluster.primary.execute(
        f"CREATE TABLE stock AS SELECT n AS id, 1 AS amount FROM generate_series(1, {ROWS}) AS n"  # noqa: S608  # a constant
    )
    cluster.catch_up()


def run(fault: Fault, cluster: LocalCluster, settings: ReplicationSettings, *, threads: int, seconds: float) -> Report:
    """Inject one fault for a number of seconds while all threads run, and let them run equally long afterwards."""
    settings = dataclasses.replace(settings, primary_pool_size=10, primary_max_overflow=threads, **fault.settings)
    report = Report(bound=settings.probe_interval + settings.probe_timeout + 1)
    primary = create_primary_engine(settings)
    replica = create_replica_engine(settings, primary)
    with contextlib.ExitStack() as stack:
        for engine in (primary, replica):
            stack.callback(engine.dispose)
        stack.enter_context(Monitor(replica))
        load = Load(primary, replica, report)
        with load.running(threads):
            load.warm.wait(30)
            load.fault_at = time.monotonic()
            fault.inject(cluster)
            time.sleep(seconds)
            fault.mend(cluster)
            time.sleep(seconds / 2)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"default: all, in this order: {', '.join(FAULTS)}")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each fault lasts")
    arguments = parser.parse_args()
    failed = False
    with LocalCluster(driver="psycopg") as cluster:
        settings = ReplicationSettings(
            primary=cluster.primary.url, replicas=[replica.url for replica in cluster.replicas]
        )
        create_stock(cluster)
        for name in arguments.faults or FAULTS:
            report = run(FAULTS[name], cluster, settings, threads=arguments.threads, seconds=arguments.seconds)
            failed |= bool(report.errors) or report.slowest > report.bound or not report.wrote_at_the_end
            print(f"{name}: {report}", *sorted(set(report.errors))[:3], sep="\n  ")  # noqa: T201  # its purpose
            if name != "promotion":
                cluster.catch_up(30)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
