"""The claims of `tests/session/test_another_replica.py`, on synchronous sessions."""

from tests.session import test_another_replica
from tests.sync.awaitable import hold_to


hold_to(test_another_replica, globals(), in_threads=True)
