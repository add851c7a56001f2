"""The doctor finds faults injected into real clusters, and nothing in a cluster without faults."""

import collections.abc
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import shutil
import signal
import subprocess
import time
import typing

import pytest

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.doctor.checks import findings_of
from modern_di_replicas.doctor.examination import examine
from modern_di_replicas.doctor.findings import Finding
from modern_di_replicas.testing import LocalCluster, LocalServer
from modern_di_replicas.testing.server import free_port
from modern_di_replicas.testing.waiting import wait_until
from tests.waiting import until


def settings_of(cluster: LocalCluster, **options: typing.Any) -> ReplicationSettings:
    replicas = [Replica(server.url, server.name) for server in cluster.replicas]
    return ReplicationSettings(**{"primary": cluster.primary.url, "replicas": replicas, **options})


async def found(settings: ReplicationSettings, *, workers: int = 1) -> list[Finding]:
    return findings_of(await examine(settings, workers=workers))


def kinds(findings: collections.abc.Iterable[Finding]) -> set[tuple[str, str]]:
    return {(finding.kind, finding.server) for finding in findings}


def address(server: LocalServer) -> str:
    return f"127.0.0.1:{server.port}"


def configure(server: LocalServer, name: str, value: str | None) -> None:
    """Change a setting of a running server, and wait until its new sessions have it."""
    change = f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'"
    server.execute(change)
    server.execute("SELECT pg_reload_conf()")
    question = f"SELECT sourcefile LIKE '%auto.conf' FROM pg_settings WHERE name = '{name}'"  # noqa: S608  # of ours
    assert wait_until(lambda: (server.execute(question) == "t") is (value is not None), timeout=10)


@contextlib.contextmanager
def configured(server: LocalServer, name: str, value: str) -> collections.abc.Iterator[None]:
    configure(server, name, value)
    try:
        yield
    finally:
        configure(server, name, None)


async def test_nothing_is_found_on_a_good_cluster(good_cluster: LocalCluster) -> None:
    """A doctor with findings on every cluster would be ignored."""
    good_cluster.catch_up()
    assert await found(settings_of(good_cluster), workers=2) == []


async def test_a_server_that_cannot_be_reached(good_cluster: LocalCluster) -> None:
    """The finding quotes the driver's error, without the password."""
    nowhere = good_cluster.primary.url.replace(str(good_cluster.primary.port), str(free_port()))
    (finding,) = await found(settings_of(good_cluster, replicas=[Replica(nowhere, "gone")]))
    assert (finding.kind, finding.server, finding.severity) == ("unreachable", "gone", "problem")
    assert nowhere.split(":")[2].partition("@")[0] not in str(finding)


async def test_roles_that_are_the_wrong_way_round(good_cluster: LocalCluster) -> None:
    """As after a failover that the settings do not reflect."""
    replica = good_cluster.replicas[0]
    findings = await found(
        ReplicationSettings(primary=replica.url, replicas=[Replica(good_cluster.primary.url, "other")])
    )
    assert {("role", address(replica)), ("role", "other")} <= kinds(findings)


async def test_a_replica_of_another_cluster(good_cluster: LocalCluster, replicated_cluster: LocalCluster) -> None:
    """Its rows would be those of another system."""
    stranger = Replica(replicated_cluster.replicas[0].url, "stranger")
    findings = await found(settings_of(good_cluster, replicas=[stranger]))
    assert ("system", "stranger") in kinds(findings)


async def test_a_standby_that_was_left_behind_by_a_promotion(disposable_cluster: LocalCluster) -> None:
    """It still streams from the former primary."""
    _, first, second = disposable_cluster.servers
    first.promote()
    findings = await found(ReplicationSettings(primary=first.url, replicas=[Replica(second.url, "left")]))
    assert ("timeline", "left") in kinds(findings)


async def test_one_server_by_two_names(good_cluster: LocalCluster) -> None:
    """As behind a load balancer, or twice in the settings."""
    replica = good_cluster.replicas[0]
    twice = [Replica(replica.url, "a"), Replica(replica.url.replace("127.0.0.1", "localhost"), "b")]
    findings = await found(settings_of(good_cluster, replicas=twice))
    assert kinds(findings) == {("shared-endpoint", "a, b")}


