"""The number of connections the application may open on each server."""

import typing

import pytest

from modern_di_replicas.doctor.budget import budgets
from tests.doctor.made_up import examination, primary, replica


LIMITS = {"max_connections": "100", "superuser_reserved_connections": "3", "reserved_connections": "2"}


@pytest.mark.parametrize(
    ("facts", "arithmetic", "fits"),
    [
        ({}, "2 workers x (15 + 1) = 32, of 100 - 5 reserved = 95", True),
        ({"connections": 70}, "2 workers x (15 + 1) = 32, of 100 - 5 reserved - 70 in use by others = 25", False),
        ({"role_limit": 31}, "2 workers x (15 + 1) = 32, of 31, the CONNECTION LIMIT of its role", False),
        ({"role_limit": -1}, "2 workers x (15 + 1) = 32, of 100 - 5 reserved = 95", True),
    ],
)
def test_the_arithmetic_is_shown(facts: dict[str, typing.Any], arithmetic: str, fits: bool) -> None:
    """Workers times pool and monitor, compared with the lowest limit."""
    (budget,) = budgets(examination(primary(settings=LIMITS, **facts), workers=2))
    assert (budget.arithmetic, budget.fits) == (arithmetic, fits)


def test_a_replica_is_counted_with_the_larger_pool() -> None:
    """After a failover it uses the pool size of the primary."""
    one, other = budgets(examination(primary(settings=LIMITS), replica(settings=LIMITS)))
    assert one.needed == other.needed == 16
    assert one.arithmetic.startswith("1 worker x")


def test_a_server_behind_a_pooler_has_no_budget() -> None:
    """Behind a pooler, the pooler's limits count; unanswered limits are unknown."""
    servers = primary(settings=LIMITS, pooling="transaction"), replica(settings={})
    assert list(budgets(examination(*servers))) == []
