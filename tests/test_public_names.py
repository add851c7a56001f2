"""The names that users import."""

import pathlib
import re
import types

import modern_di_replicas
from tests.public_api import FILE, describe


ROOT = pathlib.Path(__file__).parent.parent
PUBLIC = (
    "",
    ".celery",
    ".errors",
    ".fastapi",
    ".faststream",
    ".flask",
    ".httpx",
    ".litestar",
    ".observability",
    ".starlette",
    ".sync",
    ".taskiq",
    *(".testing", ".testing.fixtures"),
)
# Assertions in blocks that are invisible in rendered Markdown; users do not copy them.
INVISIBLE = re.compile(r"<!-- invisible-code-block.*?-->", re.DOTALL)
IMPORTED = re.compile(r"(?:from|import) modern_di_replicas((?:\.\w+)*)")


def test_recipes_and_docs_import_public_modules_only() -> None:
    """Users copy these imports, so private ones could never change."""
    pages = [*ROOT.glob("recipes/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    imported = {
        (page.name, module) for page in pages for module in IMPORTED.findall(INVISIBLE.sub("", page.read_text()))
    }
    assert len(imported) > 20
    assert {(page, module) for page, module in imported if module not in PUBLIC} == set()


def test_all_contains_the_exported_names() -> None:
    """A name that is imported but not listed would be public by accident."""
    modules = {name for name, value in vars(modern_di_replicas).items() if isinstance(value, types.ModuleType)}
    exported = {name for name in vars(modern_di_replicas) if not name.startswith("_")} - modules
    assert sorted(modern_di_replicas.__all__) == sorted(exported)


def test_the_public_api_is_as_written_down() -> None:
    """INVARIANT: changes of the public API are deliberate: `python -m tests.public_api` records it.

    Removing or renaming a name or parameter breaks applications.
    """
    assert describe() == FILE.read_text(), "see tests/public_api.py"
