"""The servers of the demo, from their own reports."""

from modern_di_replicas.demo.topology import ANALYTICS, describe, settings_for
from modern_di_replicas.servers import DEFAULT_GROUP
from modern_di_replicas.testing import LocalCluster


def test_all_replicas_serve_reads_and_the_last_one_analytics_too(replicated_cluster: LocalCluster) -> None:
    """One replica demonstrates groups."""
    settings = settings_for(replicated_cluster)
    assert [(replica.label, set(replica.groups)) for replica in settings.servers] == [
        ("replica-1", {DEFAULT_GROUP}),
        ("replica-2", {DEFAULT_GROUP, ANALYTICS}),
    ]


async def test_each_server_reports_its_own_role(replicated_cluster: LocalCluster) -> None:
    """Only its groups come from the settings."""
    primary, first, second = await describe(replicated_cluster, settings_for(replicated_cluster))
    assert [server.port for server in (primary, first, second)] == [one.port for one in replicated_cluster.servers]
    assert (primary.in_recovery, primary.receiving, primary.groups) == (False, "", ())
    assert (first.in_recovery, first.receiving, first.groups) == (True, "streaming", ("default",))
    assert second.groups == ("default", "analytics")
    assert primary.version == first.version
    assert "/" in second.lsn
