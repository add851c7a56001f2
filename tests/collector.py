"""Watches that no greenlet is switched to while memory is collected, which crashes Python sooner or later."""

import collections.abc
import contextlib
import gc
import threading
import traceback
import typing

import greenlet


@contextlib.contextmanager
def watched_collector() -> collections.abc.Iterator[list[str]]:
    """Give a list to which each such switch of this thread is added, with where it led."""
    switches: list[str] = []
    here = threading.get_ident()
    collecting = False

    def collection(phase: str, _: dict[str, int]) -> None:
        nonlocal collecting
        if threading.get_ident() == here:  # another thread's collection has a stack of its own
            collecting = phase == "start"

    def switch(event: str, between: typing.Any) -> None:
        if collecting:
            switches.append(f"{event} {between}\n{''.join(traceback.format_stack())}")

    before = greenlet.settrace(switch)
    gc.callbacks.append(collection)
    try:
        yield switches
    finally:
        gc.callbacks.remove(collection)
        greenlet.settrace(before)
