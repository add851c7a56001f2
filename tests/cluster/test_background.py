"""The thread of a synchronous application."""

import asyncio
import inspect
import subprocess
import sys
import types

import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.cluster.background import Background, background


REPLACING = {
    "gevent.monkey": types.SimpleNamespace(is_module_patched=lambda name: name == "threading"),
    "eventlet.patcher": types.SimpleNamespace(is_monkey_patched=lambda name: name == "thread"),
}


@pytest.mark.parametrize(("name", "module"), REPLACING.items())
def test_replaced_threads_are_refused(name: str, module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop beside them would block them all."""
    monkeypatch.setitem(sys.modules, name, module)
    waiting = asyncio.sleep(0)
    with pytest.raises(ConfigurationError, match=r"gthread") as caught:
        Background().run(waiting)
    assert caught.value.field == name.partition(".")[0]
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


def test_what_is_imported_and_has_replaced_nothing_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency may bring it along."""
    module = types.SimpleNamespace(is_module_patched=lambda name: False)  # noqa: ARG005  # gevent's signature
    monkeypatch.setitem(sys.modules, "gevent.monkey", module)
    assert background.loop.is_running()


REPLACED_BY_GEVENT = """
from gevent import monkey; monkey.patch_all()
from modern_di_replicas import ConfigurationError
from modern_di_replicas.cluster.background import check_threads
try:
    check_threads()
except ConfigurationError as error:
    raise SystemExit(error.field)
"""


def test_gevent_says_whether_it_has_replaced_threads() -> None:
    """The real one, in a process of its own: what it replaces it does not put back."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", REPLACED_BY_GEVENT]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # ours
    assert ended.stderr.strip() == "gevent"
