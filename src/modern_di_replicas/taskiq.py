"""Taskiq: a task reads the writes of the request that queued it, and declares its intent by a marker."""

import contextlib
import datetime as dt
import typing

import modern_di_taskiq
from modern_di import Container, Scope, providers
from taskiq import AsyncBroker, TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqResult, TaskiqState

from modern_di_replicas import dependencies
from modern_di_replicas.consistency.carrying import CARRIED, carry
from modern_di_replicas.consistency.job import begin_job, end_job, job_intent
from modern_di_replicas.integration import check_container, declared_intent
from modern_di_replicas.intent import Intent, marked_intent


def task_intent(declared: Intent | None, message: TaskiqMessage | None = None) -> Intent:
    """Return the intent of a unit of work: declared in its context, or by the marker of its task.

    A task without a marker, and a unit of work outside any task, writes.
    """
    return job_intent(declared, is_of_job=message is not None)


class Dependencies(dependencies.Dependencies):
    """The providers for Taskiq workers; see `modern_di_replicas.Dependencies`."""

    intent = providers.Factory(task_intent, scope=Scope.REQUEST, cache=True, kwargs={"declared": declared_intent})


def setup_replicas(broker: AsyncBroker, container: Container, *, wait: dt.timedelta | None = None) -> Container:
    """Set up a broker: modern-di, the tokens in messages and, in a worker, the monitor.

    Call it in the worker, and in each program that queues tasks, with the container of the web application.

    Args:
        broker: the broker.
        container: holds `Dependencies` (or a subclass), in a web application those of its framework.
        wait: how long the reads of tasks wait for a replica before they use the primary, where `@read_intent` does not
            say so; default: `ReplicationSettings.catch_up_wait`.

    Raises:
        ConfigurationError: the container does not hold `Dependencies`; or, when the worker starts, a server refuses
            the user, the password or the database of its URL.
        UnknownGroupError: when the worker starts, a marker names a group that no replica declares.

    """
    check_container(container, Dependencies)
    modern_di_taskiq.setup_di(broker, container)
    broker.add_middlewares(ReplicasMiddleware(container, wait=wait))
    watching = contextlib.AsyncExitStack()

    async def watch(_: TaskiqState) -> None:
        marked = [_intent_of(task) for task in broker.get_all_tasks().values()]
        await watching.enter_async_context(dependencies.watched(container, filter(None, marked)))

    async def end(_: TaskiqState) -> None:
        await watching.aclose()

    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, watch)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, end)
    return container


class ReplicasMiddleware(TaskiqMiddleware):
    """Carries tokens in the labels of messages; `setup_replicas` adds it.

    Args:
        container: the container of the application.
        wait: how long the reads of tasks wait for a replica, where their marker does not say so.

    """

    def __init__(self, container: Container, *, wait: dt.timedelta | None = None) -> None:
        super().__init__()
        self._container = container
        self._wait = wait

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        carry(self._container, message.labels)
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        task = self.broker.find_task(message.task_name)
        begin_job(
            self._container,
            [message.labels.get(CARRIED)],
            task,
            getattr(task, "original_func", None),
            wait=self._wait,
        )
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[typing.Any]) -> None:  # noqa: ARG002  # the signature of Taskiq
        end_job()


def _intent_of(task: typing.Any) -> Intent | None:  # noqa: ANN401  # generic in what it takes and returns
    return marked_intent(task) or marked_intent(task.original_func)
