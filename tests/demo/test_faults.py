"""Faults of the servers in `demo --serve`."""

import pytest

from modern_di_replicas.demo.faults import MEANINGS, Faults, NotPossibleError
from modern_di_replicas.testing import LocalCluster


async def test_each_fault_changes_a_server_and_the_possible_faults(
    disposable_cluster: LocalCluster,
) -> None:
    """The state is that of the processes; only faults that change something are offered."""
    faults = Faults(disposable_cluster)
    assert faults.possible("primary") == ("freeze", "crash")
    assert faults.possible("replica-1") == ("freeze", "crash", "lag", "promote")
    for fault, state, possible in (
        ("freeze", "frozen", ("thaw", "crash")),
        ("thaw", "running", ("freeze", "crash", "lag", "promote")),
        ("lag", "replay held", ("freeze", "crash", "resume", "promote")),
        ("resume", "running", ("freeze", "crash", "lag", "promote")),
        ("lag", "replay held", ("freeze", "crash", "resume", "promote")),
        ("crash", "crashed", ("start",)),
        ("start", "running", ("freeze", "crash", "lag", "promote")),
    ):
        await faults.commit(fault, "replica-1")
        assert (faults.state("replica-1"), faults.possible("replica-1")) == (state, possible)
        assert faults.doing == ""


async def test_a_promotion_moves_the_primary_and_every_other_server_follows(disposable_cluster: LocalCluster) -> None:
    """Including a frozen primary and a crashed replica, with a promoted replica that lagged."""
    primary, first, second = disposable_cluster.servers
    primary.execute("CREATE TABLE t AS SELECT 1 AS number")
    disposable_cluster.catch_up()
    faults = Faults(disposable_cluster)
    await faults.commit("lag", "replica-2")
    await faults.commit("crash", "replica-1")
    await faults.commit("freeze", "primary")
    await faults.commit("promote", "replica-2")
    assert faults.primary == "replica-2"
    assert [faults.state(server.name) for server in disposable_cluster.servers] == ["running"] * 3
    assert faults.candidates("promote") == ["primary", "replica-1"]
    second.execute("INSERT INTO t VALUES (2)")
    disposable_cluster.catch_up()
    assert primary.execute("SELECT count(*) FROM t") == first.execute("SELECT count(*) FROM t") == "2"


@pytest.mark.parametrize(
    ("fault", "server", "words"),
    [
        ("burn", "replica-1", f"'burn' is unknown: choose {', '.join(MEANINGS)}"),
        ("crash", "replica-9", "There is no server 'replica-9': choose primary, replica-1, replica-2"),
        ("promote", "primary", "primary is running: freeze, crash is possible there"),
        ("thaw", "replica-1", "replica-1 is running: freeze, crash, lag, promote is possible there"),
    ],
)
async def test_an_impossible_fault_is_refused_with_the_possible_ones(
    replicated_cluster: LocalCluster, fault: str, server: str, words: str
) -> None:
    """No server is changed."""
    with pytest.raises(NotPossibleError) as caught:
        await Faults(replicated_cluster).commit(fault, server)
    assert str(caught.value) == words
