"""modern-di-pytest's fixtures with the testing kit."""

import collections.abc
import types
import typing

import pytest
from modern_di import Container, Scope
from modern_di_pytest import expose, modern_di_fixture
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from modern_di_replicas import Dependencies, Intent, ReplicationSettings, RoutedSession
from modern_di_replicas.testing import rolled_back


session = modern_di_fixture(AsyncSession, container_fixture="unit_of_work")


@pytest.fixture
async def di_container(database: ReplicationSettings) -> collections.abc.AsyncIterator[Container]:
    async with Container(groups=[Dependencies], context={ReplicationSettings: database}) as container:
        yield container


@pytest.fixture
async def connection(di_container: Container) -> collections.abc.AsyncIterator[AsyncConnection]:
    async with rolled_back(di_container) as connection:
        yield connection


@pytest.fixture
async def unit_of_work(
    di_container: Container, connection: AsyncConnection
) -> collections.abc.AsyncIterator[Container]:
    await connection.execute(text("CREATE TABLE word (text text)"))
    context = {Intent: Intent.read()}
    async with di_container.build_child_container(scope=Scope.REQUEST, context=context) as unit_of_work:
        yield unit_of_work


async def test_an_injected_session_is_a_fixture(session: AsyncSession, connection: AsyncConnection) -> None:
    """It works in the test's single transaction, for reads and writes."""
    await session.execute(text("INSERT INTO word VALUES ('hello')"))
    await session.commit()
    assert await session.scalar(text("SELECT text FROM word")) == "hello"
    assert await connection.scalar(text("SELECT count(*) FROM word")) == 1


async def test_the_writes_of_a_test_are_gone_in_the_next_one(session: AsyncSession) -> None:
    """The table is created for each test, empty."""
    assert await session.scalar(text("SELECT count(*) FROM word")) == 0


def test_every_provider_of_the_group_can_be_a_fixture() -> None:
    """`expose(Dependencies)` in a module without conflicting names."""
    module = types.ModuleType("a_conftest")
    expose(Dependencies, container_fixture="unit_of_work", module=module)
    assert {"settings", "primary", "replica", "intent", "engine", "session", "sessions"} <= set(vars(module))


routed = modern_di_fixture(RoutedSession, container_fixture="unit_of_work")


async def test_the_session_is_the_same_under_both_its_types(session: AsyncSession, routed: typing.Any) -> None:
    """As in a handler: one session per unit of work."""
    assert session is routed
