import pytest

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing import LocalCluster, LocalServer


def test_a_replica_that_cannot_catch_up_is_named(
    replicated_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its position, and the expected position."""
    primary, replica = replicated_cluster.primary, replicated_cluster.replicas[0]
    execute = LocalServer.execute

    def lag(server: LocalServer, sql: str, *, timeout: float = 30.0) -> str:
        if server is replica and "coalesce" in sql:
            return "f"
        return execute(server, sql, timeout=timeout)

    monkeypatch.setattr(LocalServer, "execute", lag)
    with pytest.raises(ServerFailedError) as caught:
        replicated_cluster.catch_up(timeout=0.1)

    assert caught.value.server == replica.name
    assert caught.value.action == "catch up within 0.1 s"
    assert primary.name in caught.value.output


def test_the_newest_promoted_server_is_the_one_to_catch_up_with(disposable_cluster: LocalCluster) -> None:
    """After two promotions, the later timeline wins, unless the first primary is still one."""
    first, second = disposable_cluster.replicas
    first.promote()
    disposable_cluster.catch_up()
    disposable_cluster.primary.stop()
    second.follow(first)
    second.promote()
    second.execute("CREATE TABLE t AS SELECT 1 AS number")
    first.follow(second)

    disposable_cluster.catch_up()

    assert first.execute("SELECT number FROM t") == "1"
