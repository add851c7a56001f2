"""The claims of `tests/cluster/test_lost_commits.py`, on synchronous engines."""

from tests.cluster import test_lost_commits
from tests.sync.awaitable import hold_to


cluster = test_lost_commits.cluster

hold_to(
    test_lost_commits,
    globals(),
    without=(
        "test_a_connection_class_that_reports_is_taken_as_it_is",
        "test_a_statement_that_was_prepared_past_sqlalchemy_counts_each_time_it_may_be_executed",
        "a connection class of its own",
        "transaction_of_the_driver",
        "statements_of_the_driver",
    ),
)
