from modern_di_replicas.testing import LocalCluster


def test_the_shared_cluster_replicates(replicated_cluster: LocalCluster) -> None:
    """What the primary commits, both replicas show."""
    replicated_cluster.primary.execute("CREATE TABLE fixture_rows AS SELECT 1 AS number")
    replicated_cluster.catch_up()

    answers = [replica.execute("SELECT number FROM fixture_rows") for replica in replicated_cluster.replicas]

    assert answers == ["1", "1"]


def test_the_disposable_cluster_is_another_one(
    replicated_cluster: LocalCluster, disposable_cluster: LocalCluster
) -> None:
    """What a test breaks in it does not reach the others, and both run at once."""
    disposable_cluster.primary.stop("immediate")

    assert not disposable_cluster.primary.is_running()
    assert replicated_cluster.primary.execute("SELECT 1") == "1"
