"""Forked processes, such as the workers of a server that loads the application before it forks.

A child has the objects of its parent, and neither its threads nor a right to its connections: what it would send on one
of them, the parent would read the answer of.
"""

import os
import typing
import weakref


class OfProcess(typing.Protocol):
    """Something whose state belongs to one process."""

    def forget_process(self) -> None:
        """Forget what belongs to the process that this one was forked from; take no lock that it may have held."""


_known: typing.Final[weakref.WeakSet[typing.Any]] = weakref.WeakSet()


def forget_in_children(thing: OfProcess) -> None:
    """Call a method of this in each process that is forked from this one, before anything else runs there."""
    _known.add(thing)


def _forget() -> None:
    for thing in list(_known):
        thing.forget_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
