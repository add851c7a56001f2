import pytest

from benchmarks.contenders.catalogue import AUTOCOMMIT
from benchmarks.plan import ELEVEN_STATEMENTS, KEYED_READ, ONE_STATEMENT
from benchmarks.results import Results, Spread
from tests.benchmarks.made_up import samples


def test_a_spread_is_the_median_and_its_quartiles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7]) == Spread(median=7, low=7, high=7)


def test_a_ratio_compares_the_runs_of_one_round() -> None:
    """INVARIANT: a machine that slows down half-way slows both runs of a round, and leaves their ratio alone."""
    results = Results()
    results.samples[KEYED_READ, "ours"] = samples(100, 400, 1600)
    results.samples[KEYED_READ, "theirs"] = samples(200, 800, 3200)
    assert results.ratio(KEYED_READ, "ours", "theirs") == Spread(median=0.5, low=0.5, high=0.5)


def test_the_own_cost_is_split_into_request_and_statement() -> None:
    results = Results()
    results.samples[ONE_STATEMENT, "ours"] = samples(100 + 20 + 5)
    results.samples[ELEVEN_STATEMENTS, "ours"] = samples(1100 + 20 + 55)
    results.samples[ONE_STATEMENT, AUTOCOMMIT.name] = samples(100)
    results.samples[ELEVEN_STATEMENTS, AUTOCOMMIT.name] = samples(1100)
    cost = results.own_cost(ONE_STATEMENT, ELEVEN_STATEMENTS, AUTOCOMMIT.name, "cpu")
    assert cost.request.median == pytest.approx(20e-6)
    assert cost.statement.median == pytest.approx(5e-6)
    assert cost.share == pytest.approx(25 / 125)
