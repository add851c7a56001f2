"""Taskiq: a task reads the writes of the code that queued it."""

import asyncio
import collections.abc
import contextlib
import datetime as dt
import typing

import pytest
import taskiq
import taskiq_redis
from modern_di import Container, Group
from modern_di_taskiq import FromDI, fetch_di_container
from sqlalchemy.ext.asyncio import AsyncSession
from taskiq.receiver import Receiver

import modern_di_replicas
import modern_di_replicas.taskiq
from modern_di_replicas import (
    ConfigurationError,
    Intent,
    ReplicaEngine,
    ReplicationSettings,
    RoutedSession,
    UnknownGroupError,
    read_intent,
)
from modern_di_replicas.consistency.client import known_client
from modern_di_replicas.testing import LocalCluster
from tests.carrying import (
    PRIMARY,
    REPLICA,
    check_jobs,
    create_stock,
    in_own_task,
    read,
    replay_paused,
    settings_of,
    write_with_core,
)


Session = typing.Annotated[AsyncSession, FromDI(AsyncSession)]
LONG = dt.timedelta(seconds=30)


def declare(broker: taskiq.AsyncBroker) -> None:
    """Declare the tasks; in a real program, the worker and the client import the same module."""

    @broker.task(task_name="reads")
    @read_intent
    async def reads(session: Session) -> tuple[int, bool]:
        return await read(session)

    @read_intent(wait=LONG)
    @broker.task(task_name="marked_above")
    async def marked_above(session: Session) -> str:
        assert isinstance(session, RoutedSession)
        return session.decision.reason

    @broker.task(task_name="unmarked")
    async def unmarked(session: Session) -> tuple[int, bool]:
        return await read(session)

    @broker.task(task_name="another_unit")
    @read_intent
    async def another_unit(container: typing.Annotated[Container, FromDI(Container)]) -> bool:
        root = container.parent_container
        assert root is not None
        async with modern_di_replicas.unit_of_work(root) as unit:
            return unit.resolve(Intent).is_write

    @broker.task(task_name="fails")
    async def fails() -> None:
        raise ZeroDivisionError


def create_container(settings: ReplicationSettings) -> Container:
    return Container(groups=[modern_di_replicas.taskiq.Dependencies], context={ReplicationSettings: settings})


async def result_of(broker: taskiq.AsyncBroker, name: str, **labels: typing.Any) -> typing.Any:
    task = broker.find_task(name)
    assert task is not None
    queued = await task.kicker().with_labels(**labels).kiq()
    return (await queued.wait_result(timeout=30, check_interval=0.01)).return_value


@contextlib.asynccontextmanager
async def in_memory(
    settings: ReplicationSettings, **options: typing.Any
) -> collections.abc.AsyncIterator[taskiq.InMemoryBroker]:
    """Run a broker that executes its tasks itself."""
    broker = taskiq.InMemoryBroker()
    declare(broker)
    modern_di_replicas.taskiq.setup_replicas(broker, create_container(settings), **options)
    await broker.startup()
    try:
        yield broker
    finally:
        await broker.shutdown()


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


@pytest.mark.parametrize("secret", [None, "a secret"], ids=["unsigned", "signed"])
async def test_a_task_reads_the_writes_of_its_request(stock: LocalCluster, secret: str | None) -> None:
    """With the in-memory broker, the label carries the token as well."""
    async with in_memory(settings_of(stock, token_secret=secret)) as broker:
        await check_jobs(stock, lambda name: result_of(broker, name), token_secret=secret)


