"""The server of each statement, as reported by the servers."""

import asyncio
import contextvars

import pytest
from modern_di import Container, Scope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import (
    STRONG,
    Dependencies,
    Intent,
    ReplicationSettings,
    WriteOnReplicaError,
    carried_token,
    unit_of_work,
)
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.testing import RoutingLog, routing_log, strict


async def run(settings: ReplicationSettings, intent: Intent, *statements: str) -> None:
    async with (
        Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container,
        container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit,
    ):
        session = unit.resolve(AsyncSession)
        for statement in statements:
            await session.execute(text(statement))
        await session.commit()


async def test_reads_of_a_replica_and_of_the_primary_are_distinguished(
    database: ReplicationSettings, routing_log: RoutingLog
) -> None:
    """By the server's name, and by the effect of each statement."""
    await run(database, Intent.read(), "SELECT 1", "SELECT 2")
    assert set(routing_log.servers) <= {"replica-1", "replica-2"}
    routing_log.assert_only_replicas()
    routing_log.assert_nothing_written()
    with pytest.raises(AssertionError, match=r"replicas ran statements:\nreplica-\d: SELECT 1"):
        routing_log.assert_only_primary()

    routing_log.clear()
    await run(database, Intent.write(), "SELECT 1", "CREATE TABLE word (text text)", "SELECT 2")
    assert [(visit.server, visit.wrote) for visit in routing_log.visits] == [
        ("primary", False),
        ("primary", True),
        ("primary", True),
    ]
    routing_log.assert_only_primary()
    with pytest.raises(AssertionError, match=r"primary \(wrote\): CREATE TABLE"):
        routing_log.assert_nothing_written()
    with pytest.raises(AssertionError, match="the primary ran statements"):
        routing_log.assert_only_replicas()


async def test_the_question_of_the_log_is_not_a_write(database: ReplicationSettings) -> None:
    """INVARIANT: it bypasses SQLAlchemy; counted as a write, it would keep the next read off the replicas."""
    client = Client(is_request=True)
    with routing_log() as log, request_of(client):
        await run(database, Intent.write(), "SELECT 1")
    log.assert_only_primary()
    assert not client.wrote


async def test_an_empty_log_fails_the_assertion() -> None:
    """A test must not pass if its request failed before the first statement."""
    with routing_log() as log:
        pass
    for assertion in (log.assert_only_replicas, log.assert_only_primary):
        with pytest.raises(AssertionError):
            assertion()
    log.assert_nothing_written()


async def test_strict_settings_raise_where_a_read_writes(database: ReplicationSettings) -> None:
    """A test needs the error; in production the unit of work moves to the primary."""
    with pytest.raises(WriteOnReplicaError):
        await run(strict(database), Intent.read(), "CREATE TABLE word (text text)")


async def test_the_log_makes_no_write_of_a_read(database: ReplicationSettings, routing_log: RoutingLog) -> None:
    """Its question to the primary writes nothing that a client has to read."""

    async def read() -> None:
        async with unit_of_work(container, intent=Intent.read(consistency=STRONG)) as unit:
            await unit.resolve(AsyncSession).scalar(text("SELECT 1"))
            routing_log.assert_only_primary()
            assert carried_token(container) is None

    async with Container(groups=[Dependencies], context={ReplicationSettings: database}) as container:
        await asyncio.create_task(read(), context=contextvars.Context())
