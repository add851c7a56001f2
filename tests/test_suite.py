"""What the commands of the Makefile rely on in the suite itself."""

import pytest


@pytest.fixture
def disposable_cluster() -> None:
    """Stand for the real one, which would only take time here."""


@pytest.fixture
def broken_server(disposable_cluster: None) -> None: ...


def marks(request: pytest.FixtureRequest) -> set[str]:
    return {mark.name for mark in request.node.iter_markers()}


@pytest.mark.usefixtures("broken_server")
def test_a_test_that_breaks_servers_is_left_out_of_the_quick_suite(request: pytest.FixtureRequest) -> None:
    """INVARIANT: `make test-quick` deselects by marks that conftest.py sets, through any number of fixtures."""
    assert marks(request) == {"faults", "usefixtures"}


def test_any_other_test_is_in_the_quick_suite(request: pytest.FixtureRequest) -> None:
    """A mark on everything would empty the quick suite."""
    assert marks(request) == set()
