import logging
import typing

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from modern_di_replicas import Intent, Monitor
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "no monitor runs" in record.message]


async def test_a_read_from_a_replica_without_a_monitor_is_warned_about_once(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing else would report a missing `setup_replicas` or lifespan."""
    async with serving(replicated_cluster) as servers:
        for _ in range(3):
            servers.replica.choose()
    assert len(warnings(caplog)) == 1
    assert "setup_replicas(app, container)" in warnings(caplog)[0]
    assert caplog.records[0].levelno == logging.WARNING


async def test_no_warning_where_a_monitor_runs_or_no_replica_is_read(
    replicated_cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A correct set-up logs no warning."""
    async with serving(replicated_cluster) as servers, Monitor(servers.replica):
        servers.replica.choose()
    without: dict[str, typing.Any] = {"replicas": []}
    async with serving(replicated_cluster, **without) as servers:
        assert isinstance(servers.replica.choose_for(Intent.read()), AsyncEngine)
    assert warnings(caplog) == []
