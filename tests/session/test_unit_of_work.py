"""State shared by the sessions of one unit of work."""

import collections.abc
import typing

import pytest

from modern_di_replicas import Cause, RoutedSession, StaleWriteError
from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.routing.decision import on_primary
from modern_di_replicas.session.unit_of_work import UnitOfWork
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving
from tests.session.models import Item
from tests.unconnected import engines


@pytest.mark.parametrize("settles", ["nothing", "replica", "escalation"])
def test_it_is_settled_with_the_first_session_that_knows_where_it_reads(settles: str) -> None:
    """From a replica, or from the primary after an escalation."""
    unit = UnitOfWork()
    if settles == "replica":
        unit.replica = typing.cast(OneReplicaRole, engines("db-2")[1].engines["db-2"])
    elif settles == "escalation":
        unit.escalation = on_primary(Cause.WROTE, "INSERT")
    assert unit.is_settled is (settles != "nothing")


Handing = collections.abc.Callable[[RoutedSession, RoutedSession, Item], collections.abc.Awaitable[Item]]


async def add_once_it_is_closed(first: RoutedSession, second: RoutedSession, item: Item) -> Item:
    await first.close()
    second.add(item)
    return item


async def add_once_it_is_expunged(first: RoutedSession, second: RoutedSession, item: Item) -> Item:
    first.expunge(item)
    second.add(item)
    return item


async def merge(first: RoutedSession, second: RoutedSession, item: Item) -> Item:  # noqa: ARG001  # which holds it
    return await second.merge(item)


@pytest.mark.parametrize("hand_over", [add_once_it_is_closed, add_once_it_is_expunged, merge])
async def test_objects_that_another_session_read_from_the_replica_are_not_written(
    shop_cluster: LocalCluster, hand_over: Handing
) -> None:
    """INVARIANT: tasks of a `gather` read with separate sessions, and pass their objects to the writing one."""
    async with serving(shop_cluster) as servers, servers.session() as first, servers.session() as second:
        unit = UnitOfWork()
        for session in (first, second):
            session.join_unit(unit)
        item = await hand_over(first, second, await first.get_one(Item, 1))
        item.amount += 1
        with pytest.raises(StaleWriteError):
            await second.flush()
        await second.rollback()


async def test_objects_that_another_session_read_from_the_primary_may_be_written(shop_cluster: LocalCluster) -> None:
    """They are not stale."""
    async with serving(shop_cluster) as servers, servers.session() as first, servers.session() as second:
        unit = UnitOfWork()
        for session in (first, second):
            session.join_unit(unit)
        item = await first.get_one(Item, 1, execution_options={"use_primary": True})
        await first.close()
        second.add(item)
        item.amount += 1
        await second.flush()
        await second.rollback()
