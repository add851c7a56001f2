import asyncio
import collections.abc
import contextlib
import dataclasses

import fastapi
import httpx
import pytest
from prometheus_client import CollectorRegistry

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.observability import PrometheusHook
from modern_di_replicas.testing import LocalCluster
from recipes.kubernetes.app import create_app, main
from tests.waiting import until


@contextlib.asynccontextmanager
async def serving(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield client


async def test_it_is_ready_while_some_server_answers_and_alive_in_any_case(disposable_cluster: LocalCluster) -> None:
    """A pod without a database gets no requests, but is not restarted."""
    settings = ReplicationSettings(
        primary=disposable_cluster.primary.url,
        replicas=[server.url for server in disposable_cluster.replicas],
        probe_interval=0.05,
    )
    async with serving(create_app(settings, CollectorRegistry())) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert sorted(server["role"] for server in ready.json()["servers"].values()) == [
            "primary",
            "standby",
            "standby",
        ]
        await asyncio.to_thread(disposable_cluster.primary.stop, "immediate")
        assert (await client.get("/health/ready")).status_code == 200, "reads still work"
        for replica in disposable_cluster.replicas:
            await asyncio.to_thread(replica.stop, "immediate")

        async def is_unready() -> bool:
            return (await client.get("/health/ready")).status_code == 503

        await until(is_unready)
        assert (await client.get("/health/live")).status_code == 200


async def test_without_replicas_it_is_ready(database: ReplicationSettings) -> None:
    """In development no monitor runs."""
    async with serving(create_app(dataclasses.replace(database, replicas=()), CollectorRegistry())) as client:
        assert (await client.get("/health/ready")).json() == {"servers": {}}


async def test_metrics_are_scraped(database: ReplicationSettings) -> None:
    """They include the lag of each replica."""
    registry = CollectorRegistry()
    settings = dataclasses.replace(database, hooks=[PrometheusHook(registry=registry)])
    async with serving(create_app(settings, registry)) as client:
        text = (await client.get("/metrics")).text
    for replica in database.servers:
        assert f'db_server_up{{server="{replica.label}"}} 1.0' in text


def test_the_addresses_come_from_the_environment(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in production."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    assert main().title == "FastAPI"
