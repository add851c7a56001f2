"""Properties of the suite that the Makefile's commands rely on."""

import pathlib
import re

import pytest


@pytest.fixture
def disposable_cluster() -> None:
    """Replace the real one, which would only take time here."""


@pytest.fixture
def broken_server(disposable_cluster: None) -> None: ...


def marks(request: pytest.FixtureRequest) -> set[str]:
    return {mark.name for mark in request.node.iter_markers()}


@pytest.mark.usefixtures("broken_server")
def test_a_test_that_breaks_servers_is_left_out_of_the_quick_suite(request: pytest.FixtureRequest) -> None:
    """INVARIANT: `make test-quick` deselects by marks that conftest.py sets, through any number of fixtures."""
    assert marks(request) == {"faults", "usefixtures"}


def test_any_other_test_is_in_the_quick_suite(request: pytest.FixtureRequest) -> None:
    """A mark on every test would empty the quick suite."""
    assert marks(request) == set()


SLEEP = re.compile(r"\b(?:asyncio|time)\.sleep\((?!0\)|0,)")


def test_a_test_that_sleeps_says_why() -> None:
    """Tests wait for conditions with `tests.waiting`; a sleep only simulates work or a client's rate."""
    files = [path for path in pathlib.Path(__file__).parent.rglob("test_*.py") if path != pathlib.Path(__file__)]
    assert len(files) > 150
    lines = [(path.name, line.strip()) for path in files for line in path.read_text().splitlines()]
    sleeping = [(name, line) for name, line in lines if SLEEP.search(line) and "pg_sleep" not in line]
    assert [(name, line) for name, line in sleeping if "  # " not in line] == []
