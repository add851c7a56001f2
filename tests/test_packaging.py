"""What an index shows of the package; `make release-check` checks the built one."""

import pathlib
import re
import tomllib
import typing

import pytest


ROOT = pathlib.Path(__file__).parent.parent
PROJECT: dict[str, typing.Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
LINKS = re.findall(r"\]\(([^)]*)\)", (ROOT / "README.md").read_text())
IN_REPOSITORY = re.compile(rf"(?:{REPOSITORY}/(?:blob|tree)|https://raw\.githubusercontent\.com/[^/]+/[^/]+)/main/(.*)")


@pytest.mark.parametrize("link", LINKS)
def test_the_links_of_the_readme_are_absolute(link: str) -> None:
    """An index shows the README without the files around it."""
    assert link.startswith("https://")


@pytest.mark.parametrize("path", [found[1] for link in LINKS if (found := IN_REPOSITORY.fullmatch(link))])
def test_the_links_of_the_readme_to_the_repository_lead_somewhere(path: str) -> None:
    """An absolute link is not checked when a file moves."""
    assert (ROOT / path).exists()


def test_the_version_has_a_dated_section_in_the_changelog() -> None:
    """A release is announced with its date."""
    assert re.search(
        rf"^## \[{PROJECT['version']}\] - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_the_suite_runs_on_each_python_that_the_classifiers_promise() -> None:
    """`make test-all` is what a classifier relies on."""
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert f"set -- {' '.join(promised)} lowest" in (ROOT / ".ci" / "test-all").read_text()
