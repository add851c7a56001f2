"""The engine behind `rolled_back`; `test_rolled_back.py` contains most tests."""

import dataclasses

import pytest
from modern_di import Container, Scope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from modern_di_replicas import Dependencies, Intent, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.errors import SharedConnectionBusyError
from modern_di_replicas.testing import rolled_back
from modern_di_replicas.testing.shared_engine import ON_THE_ENGINE, name_of


async def test_core_on_the_engine_has_a_turn_like_a_unit_of_work(database: ReplicationSettings) -> None:
    """Its uncommitted change is not interrupted, and the error of waiting units names the holder of the connection."""
    async with (
        Container(groups=[Dependencies], context={ReplicationSettings: database}) as container,
        rolled_back(container, timeout=0.05),
    ):
        engine = container.resolve(PrimaryEngine)
        assert container.resolve(ReplicaEngine) is engine  # type: ignore[comparison-overlap]  # replaced for the test
        assert isinstance(engine, AsyncEngine)
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE kept (n int)"))
            async with container.build_child_container(scope=Scope.REQUEST, context={Intent: Intent.read()}) as unit:
                with pytest.raises(SharedConnectionBusyError) as caught:
                    await unit.resolve(AsyncSession).execute(text("SELECT 1"))
    assert caught.value.holding == ON_THE_ENGINE


def test_a_unit_of_work_is_named_by_its_endpoint_if_it_has_one() -> None:
    """A job has no endpoint; its reason is used."""
    assert name_of(dataclasses.replace(Intent.read(), endpoint="shop.list_orders")) == "shop.list_orders (declared)"
    assert name_of(Intent.read(reason="a nightly report")) == "a unit of work (a nightly report)"