async def test_the_primary_as_its_own_replica(good_cluster: LocalCluster) -> None:
    """One finding, not two: its role follows from the shared endpoint."""
    itself = Replica(good_cluster.primary.url.replace("127.0.0.1", "localhost"), "itself")
    findings = await found(settings_of(good_cluster, replicas=[itself]))
    assert kinds(findings) == {("shared-endpoint", f"{address(good_cluster.primary)}, itself")}


async def test_a_replay_that_is_paused(good_cluster: LocalCluster) -> None:
    """The replay was paused and not resumed."""
    replica = good_cluster.replicas[0]
    replica.pause_replay()
    try:
        findings = await found(settings_of(good_cluster))
    finally:
        replica.resume_replay()
    assert kinds(findings) == {("replay-paused", replica.name)}


async def test_a_replica_that_lags(good_cluster: LocalCluster) -> None:
    """Its WAL receiver hangs, as on a network that drops all packets."""
    replica = good_cluster.replicas[0]
    receiver = int(replica.execute("SELECT pid FROM pg_stat_wal_receiver"))
    os.kill(receiver, signal.SIGSTOP)
    try:
        good_cluster.primary.execute("CREATE TABLE late (n int)")
        findings = await found(settings_of(good_cluster, max_lag=dt.timedelta(seconds=0.2)))
    finally:
        os.kill(receiver, signal.SIGCONT)
        good_cluster.primary.execute("DROP TABLE late")
        good_cluster.catch_up()
    (finding,) = [finding for finding in findings if finding.kind == "lag"]
    assert finding.server == replica.name
    assert "bytes of WAL behind after" in finding.message


@pytest.mark.parametrize(("delay", "words"), [("1s", "delayed by 1 s"), ("1h", "it never serves")])
async def test_a_replica_that_is_delayed_on_purpose(good_cluster: LocalCluster, delay: str, words: str) -> None:
    """Such a standby exists to recover deleted rows."""
    replica = good_cluster.replicas[0]
    with configured(replica, "recovery_min_apply_delay", delay):
        (finding,) = await found(settings_of(good_cluster))
    assert (finding.kind, finding.server) == ("apply-delay", replica.name)
    assert words in finding.message


async def test_a_slot_that_is_not_used(good_cluster: LocalCluster) -> None:
    """It keeps WAL until the disk of the primary is full."""
    good_cluster.primary.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        findings = await found(settings_of(good_cluster))
    finally:
        good_cluster.primary.execute("SELECT pg_drop_replication_slot('forgotten')")
    (finding,) = findings
    assert (finding.kind, finding.server) == ("inactive-slot", address(good_cluster.primary))
    assert "'forgotten' is inactive" in finding.message


async def test_a_replica_without_a_slot(good_cluster: LocalCluster) -> None:
    """The primary may remove WAL that the replica still needs."""
    replica = good_cluster.replicas[0]
    slot = replica.execute("SHOW primary_slot_name")
    # Not by ALTER SYSTEM RESET: pg_basebackup writes the slot into the same file.
    use_slot(replica, "")
    try:
        findings = await found(settings_of(good_cluster))
    finally:
        use_slot(replica, slot)
        good_cluster.primary.wait_for_streaming([replica.name])
    assert ("no-slot", replica.name) in kinds(findings)


def use_slot(replica: LocalServer, slot: str) -> None:
    replica.execute(f"ALTER SYSTEM SET primary_slot_name = '{slot}'")
    replica.execute("SELECT pg_reload_conf()")
    assert wait_until(lambda: replica.execute("SHOW primary_slot_name") == slot, timeout=10)


async def test_hot_standby_feedback_that_is_off(good_cluster: LocalCluster) -> None:
    """It is advice: reads that VACUUM cancels are run again."""
    replica = good_cluster.replicas[0]
    with configured(replica, "hot_standby_feedback", "off"):
        (finding,) = await found(settings_of(good_cluster))
    assert (finding.kind, finding.server, finding.severity) == ("hot-standby-feedback", replica.name, "advice")


@pytest.mark.parametrize(
    ("delay", "feedback", "expected"),
    [("-1", "on", {"problem"}), ("60s", "off", {"advice"}), ("60s", "on", set())],
)
async def test_queries_that_may_hold_up_the_replay(
    good_cluster: LocalCluster, delay: str, feedback: str, expected: set[str]
) -> None:
    """Without a limit it is a problem; above max_lag, advice, unless there are few conflicts."""
    replica = good_cluster.replicas[0]
    with (
        configured(replica, "max_standby_streaming_delay", delay),
        configured(replica, "hot_standby_feedback", feedback),
    ):
        findings = await found(settings_of(good_cluster))
    assert {one.severity for one in findings if one.kind == "standby-delay"} == expected


