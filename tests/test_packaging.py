"""The package's presentation on an index; `make release-check` checks the built one."""

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
    """An index shows the README without the repository."""
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
    """A classifier relies on `make test-all`."""
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert f"set -- {' '.join(promised)} lowest" in (ROOT / ".ci" / "test-all").read_text()


PATHS = re.findall(r"`([a-z_./{},]+/[a-z_./{},]*|[a-z_]+\.(?:md|py|json))`", (ROOT / "CONTRIBUTING.md").read_text())


def expand(path: str) -> list[str]:
    """Expand braces in paths as a shell does."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
    return [found[1] + each + found[3] for each in found[2].split(",")] if found else [path]


@pytest.mark.parametrize("path", sorted({each for path in PATHS for each in expand(path)}))
def test_the_files_named_in_contributing_exist(path: str) -> None:
    """The tree changes, and an outdated guide is worse than none."""
    folders = (ROOT, ROOT / "src" / "modern_di_replicas", ROOT / "benchmarks")
    assert any((folder / path).exists() for folder in folders)
