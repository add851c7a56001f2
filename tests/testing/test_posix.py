import importlib
import sys

import pytest

from modern_di_replicas.testing import posix


def test_windows_learns_that_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the missing file lock; an import error would not say so."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delitem(sys.modules, posix.__name__)

    with pytest.raises(ImportError, match="Windows"):
        importlib.import_module(posix.__name__)
