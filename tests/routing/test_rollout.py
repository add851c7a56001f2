import collections.abc
import logging
import typing

import pytest

from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.routing.rollout import Rollout


KEYS = [f"user-{number}" for number in range(2000)]


def shared(rollout: Rollout, keys: collections.abc.Iterable[str | None]) -> set[str | None]:
    return {key for key in keys if rollout.kept_on_primary(key) is None}


def test_a_share_is_a_share_of_the_keys() -> None:
    """Within a few percent, because a hash distributes them."""
    assert len(shared(Rollout(share=0.25), KEYS)) == pytest.approx(500, abs=100)


def test_a_key_stays_where_it_is_and_a_growing_share_only_adds_keys() -> None:
    """INVARIANT: a user does not alternate between replicas and primary from request to request."""
    small = shared(Rollout(share=0.1), KEYS)
    assert small == shared(Rollout(share=0.1), KEYS)
    assert small < shared(Rollout(share=0.5), KEYS) < shared(Rollout(share=1.0), KEYS)


def test_without_a_key_the_share_is_drawn() -> None:
    """For each unit of work."""
    rollout = Rollout(share=0.5)
    kept = sum(rollout.kept_on_primary(None) is not None for _ in range(2000))
    assert kept == pytest.approx(1000, abs=200)


@pytest.mark.parametrize("key", [None, "user-1"])
def test_a_share_of_0_keeps_all_reads_on_the_primary_and_1_keeps_none(key: str | None) -> None:
    """Both ends of the range are exact."""
    assert Rollout(share=0).kept_on_primary(key) == (
        Cause.NOT_SHARED,
        "the share of reads that use replicas is 0",
    )
    assert Rollout(share=1).kept_on_primary(key) is None
    assert Rollout(enabled=False).kept_on_primary(key) == (Cause.DISABLED, "replicas are disabled")


def test_a_callable_share_is_called_for_each_choice() -> None:
    """The share can change while the application runs."""
    shares = iter([0.0, 1.0, 0.0])
    rollout = Rollout(share=lambda: next(shares))
    assert [rollout.kept_on_primary("a") is None for _ in range(3)] == [False, True, False]


def test_a_callable_that_fails_keeps_reads_on_the_primary_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The primary is always right."""

    def fail() -> float:
        return typing.cast(float, "much")

    rollout = Rollout(share=fail)
    with caplog.at_level(logging.ERROR):
        assert [rollout.kept_on_primary("a") is None for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        (Rollout(), True),
        (Rollout(share=0.99), False),
        (Rollout(share=lambda: 1.0), False),
        (Rollout(enabled=False), False),
        (Rollout(shadow=True), False),
    ],
)
def test_a_constant_complete_rollout_is_not_evaluated(rollout: Rollout, expected: bool) -> None:
    """The usual case costs nothing."""
    assert rollout.is_complete is expected