async def test_a_task_in_a_worker_reads_the_writes_of_its_request(stock: LocalCluster, redis_url: str) -> None:
    """Through a real Redis, with a broker and a container on each side."""

    def create_broker() -> taskiq.AsyncBroker:
        results: typing.Any = taskiq_redis.RedisAsyncResultBackend(redis_url)
        broker = taskiq_redis.ListQueueBroker(redis_url).with_result_backend(results)
        declare(broker)
        modern_di_replicas.taskiq.setup_replicas(broker, create_container(settings_of(stock)))
        return broker

    web, worker = create_broker(), create_broker()
    worker.is_worker_process = True
    finished = asyncio.Event()
    await web.startup()
    listening = asyncio.create_task(Receiver(worker, max_async_tasks=2).listen(finished))
    try:
        await check_jobs(stock, lambda name: result_of(web, name))
    finally:
        finished.set()
        await listening
        await web.shutdown()
        await worker.shutdown()


async def test_a_task_with_an_unusable_token_reads_from_the_primary(stock: LocalCluster) -> None:
    """With a forged or not yet committed token it still runs. A redelivered message has the same effect twice."""
    async with in_memory(settings_of(stock, token_secret="a secret")) as broker:
        for carried in ("forged", "unknown", 7):
            for _ in range(2):
                labels = {"consistency-token": carried}
                assert await in_own_task(result_of(broker, "reads", **labels)) == (0, PRIMARY)
        assert await in_own_task(result_of(broker, "reads")) == (0, REPLICA)


async def test_a_marker_may_stand_above_the_task(stock: LocalCluster) -> None:
    """As with the routes of frameworks."""
    async with in_memory(settings_of(stock)) as broker:
        assert (await in_own_task(result_of(broker, "marked_above"))).startswith("@read_intent")


async def test_only_the_unit_of_work_of_a_task_has_the_intent_of_its_marker(stock: LocalCluster) -> None:
    """Other units of work in the task declare their own intent."""
    async with in_memory(settings_of(stock)) as broker:
        assert await in_own_task(result_of(broker, "another_unit")) is True


async def test_tasks_wait_for_a_replica_as_long_as_the_broker_says(stock: LocalCluster) -> None:
    """Unless their marker says otherwise."""
    async with in_memory(settings_of(stock), wait=LONG) as broker:

        async def write_and_queue() -> typing.Any:
            await write_with_core(container)
            return await result_of(broker, "reads")

        container = fetch_di_container(broker)
        with replay_paused(stock):
            task = asyncio.create_task(in_own_task(write_and_queue()))
            assert not (await asyncio.wait([task], timeout=0.4))[0]
        assert await task == (1, REPLICA)


async def test_a_task_does_not_change_the_context_of_its_caller(stock: LocalCluster) -> None:
    """Whether it succeeds or fails; an in-memory broker may run it in the context of the request."""
    async with in_memory(settings_of(stock)) as broker:
        broker.await_inplace = True
        before = known_client()
        await result_of(broker, "reads")
        await result_of(broker, "fails")
        assert known_client() is before


async def test_a_worker_does_not_start_with_a_group_that_is_not_declared(database: ReplicationSettings) -> None:
    """As for an application."""
    broker = taskiq.InMemoryBroker()

    @broker.task
    @read_intent(group="analytics")
    async def report() -> None: ...

    container = create_container(database)
    modern_di_replicas.taskiq.setup_replicas(broker, container)
    with pytest.raises(UnknownGroupError):
        await broker.startup()
    await broker.shutdown()


def test_a_container_without_our_providers_is_refused(database: ReplicationSettings) -> None:
    """The framework-neutral providers do not know tasks."""
    given: list[list[type[Group]]] = [[], [modern_di_replicas.Dependencies]]
    for groups in given:
        container = Container(groups=groups, context={ReplicationSettings: database})
        with pytest.raises(ConfigurationError, match=r"modern_di_replicas\.taskiq\.Dependencies"):
            modern_di_replicas.taskiq.setup_replicas(taskiq.InMemoryBroker(), container)


async def test_a_worker_in_the_process_of_its_application_watches_no_server_twice(stock: LocalCluster) -> None:
    """One monitor suffices for both."""
    async with in_memory(settings_of(stock)) as broker:
        container = fetch_di_container(broker)
        topology = container.resolve(ReplicaEngine).topology
        watcher = topology.watcher
        await broker.startup()
        assert topology.watcher is watcher
