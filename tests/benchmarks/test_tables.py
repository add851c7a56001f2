"""The limits and the tables are computed from the results of a run."""

import pytest

from benchmarks.contenders.catalogue import AUTOCOMMIT, BY_NAME, OURS, POOL, RECIPE
from benchmarks.plan import BUSY_GET, KEYED_READ, OTHER_DRIVERS, ROUTING, SAME_REPLICA, TOKEN_READ, TOKEN_WRITE
from benchmarks.results import Outcome, Results, Sample
from benchmarks.tables import README_FIGURE, render, summary, table, update, verdicts
from benchmarks.work.operations import OPERATIONS
from benchmarks.workers import ROOT
from tests.benchmarks.made_up import made_up_results, samples


def missed(results: Results) -> list[str]:
    return [verdict.limit for verdict in verdicts(results) if not verdict.is_kept]


def test_a_good_run_keeps_every_limit() -> None:
    """Proves that the limits can be met."""
    assert missed(made_up_results()) == []


def test_each_limit_can_be_missed() -> None:
    """A limit that cannot be missed proves nothing."""
    slow = samples(450, 450, 450)
    results = made_up_results(
        {(cell, OURS.name): slow for cell in (SAME_REPLICA, ROUTING, BUSY_GET, TOKEN_READ, TOKEN_WRITE)}
    )
    results.round_trips[KEYED_READ.operation][OURS.name] = 3
    for outcomes in results.faults.values():
        outcomes[OURS.name] = Outcome(reads=10, failed=1, stale=1, slowest=2.6)
    assert missed(results) == [verdict.limit for verdict in verdicts(results)]
    assert summary(results).count("| **no** |") == len(verdicts(results))


@pytest.mark.parametrize(
    ("ours", "recipe", "kept"), [(44, 100, True), (46, 100, False), (449, 1000, True), (451, 1000, False)]
)
def test_a_keyed_read_may_take_0_45_of_the_recipes_time(ours: float, recipe: float, *, kept: bool) -> None:
    """Issue 14 agreed on this limit, after the special handling of greenlets was removed."""
    results = made_up_results(
        {(SAME_REPLICA, OURS.name): samples(ours), (SAME_REPLICA, RECIPE.name): samples(recipe)}
        | {(SAME_REPLICA, other.name): samples(recipe) for other in (POOL, AUTOCOMMIT)}
    )
    assert verdicts(results)[0].is_kept is kept


def test_a_contender_that_is_faster_beyond_the_spread_is_named() -> None:
    """The report starts with the cases in which others are faster."""
    results = made_up_results({(BUSY_GET, POOL.name): samples(100, 101, 102)})
    assert "**asyncpg pool, no ORM** is faster in 1 of 16 measurements beyond the spread" in render(results)
    assert "is faster" not in render(made_up_results({(BUSY_GET, POOL.name): samples(150, 199, 201)}))


def test_drivers_and_poolers_are_shown_where_they_were_measured() -> None:
    """Results of earlier versions have none of them, and a machine without pgbouncer only some."""
    results = made_up_results()
    assert "| modern-di-replicas on psycopg | 200 / 200 |" in render(results)
    del results.cells[OTHER_DRIVERS]
    assert "## Drivers and poolers" not in render(results)


def test_a_contender_without_operations_is_not_slow() -> None:
    """A contender that fails is not a reference for ours."""
    results = made_up_results({(KEYED_READ, RECIPE.name): [Sample(0, 9, wall=1, cpu=1)] * 3})
    _, _, requests = render(results).partition("### Through the session alone, 1 client")
    row = next(line for line in requests.splitlines() if line.startswith("| modern-di docs recipe |"))
    assert "| failed |" in row
    assert row.count(" / ") == len(OPERATIONS) - 1


def test_a_contender_that_fails_fewer_reads_is_named() -> None:
    """The report names it, as it names a faster contender."""
    results = made_up_results()
    results.faults["crash"][OURS.name].failed = 1
    assert "While a replica crashes, fewer failed reads: modern-di docs recipe" in summary(results)


def test_every_contender_is_in_the_report() -> None:
    """Every measured contender is shown."""
    _, _, contenders = render(made_up_results()).partition("## Contenders")
    assert all(entry.title in contenders for entry in BY_NAME.values())


def test_a_table_has_its_figures_on_the_right() -> None:
    """Right-aligned figures can be compared digit by digit."""
    assert table(("", "µs"), [["a", "1"]]) == "|  | µs |\n| --- | ---: |\n| a | 1 |"


def test_the_figures_in_the_readme_are_those_of_the_run() -> None:
    """INVARIANT: a figure in the README without the comment before it is never updated."""
    readme = "reads take <!--read-of-recipe-->0.77 of it, <!--failed-->5 of <!--reads-->3 failed"
    results = made_up_results()
    assert update(readme, results) == (
        "reads take <!--read-of-recipe-->0.39 of it, <!--failed-->0 of <!--reads-->400 failed"
    )


def test_the_readme_has_figures_that_are_updated() -> None:
    """Each comment in the README names an existing figure."""
    readme = (ROOT / "README.md").read_text()
    assert len(README_FIGURE.findall(readme)) == readme.count("<!--") - readme.count("<!-- ")
    assert update(readme, made_up_results()) != readme
