"""Each module of the package has a test file of its name, at the mirrored place."""

import pathlib
import typing

import pytest


TESTS = pathlib.Path(__file__).parent
SOURCE = TESTS.parent / "src" / "modern_di_replicas"
WITHOUT: typing.Final = {
    "asgi/protocol.py": "type aliases, which mypy checks",
    "drivers/driver.py": "a protocol, which mypy checks and the tests of each driver follow",
    "observability/hook.py": "a protocol and an empty base class",
}
"""Modules without anything to run, and why; a package's `__init__.py` holds re-exports and the description."""


def file_of(module: pathlib.Path) -> pathlib.Path:
    """Return where the tests of a module are."""
    return TESTS / module.parent / f"test_{module.stem.strip('_')}.py"


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(module, id=module.as_posix())
        for module in sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))
        if module.name != "__init__.py"
    ],
)
def test_a_module_has_a_test_file_of_its_name(module: pathlib.Path) -> None:
    """Whoever changes a file finds its tests without a search; an exception that is not needed any more goes."""
    assert file_of(module).exists() is (module.as_posix() not in WITHOUT)


def test_the_exceptions_are_modules() -> None:
    """One that was renamed or removed would stay in the list."""
    assert [module for module in WITHOUT if not (SOURCE / module).exists()] == []
