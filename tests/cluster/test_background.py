"""The thread of a synchronous application."""

import sys
import types

import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.cluster.background import Background, background


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("gevent.monkey", types.SimpleNamespace(is_module_patched=lambda name: name == "threading")),
        ("eventlet.patcher", types.SimpleNamespace(is_monkey_patched=lambda name: name == "thread")),
    ],
)
def test_replaced_threads_are_refused(name: str, module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop beside them would block them all."""
    monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(ConfigurationError, match=r"gthread") as caught:
        Background().loop.is_running()
    assert caught.value.field == name.partition(".")[0]


def test_what_is_imported_and_has_replaced_nothing_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency may bring it along."""
    module = types.SimpleNamespace(is_module_patched=lambda name: False)  # noqa: ARG005  # gevent's signature
    monkeypatch.setitem(sys.modules, "gevent.monkey", module)
    assert background.loop.is_running()
