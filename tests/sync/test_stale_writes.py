"""The claims of `tests/session/test_stale_writes.py`, on synchronous sessions."""

from tests.session import test_stale_writes
from tests.sync.awaitable import hold_to


hold_to(test_stale_writes, globals())
