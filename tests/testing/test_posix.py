import importlib.util
import sys

import pytest

from modern_di_replicas.testing import posix


def test_windows_learns_that_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the missing lock, not a missing module of ours."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location(posix.__name__, posix.__file__)
    assert spec is not None
    assert spec.loader is not None

    with pytest.raises(ImportError, match="Windows"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
