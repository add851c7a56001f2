"""The attribution of errors during a checkout; `tests/session/test_listeners.py` tests the consequences."""

import typing

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from modern_di_replicas.cluster.failures import Failure, classify
from modern_di_replicas.cluster.pools.attribution import attribute_checkouts
from modern_di_replicas.testing import LocalCluster
from tests.driver import UNREACHABLE


def attributing(url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    attribute_checkouts(engine.sync_engine)
    return engine


async def test_an_error_of_connecting_is_the_servers(replicated_cluster: LocalCluster) -> None:
    """No server listens there: the connection is refused, and another server may accept it."""
    port = replicated_cluster.primary.port
    engine = attributing(replicated_cluster.primary.url.replace(f":{port}/", ":1/"))
    with pytest.raises(UNREACHABLE) as caught:
        await engine.connect()
    assert classify(caught.value) is Failure.DOWN


@pytest.mark.parametrize(("ends", "meaning"), [(True, Failure.LOST), (False, Failure.OWN)])
async def test_an_error_in_a_checkout_is_the_servers_if_the_connection_is_gone(
    replicated_cluster: LocalCluster, ends: bool, meaning: Failure
) -> None:
    """Independent of its type: a listener may wrap the driver's error."""
    engine = attributing(replicated_cluster.primary.url)

    @event.listens_for(engine.sync_engine, "checkout")
    def fail(connection: typing.Any, *_: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())" if ends else "SELECT no_such_column")
        except Exception as error:
            raise LookupError from error

    with pytest.raises(LookupError) as caught:
        await engine.connect()
    assert classify(caught.value) is meaning
    await engine.dispose()
