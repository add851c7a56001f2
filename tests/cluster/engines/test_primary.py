"""The server to which the engine of the primary connects."""

import asyncio

import pytest
from sqlalchemy import make_url, text

from modern_di_replicas import Monitor, Primary, PrimaryEngine, Replica, ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine
from modern_di_replicas.testing import LocalCluster
from tests.cluster.engines.test_create import shown
from tests.driver import TLS_LEVEL, UNREACHABLE, server_settings
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving
from tests.waiting import until


@not_behind_a_pooler("it has TLS of its own")
async def test_no_parameter_of_the_former_primarys_url_applies_to_the_next_one(
    replicated_cluster: LocalCluster,
) -> None:
    """INVARIANT: an inherited `ssl=require` would fail every write while the monitor reports a primary."""
    server = replicated_cluster.primary
    former = make_url(server.url).update_query_dict({TLS_LEVEL: "require"}).render_as_string(hide_password=False)
    engine: PrimaryEngine = create_primary_engine(ReplicationSettings(primary=former, application_name="follows"))
    with pytest.raises(UNREACHABLE, match="SSL"):
        await shown(engine, "port")

    engine.follow(server.url)

    assert await shown(engine, "port") == str(server.port)
    assert await shown(engine, "application_name") == "follows-primary"
    await engine.dispose()


@not_behind_a_pooler("it refuses settings of a connection")
async def test_a_promoted_server_is_reached_by_its_own_arguments(disposable_cluster: LocalCluster) -> None:
    """Independent of the server's role."""
    primary, first, second = disposable_cluster.servers
    given = [server_settings(work_mem=value) for value in ("3MB", "5MB", "7MB")]
    servers_of_settings = {
        "primary": Primary(primary.url, connect_args=given[0]),
        "replicas": [
            Replica(first.url, "first", connect_args=given[1]),
            Replica(second.url, "second", connect_args=given[2]),
        ],
    }
    options = {**servers_of_settings, "probe_interval": 0.1}
    async with serving(disposable_cluster, **options) as servers, Monitor(servers.replica):
        assert await shown(servers.primary, "work_mem") == "3MB"
        await asyncio.to_thread(primary.stop)
        await asyncio.to_thread(first.promote)
        await until(lambda: servers.replica.topology.leader == "first")
        async with servers.primary.connect() as connection:
            assert await connection.scalar(text("SHOW work_mem")) == "5MB"
            assert await connection.scalar(text("SHOW port")) == str(first.port)
