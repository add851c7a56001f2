"""The background thread of a synchronous application."""

import asyncio
import inspect
import subprocess
import sys
import threading
import types

import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.cluster.background import Background, background, in_thread


REPLACING = {
    "gevent.monkey": types.SimpleNamespace(is_module_patched=lambda name: name == "threading"),
    "eventlet.patcher": types.SimpleNamespace(is_monkey_patched=lambda name: name == "thread"),
}


@pytest.mark.parametrize(("name", "module"), REPLACING.items())
def test_replaced_threads_are_refused(name: str, module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop in a replaced thread would block all others."""
    monkeypatch.setitem(sys.modules, name, module)
    waiting = asyncio.sleep(0)
    with pytest.raises(ConfigurationError, match=r"gthread") as caught:
        Background().run(waiting)
    assert caught.value.field == name.partition(".")[0]
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED


def test_an_imported_but_inactive_library_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency may import it."""
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
    """In a separate process, because gevent's replacements cannot be undone."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", REPLACED_BY_GEVENT]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # ours
    assert ended.stderr.strip() == "gevent"


async def test_a_function_that_blocks_is_called_once_at_a_time() -> None:
    """INVARIANT: a hanging call cannot be ended, so further attempts would each leave a thread."""
    released, calls = threading.Event(), []

    def block() -> int:
        calls.append(threading.current_thread())
        released.wait(30)
        return len(calls)

    call = in_thread(block)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(), 0.01)
    waiting = asyncio.ensure_future(call())
    released.set()
    assert await waiting == 1
    assert await call() == 2


async def test_a_function_in_a_thread_may_raise_or_return_an_awaitable() -> None:
    """As where it is called without a thread."""

    async def later() -> str:
        return "given"

    def fail() -> None:
        raise LookupError

    assert await in_thread(later)() == "given"
    with pytest.raises(LookupError):
        await in_thread(fail)()
