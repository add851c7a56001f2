"""Emit the result of a statement that failed on a replica and is run again."""

import collections.abc
import time
import typing

from modern_di_replicas.observability.events import ReRun
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.session.leaving import LeavingSession


Run = collections.abc.Callable[..., typing.Any]
"""Runs a statement in a session, which is its first argument."""


def reporting(run: Run, session: LeavingSession, *, server: str, error: Exception) -> Run:
    """Return a function that runs a statement again, and emits the result.

    Args:
        run: runs the statement.
        session: its session.
        server: the replica on which it failed.
        error: its error there.

    """
    hooks = session.hooks
    if hooks is None:
        return run

    def run_again(*args: typing.Any, **options: typing.Any) -> typing.Any:  # noqa: ANN401  # as `Session` has it
        began, succeeded = time.monotonic(), False
        try:
            result = run(*args, **options)
            succeeded = True
            return result
        finally:
            decision = session.decision
            is_on_replica = decision.cause is Cause.REPLICA  # on a new connection, or on another replica
            hooks.emit(
                ReRun(
                    server=server,
                    again_on=decision.server,
                    cause=Cause.REPLICA_FAILED if is_on_replica else decision.cause,
                    error=type(error).__name__,
                    seconds=time.monotonic() - began,
                    succeeded=succeeded,
                    endpoint=session.endpoint,
                )
            )

    return run_again
