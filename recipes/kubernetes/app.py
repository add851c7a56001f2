"""Probes for Kubernetes and metrics for Prometheus from the monitor's snapshot: no probe queries a database.

Run it:

    export PRIMARY_URL=postgresql+asyncpg://app:secret@db-1/shop
    export REPLICA_URLS="postgresql+asyncpg://app:secret@db-2/shop postgresql+asyncpg://app:secret@db-3/shop"
    uvicorn --factory app:main

In the Deployment:

    livenessProbe:  {httpGet: {path: /health/live, port: 8000}}
    readinessProbe: {httpGet: {path: /health/ready, port: 8000}, periodSeconds: 5}
"""

import os
from typing import Annotated, Any

import fastapi
from modern_di import Container
from modern_di_fastapi import FromDI
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from modern_di_replicas import ReplicaEngine, ReplicationSettings, Role
from modern_di_replicas.fastapi import Dependencies, setup_replicas
from modern_di_replicas.observability import PrometheusHook


router = fastapi.APIRouter()


@router.get("/health/live")
async def live() -> str:
    """Report that the process works: an unavailable database is no reason to restart it."""
    return "ok"


@router.get("/health/ready")
async def ready(
    replicas: Annotated[ReplicaEngine, FromDI(ReplicaEngine)], response: fastapi.Response
) -> dict[str, Any]:
    """Report whether any server can serve requests; without a primary, reads still work."""
    snapshot = replicas.snapshot
    if snapshot is None:  # no replicas are declared, so no monitor runs
        return {"servers": {}}
    states = snapshot.servers.values()
    if not any(state.role in (Role.PRIMARY, Role.STANDBY) for state in states):
        response.status_code = 503
    return {"servers": {state.name: {"role": state.role.value, "lag": state.lag_seconds} for state in states}}


def create_app(settings: ReplicationSettings, registry: CollectorRegistry = REGISTRY) -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    app.include_router(router)

    @app.get("/metrics")
    async def metrics() -> fastapi.Response:
        return fastapi.Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    setup_replicas(app, Container(groups=[Dependencies], context={ReplicationSettings: settings}))
    return app


def main() -> fastapi.FastAPI:
    return create_app(
        ReplicationSettings(
            primary=os.environ["PRIMARY_URL"],
            replicas=os.environ["REPLICA_URLS"].split(),
            hooks=[PrometheusHook()],
        )
    )
