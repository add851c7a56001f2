"""The verdict and the tables are computed: whatever a run finds is what they say."""

import dataclasses

import pytest

from benchmarks.contenders.catalogue import CONTENDERS, ORM, OURS, POOL, RECIPE
from benchmarks.plan import (
    BUSY_GET,
    ELEVEN_STATEMENTS,
    KEYED_READ,
    ONE_STATEMENT,
    SAME_REPLICA,
    TOKEN_READ,
    TOKEN_WRITE,
)
from benchmarks.report import render, summary, table
from benchmarks.results import FaultOutcome, FreshnessOutcome, Results
from benchmarks.verdicts import OWN_COST, losses, rivals, verdicts
from benchmarks.work.operations import OPERATIONS
from tests.benchmarks.made_up import made_up_results, samples


@pytest.fixture
def results() -> Results:
    return made_up_results()


def missed(results: Results) -> list[str]:
    return [verdict.target for verdict in verdicts(results) if not verdict.reached]


def test_a_good_run_reaches_every_figure(results: Results) -> None:
    assert missed(results) == []


def test_each_figure_can_be_missed(results: Results) -> None:
    results.samples[SAME_REPLICA, OURS.name] = samples(450, 450, 450)
    results.samples[BUSY_GET, RECIPE.name] = samples(510, 510, 510)
    for cell, each in ((ONE_STATEMENT, 300), (ELEVEN_STATEMENTS, 2000)):
        results.samples[dataclasses.replace(cell, surface=OWN_COST), OURS.name] = samples(each, each)
    for cell in (TOKEN_READ, TOKEN_WRITE):
        results.samples[cell, OURS.name] = samples(1200, 1200)
    results.round_trips[KEYED_READ.operation, OURS.name] = 3
    for outcomes in results.faults.values():
        outcomes[OURS.name] = FaultOutcome(reads=10, failed=1, worst=2.6)
    results.freshness[OURS.name] = FreshnessOutcome(reads=100, on_replica=40, stale=1)
    assert missed(results) == [verdict.target for verdict in verdicts(results)]
    assert summary(results).count("| **no** |") == len(verdicts(results))


def test_a_contender_that_is_faster_beyond_the_spread_is_named(results: Results) -> None:
    losers = [loss.entry.name for loss in losses(results)]
    assert losers == [POOL.name]  # the made-up pool is faster at the keyed read, and level elsewhere
    assert "**raw asyncpg pool** is faster in 1 of 45 measurements beyond the spread, in 1 by" in render(results)


def test_a_contender_that_is_faster_within_the_spread_is_counted(results: Results) -> None:
    results.samples[BUSY_GET, POOL.name] = samples(520, 505, 500)
    assert "**raw asyncpg pool** is faster in 1 of 45 measurements beyond the spread, in 2 by" in render(results)


def test_every_rival_is_told_of_in_short(results: Results) -> None:
    """A quick run shows nothing else of them."""
    _, _, told = summary(results).partition("## In short")
    short, _, _ = told.partition("\n## ")
    assert all(f"| {entry.title} | " in short for entry in rivals())


def test_a_contender_that_did_nothing_is_not_slow(results: Results) -> None:
    results.samples[KEYED_READ, RECIPE.name] = [dataclasses.replace(sample, done=0) for sample in samples(1, 1, 1)]
    _, _, table = render(results).partition("### Through the bare session, 1 client")
    row = next(line for line in table.splitlines() if line.startswith("| modern-di recipe | failed"))
    assert row.count(" / ") == len(OPERATIONS) - 1


def test_whom_a_ratio_is_of_has_a_line_of_its_own(results: Results) -> None:
    """Advanced Alchemy needs an older SQLAlchemy, where ours takes another time."""
    assert "| modern-di-replicas, SQLAlchemy 2.0, µs | 510 / 510 |" in render(results)


def test_the_share_of_the_orm_is_told(results: Results) -> None:
    assert "takes 1.10 (1.10 to 1.10) of the raw asyncpg pool's time" in summary(results)
    row = next(line for line in render(results).splitlines() if line.startswith("| SQLAlchemy's Session alone"))
    assert row == "| SQLAlchemy's Session alone | 0.96 (0.96 to 0.96) / 0.96 |  |  |  |  |"


def test_what_taking_turns_between_two_replicas_takes_is_told(results: Results) -> None:
    """The figures to reach are of one replica; nobody is to take them for more."""
    results.samples[KEYED_READ, OURS.name] = samples(380, 380, 380)
    assert missed(results) == []
    results.samples[SAME_REPLICA, OURS.name] = samples(*[201] * 7)
    results.samples[SAME_REPLICA, POOL.name] = results.samples[SAME_REPLICA, ORM.name] = samples(*[190] * 7)
    results.samples[SAME_REPLICA, RECIPE.name] = samples(*[510] * 7)
    told = summary(results)
    assert "takes 2.00 (2.00 to 2.00) of the pool's time" in told
    assert "median of the rounds (3 to 7 of" in told


def test_a_contender_that_fails_fewer_reads_is_named(results: Results) -> None:
    results.faults["crash"][OURS.name].failed = 1
    assert "While a replica crashes, modern-di recipe" in summary(results)


def test_the_report_has_every_contender_in_every_section(results: Results) -> None:
    sections = render(results).split("\n## ")[1:]
    by_title = {section.partition("\n")[0]: section for section in sections}
    for title in ("Requests", "What the library itself costs", "Faults", "Who takes part"):
        assert all(entry.title in by_title[title] for entry in CONTENDERS), title


def test_a_table_has_its_figures_on_the_right() -> None:
    assert table(("", "µs"), [["a", "1"]]) == "|  | µs |\n| --- | ---: |\n| a | 1 |"


def test_a_busy_machine_is_told(results: Results) -> None:
    assert "busy" not in summary(results)
    results.load = 4.6
    assert "The machine was busy before the run began (4.6 processes for each core)" in summary(results)


def test_where_the_contenders_run_is_told(results: Results) -> None:
    results.is_divided = True
    assert "The contenders run on one processor" in render(results)
    results.is_divided = False
    assert "Everybody runs on all processors" in render(results)
