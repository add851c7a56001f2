import asyncio
import contextvars

import pytest

from modern_di_replicas import Monitor, PrimaryEngine, ReplicaEngine, ReplicationSettings, unit_of_work
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.outbox.app import Base, Event, Orders, create_container, handle, main, relay


async def test_a_handler_reads_the_order_of_its_event(
    disposable_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """The handler waits for a replica; nothing is published twice, or before it is committed."""
    settings = ReplicationSettings(
        primary=disposable_cluster.primary.url, replicas=[replica.url for replica in disposable_cluster.replicas]
    )
    published: list[str] = []

    async def publish(text: str) -> None:
        published.append(text)

    async with create_container(settings) as container, Monitor(container.resolve(ReplicaEngine)):
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await asyncio.to_thread(disposable_cluster.catch_up)
        for replica in disposable_cluster.replicas:
            replica.pause_replay()
        async with unit_of_work(container) as unit:
            await unit.resolve(Orders).place("Ada")
            await unit.resolve(Orders).place("Grace")
        assert [await relay(container, publish) for _ in range(2)] == [2, 0]
        assert [Event.from_json(text).order_id for text in published] == [1, 2]

        # The handler is another process, without writes.
        handling = asyncio.create_task(handle(container, published[0]), context=contextvars.Context())
        await asyncio.sleep(0)
        for replica in disposable_cluster.replicas:
            replica.resume_replay()
        assert await handling == "Thank you, Ada"
        assert routing_log.visits[-1].is_replica


async def test_the_program_relays_and_handles(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As run from a shell, here with a single server."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", "")
    async with create_container(database) as container:
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with unit_of_work(container) as unit:
            await unit.resolve(Orders).place("Ada")
    await main()
    assert capsys.readouterr().out == "Thank you, Ada\n"
