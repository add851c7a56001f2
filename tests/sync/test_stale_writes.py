"""The claims of `tests/session/test_stale_writes.py`, on synchronous sessions."""

import pytest

from modern_di_replicas import ReplicationSettings
from tests.session import test_stale_writes as claims
from tests.sync.awaitable import serving_awaitable


# A stream that is not read to its end leaves its cursor to the end of the transaction; psycopg minds.
pytestmark = pytest.mark.filterwarnings("ignore:.*ServerCursorMixin:pytest.PytestUnraisableExceptionWarning")

# Its tests, with their parameters: pytest collects them here too.
globals().update({name: test for name, test in vars(claims).items() if name.startswith("test_")})


@pytest.fixture(autouse=True)
def on_synchronous_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "serving", serving_awaitable)


@pytest.fixture
def shop_cluster(shop: ReplicationSettings) -> ReplicationSettings:
    """Give what the tests only pass on to `serving`."""
    return shop