async def test_a_primary_that_is_read_only_for_this_database(good_cluster: LocalCluster) -> None:
    """Every write would fail, as on a standby."""
    good_cluster.primary.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        findings = await found(settings_of(good_cluster))
    finally:
        good_cluster.primary.execute("SET default_transaction_read_only = off; ALTER DATABASE postgres RESET ALL")
        good_cluster.catch_up()
    assert ("read-only", address(good_cluster.primary)) in kinds(findings)


@pytest.fixture
def visitor(good_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    """Yield the cluster with a user who has few privileges."""
    good_cluster.primary.execute("CREATE ROLE visitor LOGIN PASSWORD 'secret' CONNECTION LIMIT 3")
    good_cluster.catch_up()
    yield good_cluster
    good_cluster.primary.execute("DROP ROLE visitor")
    good_cluster.catch_up()


def as_visitor(server: LocalServer) -> str:
    return f"postgresql+asyncpg://visitor:secret@{address(server)}/postgres"


async def test_a_user_without_the_monitors_privileges(visitor: LocalCluster) -> None:
    """Without the privilege, the monitor learns of a new timeline late."""
    replicas = [Replica(as_visitor(server), server.name) for server in visitor.replicas]
    findings = await found(ReplicationSettings(primary=as_visitor(visitor.primary), replicas=replicas))
    assert {finding.server for finding in findings if finding.kind == "privileges"} == {
        address(visitor.primary),
        *(server.name for server in visitor.replicas),
    }
    budget = next(finding for finding in findings if finding.kind == "connection-budget")
    assert "of 3, the CONNECTION LIMIT of its role" in budget.message


async def test_a_connection_to_another_machine_that_is_not_encrypted(good_cluster: LocalCluster) -> None:
    """Between two loopback addresses, which PostgreSQL cannot distinguish from two machines."""
    replica = good_cluster.replicas[0]
    remote = Replica(replica.url.replace("127.0.0.1", "127.0.0.2"), "remote")
    (finding,) = await found(settings_of(good_cluster, replicas=[remote]))
    assert (finding.kind, finding.server) == ("tls", "remote")


@pytest.mark.parametrize(("offset", "words"), [(-3600, "ahead of"), (3600, "behind")])
async def test_a_clock_that_is_wrong(good_cluster: LocalCluster, offset: float, words: str) -> None:
    """The doctor cannot tell which of the two clocks is wrong."""
    examination = await examine(settings_of(good_cluster), workers=1, clock=lambda: time.time() + offset)
    findings = findings_of(examination)
    assert {finding.kind for finding in findings} == {"clock"}
    assert f"its clock is 3600 s {words} this machine's" in findings[0].message


async def test_more_connections_than_there_are(good_cluster: LocalCluster) -> None:
    """With the calculation: workers times pool and monitor, compared with the remaining connections."""
    findings = await found(settings_of(good_cluster), workers=8)
    assert {finding.kind for finding in findings} == {"connection-budget"}
    assert "8 workers x (15 + 1) = 128, of 100 - 3 reserved" in findings[0].message


async def test_a_server_that_refuses_a_question_is_still_examined(visitor: LocalCluster) -> None:
    """Managed servers do not offer every function."""
    primary = visitor.primary
    primary.execute(
        "GRANT pg_monitor TO visitor; ALTER ROLE visitor CONNECTION LIMIT -1;"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC, pg_monitor"
    )
    visitor.catch_up()
    replicas = [Replica(as_visitor(server), server.name) for server in visitor.replicas]
    try:
        findings = await found(ReplicationSettings(primary=as_visitor(primary), replicas=replicas))
    finally:
        primary.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    assert {(finding.kind, finding.severity) for finding in findings} == {("not-examined", "advice")}
    assert "pg_control_system (42501)" in findings[0].message or "pg_control_system" in findings[0].message


async def test_a_user_with_a_limit_of_one_connection(visitor: LocalCluster) -> None:
    """The failure of the second connection is not taken for a pooler."""
    visitor.primary.execute("ALTER ROLE visitor CONNECTION LIMIT 1")
    visitor.catch_up()
    findings = await found(ReplicationSettings(primary=as_visitor(visitor.primary)))
    assert {finding.kind for finding in findings} == {"not-examined", "privileges", "connection-budget"}
    assert "a second connection" in next(one.message for one in findings if one.kind == "not-examined")


async def test_a_replica_can_have_its_own_lag_limit(good_cluster: LocalCluster) -> None:
    """The limit of the settings applies to the others."""
    own = Replica(good_cluster.replicas[0].url, "own", max_lag=dt.timedelta(seconds=7))
    other = Replica(good_cluster.replicas[1].url, "other")
    examination = await examine(settings_of(good_cluster, replicas=[own, other], max_lag=None), workers=1)
    assert [server.max_lag for server in examination.replicas] == [7.0, None]


async def test_a_primary_that_is_gone_leaves_the_replicas_to_be_examined(good_cluster: LocalCluster) -> None:
    """Their lag is unknown then."""
    gone = good_cluster.primary.url.replace(f":{good_cluster.primary.port}/", f":{free_port()}/")
    examination = await examine(settings_of(good_cluster, primary=gone), workers=1)
    assert {finding.kind for finding in findings_of(examination)} == {"unreachable"}
    assert [server.behind for server in examination.replicas] == [None, None]


# Poolers

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@contextlib.contextmanager
def pgbouncer(server: LocalServer, folder: pathlib.Path, mode: str) -> collections.abc.Iterator[str]:
    """Run pgbouncer in front of a server, and yield the URL through it."""
    port, user = free_port(), "nobody"
    password = server.url.split(":")[2].partition("@")[0]
    (folder / "users").write_text(f'"postgres" "{password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
        [databases]
        postgres = host=127.0.0.1 port={server.port} dbname=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = plain
        auth_file = {folder}/users
        pool_mode = {mode}
        ignore_startup_parameters = extra_float_digits
        """
    )
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in folder.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    runs_as = ["-u", user] if os.geteuid() == 0 else []
    command = [str(PGBOUNCER), *runs_as, str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        yield server.url.replace(f":{server.port}/", f":{port}/")
    finally:
        process.terminate()
        process.wait(10)


async def behind(url: str, cluster: LocalCluster, **options: typing.Any) -> list[Finding]:
    """Examine a replica behind a pooler once the pooler answers."""
    settings = settings_of(cluster, replicas=[Replica(url, "pooled", **options)])
    findings: list[Finding] = []

    async def is_reached() -> bool:
        findings[:] = await found(settings)
        return all(finding.kind != "unreachable" for finding in findings)

    await until(is_reached)
    return findings


@needs_pgbouncer
async def test_a_pooler_in_transaction_mode(good_cluster: LocalCluster, tmp_path: pathlib.Path) -> None:
    """Its prepared statements fail unless it is declared."""
    with pgbouncer(good_cluster.replicas[0], tmp_path, "transaction") as url:
        await behind(url, good_cluster)  # at the second examination, names are in use
        findings = await behind(url, good_cluster)
        assert {("pooler", "pooled"), ("prepared-statements", "pooled")} <= kinds(findings)
        assert await behind(url, good_cluster, pooled=True) == []


@needs_pgbouncer
async def test_a_pooler_in_session_mode(good_cluster: LocalCluster, tmp_path: pathlib.Path) -> None:
    """It is advice: sessions work, but the monitor probes the pooler."""
    with pgbouncer(good_cluster.replicas[0], tmp_path, "session") as url:
        (finding,) = await behind(url, good_cluster)
    assert (finding.kind, finding.server, finding.severity) == ("pooler", "pooled", "advice")


@needs_pgbouncer
async def test_an_in_hot_standby_that_is_not_true(disposable_cluster: LocalCluster, tmp_path: pathlib.Path) -> None:
    """The pooler repeats the value of its first connection, and the server has been promoted since."""
    replica = disposable_cluster.replicas[0]
    with pgbouncer(replica, tmp_path, "session") as url:
        await behind(url, disposable_cluster)
        replica.promote()
        findings = await behind(url, disposable_cluster)
    assert ("in-hot-standby", "pooled") in kinds(findings)


def test_every_finding_has_a_page() -> None:
    """The finding has one sentence about the remedy; the page explains it."""
    finding = Finding(kind="lag", server="a", message="", remedy="")
    assert finding.page.endswith("/doctor/#lag")
    assert dataclasses.asdict(finding)["severity"] == "problem"
