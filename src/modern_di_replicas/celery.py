"""Celery: a task reads the writes of the request that queued it, and declares its intent by a marker.

Celery is synchronous: the providers are those of `modern_di_replicas.sync`.
"""

import dataclasses
import datetime as dt
import typing
import weakref

import modern_di_celery
from celery import Celery, Task, current_app, signals
from modern_di import Container, Scope, providers

from modern_di_replicas.consistency.carrying import CARRIED, carried_token, carry
from modern_di_replicas.consistency.job import begin_job, end_job, job_intent
from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import Intent
from modern_di_replicas.sync import dependencies
from modern_di_replicas.sync.watch import Watch


def task_intent(declared: Intent | None, watch: Watch) -> Intent:
    """Return the intent of a unit of work: declared in its context, or by the marker of the current task.

    A task without a marker, and a unit of work outside any task, writes.
    """
    watch.start()
    return job_intent(declared, is_of_job=True)


class Dependencies(dependencies.Dependencies):
    """The providers for Celery workers; see `modern_di_replicas.sync.Dependencies`."""

    watch = providers.Factory(Watch, scope=Scope.APP, cache=providers.CacheSettings(finalizer=Watch.stop))
    intent = providers.Factory(task_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def setup_replicas(app: Celery, container: Container, *, wait: dt.timedelta | None = None) -> Container:
    """Set up a Celery application: modern-di, the tokens in messages and, in a worker, the monitor.

    Call it in the worker, and in each program that queues tasks, with the container of the web application. Each
    process of a worker starts its monitor with the first unit of work.

    Args:
        app: the Celery application.
        container: holds `Dependencies` (or a subclass), in a web application those of its framework.
        wait: how long the reads of tasks wait for a replica before they use the primary, where `@read_intent` does not
            say so; default: `ReplicationSettings.catch_up_wait`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`.

    """
    check_container(container, Dependencies)
    _known[app] = _Replicas(container=container, wait=wait)
    return modern_di_celery.setup_di(app, container)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class _Replicas:
    """The arguments of `setup_replicas`, for each Celery application."""

    container: Container
    wait: dt.timedelta | None


_known: "weakref.WeakKeyDictionary[Celery, _Replicas]" = weakref.WeakKeyDictionary()


def _send(sender: str, headers: dict[str, typing.Any] | None = None, **_: object) -> None:
    """Put a token into the headers of a message; the signal has the name of the task, not its application."""
    # The only way from a proxy of Celery to its object, which is the key here.
    current = current_app._get_current_object()  # noqa: SLF001
    owners = [app for app in _known if app is current or sender in app.tasks]
    if owners and headers is not None:
        carry(_known[current if current in owners else owners[0]].container, headers)


def _begin(task: Task, **_: object) -> None:
    replicas = _known.get(task.app)
    if replicas is None:
        return
    # An eager task has no message; it runs where it is called.
    carried = carried_token(replicas.container) if task.request.is_eager else task.request.get(CARRIED)
    function = getattr(task, "__wrapped__", type(task).run)  # `run` itself is wrapped by `DITask`
    begin_job(replicas.container, [carried], task, function, wait=replicas.wait)


def _end(task: Task, **_: object) -> None:
    if task.app in _known:
        end_job()


# Celery's signals are global, and hold their receivers weakly.
signals.before_task_publish.connect(_send, weak=False)
signals.task_prerun.connect(_begin, weak=False)
signals.task_postrun.connect(_end, weak=False)
