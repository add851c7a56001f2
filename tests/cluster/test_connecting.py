"""The arguments of the driver's `connect`, for each server."""

import typing

import pytest
from sqlalchemy import text

from modern_di_replicas import Replica
from modern_di_replicas.cluster.connecting import connect_args
from modern_di_replicas.testing import LocalCluster
from tests.pgbouncer import not_behind_a_pooler
from tests.session.conftest import serving


@not_behind_a_pooler("it refuses settings of a connection")
@pytest.mark.parametrize(
    ("common", "own", "expected"),
    [
        ({"jit": "off"}, {"work_mem": "9MB"}, {"jit": "off", "work_mem": "9MB"}),
        ({"jit": "off"}, {"jit": "on"}, {"jit": "on"}),
        ({"jit": "off"}, None, {"jit": "off"}),
        (None, {"jit": "on"}, {"jit": "on"}),
    ],
)
async def test_a_servers_settings_are_added_to_those_of_all_servers(
    replicated_cluster: LocalCluster, common: typing.Any, own: typing.Any, expected: dict[str, str]
) -> None:
    """INVARIANT: a server's `work_mem` does not remove the `jit` of all servers."""
    if "asyncpg" not in replicated_cluster.primary.url:
        pytest.skip("psycopg has one string of options, which a server replaces")
    server = Replica(
        replicated_cluster.replicas[0].url, connect_args={"server_settings": own} if own is not None else {}
    )
    async with serving(
        replicated_cluster, replicas=[server], connect_args={"server_settings": common} if common is not None else {}
    ) as servers:
        given = connect_args(servers.settings, server, "monitor")["server_settings"]
        async with servers.session() as session:
            shown = {name: await session.scalar(text(f"SHOW {name}")) for name in expected}
    assert shown == expected
    assert given == {"application_name": f"{servers.settings.application_name}-monitor", **expected}


async def test_other_arguments_of_a_server_replace_those_of_all(replicated_cluster: LocalCluster) -> None:
    """An argument that is not a mapping has one value."""
    own, common = "one of its own", "one of all"
    server = Replica(replicated_cluster.replicas[0].url, connect_args={"password": own})
    async with serving(replicated_cluster, replicas=[server], connect_args={"password": common}) as servers:
        given = connect_args(servers.settings, server, "replica")
    assert given["password"] == own
