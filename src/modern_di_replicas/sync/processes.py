"""State in forked processes, such as the workers of a server that loads the application before it forks.

A child has copies of the parent's objects, but not its threads, and must not use its connections: the parent would read
the answers to the child's statements.
"""

import os
import typing
import weakref


class ProcessBound(typing.Protocol):
    """An object whose state belongs to one process."""

    def forget_process(self) -> None:
        """Reset the state that belongs to the parent; take no lock that the parent may have held."""


_known: typing.Final[weakref.WeakSet[typing.Any]] = weakref.WeakSet()


def forget_in_children(thing: ProcessBound) -> None:
    """Call `forget_process` of an object in each forked process, before anything else runs there."""
    _known.add(thing)


def _forget() -> None:
    for thing in list(_known):
        thing.forget_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
