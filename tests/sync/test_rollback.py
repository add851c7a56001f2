"""The claims of `tests/session/test_rollback.py`, on synchronous sessions."""

from tests.session import test_rollback
from tests.sync.awaitable import hold_to


hold_to(test_rollback, globals())
