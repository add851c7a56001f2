"""The engines and connections of the asynchronous and the synchronous half."""

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from modern_di_replicas.cluster.engines.either import sync_of
from tests.unconnected import engines


def test_a_session_is_bound_to_the_synchronous_engine_of_either_half() -> None:
    """An asynchronous engine wraps a synchronous one."""
    primary, _ = engines()
    plain = create_engine("sqlite://")
    assert sync_of(primary) is primary.sync_engine
    assert sync_of(plain) is plain


def test_execution_options_are_those_of_a_copy() -> None:
    """The application's engine keeps its own options."""
    primary, _ = engines()
    optioned = sync_of(primary, stream_results=True)
    assert optioned.get_execution_options()["stream_results"]
    assert not primary.get_execution_options()
    assert optioned.engine.pool is primary.pool


def test_a_connection_is_bound_as_it_is() -> None:
    """A test has begun a transaction on it; a copy with other options would not be in it."""
    primary, _ = engines()
    with create_engine("sqlite://", poolclass=NullPool).connect() as connection:
        assert sync_of(connection, stream_results=True) is connection
        assert sync_of(AsyncConnection(primary, connection), stream_results=True) is connection
