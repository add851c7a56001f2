"""The claims of `tests/session/test_replica.py`, on synchronous sessions."""

from tests.session import test_replica
from tests.sync.awaitable import hold_to


# The excluded one awaits a separate transaction; see `test_session.py`.
hold_to(
    test_replica, globals(), without=("test_a_transaction_of_a_test_is_joined_by_a_savepoint_once_it_has_escalated",)
)
