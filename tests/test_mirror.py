"""Each module of the package has a test file of the same name in the same place."""

import pathlib
import typing


TESTS = pathlib.Path(__file__).parent
SOURCE = TESTS.parent / "src" / "modern_di_replicas"
WITHOUT: typing.Final = {
    "asgi/protocol.py": "type aliases, which mypy checks",
    "drivers/driver.py": "a protocol, which mypy checks; the tests of each driver hold it to it",
    "observability/hook.py": "a protocol and an empty base class",
}
"""Modules without code to run, and the reason. A package's `__init__.py` has only re-exports and its description."""


def file_of(module: pathlib.Path) -> pathlib.Path:
    """Return the path of a module's tests."""
    return TESTS / module.parent / f"test_{module.stem.strip('_')}.py"


def test_every_module_has_a_test_file_of_its_name() -> None:
    """The tests of a module are found without a search; obsolete exceptions have to be removed."""
    modules = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) > 100
    without = {module.as_posix() for module in modules if not file_of(module).exists()}
    assert without == WITHOUT.keys()
