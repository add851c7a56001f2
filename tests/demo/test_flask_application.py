import asyncio

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.demo.application import Base
from modern_di_replicas.demo.flask_application import visit_flask
from modern_di_replicas.testing import LocalCluster
from tests.demo.test_scenario import Notes, paused


async def create_tables(url: str) -> None:
    engine = create_async_engine(make_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def test_a_client_of_flask_reads_its_writes(settings: ReplicationSettings, replicated_cluster: LocalCluster) -> None:
    """While no replica has the write, the primary answers; before the write, a replica does."""
    asyncio.run(create_tables(settings.declared_primary.url))
    replicated_cluster.catch_up()
    notes = Notes()
    with paused(replicated_cluster):
        exchanges = visit_flask(settings, notes)
    assert notes.seen == exchanges
    first, *others = [exchange.report for exchange in exchanges]
    assert (first.in_recovery, first.intent, first.has_token) == (True, "read", False)
    assert [(report.in_recovery, report.intent, report.marker) for report in others] == [
        (False, "write", ""),
        (False, "read", ""),
        (False, "read", "@read_intent"),
    ]
