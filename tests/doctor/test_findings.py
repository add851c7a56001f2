"""The doctor's findings."""

import pathlib
import typing

import pytest

from modern_di_replicas.doctor.findings import Finding, Kind
from modern_di_replicas.errors import DOCS_URL


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "doctor.md"


@pytest.mark.parametrize("kind", typing.get_args(Kind))
def test_each_kind_has_a_section_in_the_documentation(kind: Kind) -> None:
    """The finding links to it."""
    finding = Finding(kind=kind, server="db-1", message="is wrong", remedy="mend it")
    assert finding.page == f"{DOCS_URL}/doctor/#{kind}"
    assert any(line.startswith("#") and kind in line for line in PAGE.read_text().splitlines())
