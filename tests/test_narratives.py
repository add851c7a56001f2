"""The two packages that describe how the library works name real files and functions."""

import functools
import importlib
import re
import typing

import pytest

import modern_di_replicas.cluster
import modern_di_replicas.session


LINE = re.compile(r"^(\d+)\. `([\w/]+)\.py` `([\w.]+)`: ", re.MULTILINE)


@pytest.mark.parametrize("package", [modern_di_replicas.session, modern_di_replicas.cluster])
def test_every_name_in_the_life_of_a_statement_and_of_a_server_exists(package: object) -> None:
    """Contributors follow these names; a name must be defined in its file, not only imported or inherited."""
    steps = LINE.findall(package.__doc__ or "")
    assert [int(number) for number, _, _ in steps] == list(range(1, 11))
    for _, path, name in steps:
        module = importlib.import_module("modern_di_replicas." + path.replace("/", "."))
        function: typing.Any = functools.reduce(getattr, name.split("."), module)
        assert (function.__module__, function.__qualname__) == (module.__name__, name)
