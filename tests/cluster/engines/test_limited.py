"""The limit on reads that fall back to the primary."""

from sqlalchemy.ext.asyncio import create_async_engine

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.cluster.engines.create import create_primary_engine
from modern_di_replicas.cluster.engines.limited import FallbackLimit, LimitedEngine


URL = "postgresql+asyncpg://app@db-1/shop"


def test_an_engine_is_limited_once_with_any_execution_options() -> None:
    """INVARIANT: an engine that is limited twice would count each read twice."""
    limit = FallbackLimit(1, timeout=1.0)
    limited = limit.applied_to(create_primary_engine(ReplicationSettings(primary=URL)).sync_engine)
    optioned = limited.execution_options(stream_results=True)

    assert isinstance(limited, LimitedEngine)
    assert isinstance(optioned, LimitedEngine)
    assert optioned.get_execution_options()["stream_results"] is True
    assert limit.applied_to(limited) is limited
    assert limit.applied_to(optioned) is optioned


def test_an_engine_with_a_foreign_pool_is_not_limited() -> None:
    """Such a pool does not report returned connections, so the limit would never be released."""
    engine = create_async_engine(URL).sync_engine

    assert FallbackLimit(1, timeout=1.0).applied_to(engine) is engine
