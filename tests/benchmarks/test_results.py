"""Figures are computed from pairs of the same round, and kept as JSON."""

import pathlib

from benchmarks.contenders.catalogue import OURS, OURS_20, RECIPE
from benchmarks.plan import KEYED_READ
from benchmarks.results import Results, Samples, Spread
from benchmarks.tables import render
from benchmarks.workers import ROOT
from tests.benchmarks.made_up import made_up_results, samples


def test_a_spread_is_the_median_and_its_quartiles() -> None:
    """A single value is all three."""
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7]) == Spread(median=7, low=7, high=7)


def test_a_ratio_compares_the_runs_of_one_round() -> None:
    """INVARIANT: a machine that slows down half-way slows both runs of a round, so their ratio does not change."""
    found = Samples()
    found[KEYED_READ, OURS.name] = samples(100, 400, 1600)
    found[KEYED_READ, RECIPE.name] = samples(200, 800, 3200)
    found[KEYED_READ, OURS_20.name] = samples(7, 7, 7)
    figures = found.figures()[KEYED_READ]
    assert figures[RECIPE.name].ratio == Spread(median=0.5, low=0.5, high=0.5)
    assert figures[OURS_20.name].ratio.median == 1


def test_results_survive_being_saved(tmp_path: pathlib.Path) -> None:
    """Rendering is a separate step, from the kept results alone."""
    results = made_up_results()
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_the_kept_report_is_that_of_the_kept_results() -> None:
    """`RESULTS.md` is generated; `python -m benchmarks --render` does it."""
    kept = ROOT / "benchmarks" / "results.json"
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == render(Results.load(kept))
