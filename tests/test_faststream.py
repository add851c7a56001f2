"""FastStream: a subscriber reads the writes of its message's sender."""

import asyncio
import collections
import collections.abc
import contextlib
import datetime as dt
import typing
import uuid

import faststream
import faststream.redis
import pytest
from modern_di import Container, Group
from modern_di_faststream import FromDI
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas
import modern_di_replicas.faststream
from modern_di_replicas import (
    ConfigurationError,
    Intent,
    ReplicationSettings,
    UnknownGroupError,
    carried_token,
    read_intent,
    unit_of_work,
)
from modern_di_replicas.consistency.carrying import CARRIED
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
    watched,
    write,
    write_with_core,
)


Session = typing.Annotated[AsyncSession, FromDI(AsyncSession)]
LONG = dt.timedelta(seconds=30)


class Worker:
    """Subscribers that record their reads by the text of the message."""

    def __init__(self, broker: faststream.redis.RedisBroker, prefix: str) -> None:
        self.seen: dict[str, asyncio.Queue[typing.Any]] = collections.defaultdict(asyncio.Queue)
        self.prefix = prefix
        self.broker = broker
        sent = faststream.Header(CARRIED, default="nothing")

        @broker.subscriber(f"{prefix}reads")
        @read_intent
        async def reads(text: str, session: Session) -> None:
            await self.seen[text].put(await read(session))

        @broker.subscriber(f"{prefix}unmarked")
        async def unmarked(text: str, session: Session) -> None:
            await self.seen[text].put(await read(session))

        @broker.subscriber(f"{prefix}writes")
        @broker.publisher(f"{prefix}answers")
        async def writes(text: str, session: Session) -> str:
            await write(session)
            return text

        @broker.subscriber(f"{prefix}answers")
        async def answers(text: str, carried: typing.Annotated[str, sent]) -> None:
            await self.seen[text].put(carried)

        @broker.subscriber(list=faststream.redis.ListSub(f"{prefix}batch", batch=True))
        @read_intent
        async def batch(texts: list[str], session: Session) -> None:
            for text in texts:
                await self.seen[text].put(await read(session))

        @broker.subscriber(f"{prefix}fails")
        async def fails(text: str) -> None:
            raise ZeroDivisionError(text)

    async def send(self, broker: typing.Any, name: str, **options: typing.Any) -> typing.Any:
        """Publish a message, and return what its subscriber has read."""
        text = f"text {uuid.uuid4()}"  # not the JSON of another type
        await broker.publish(text, f"{self.prefix}{name}", **options)
        return await asyncio.wait_for(self.seen[text].get(), 30)


def create_container(settings: ReplicationSettings) -> Container:
    return Container(groups=[modern_di_replicas.faststream.Dependencies], context={ReplicationSettings: settings})


@contextlib.asynccontextmanager
async def in_memory(
    settings: ReplicationSettings, **options: typing.Any
) -> collections.abc.AsyncIterator[tuple[Worker, Container]]:
    """Run an application on a broker in memory."""
    broker = faststream.redis.RedisBroker()
    worker = Worker(broker, "")
    app = faststream.FastStream(broker)
    container = modern_di_replicas.faststream.setup_replicas(app, create_container(settings), **options)
    async with faststream.redis.TestRedisBroker(broker), faststream.TestApp(app):
        yield worker, container


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


@pytest.mark.parametrize("secret", [None, "a secret"], ids=["unsigned", "signed"])
async def test_a_subscriber_reads_the_writes_of_the_request(stock: LocalCluster, secret: str | None) -> None:
    """With the in-memory broker, the header carries the token as well."""
    async with in_memory(settings_of(stock, token_secret=secret)) as (worker, _):
        await check_jobs(stock, lambda name: worker.send(worker.broker, name), token_secret=secret)


async def test_a_subscriber_in_a_worker_reads_the_writes_of_the_request(stock: LocalCluster, redis_url: str) -> None:
    """Through a real Redis; the publisher has only the middleware."""
    settings = settings_of(stock)
    broker = faststream.redis.RedisBroker(redis_url)
    worker = Worker(broker, uuid.uuid4().hex)
    app = faststream.FastStream(broker)
    modern_di_replicas.faststream.setup_replicas(app, create_container(settings))
    await app.start()
    try:
        async with watched(settings) as container:
            middleware = modern_di_replicas.faststream.ReplicasMiddleware(container)
            async with faststream.redis.RedisBroker(redis_url, middlewares=[middleware]) as web:
                await check_jobs(stock, lambda name: worker.send(web, name))
    finally:
        await app.stop()


async def test_a_subscriber_with_an_unusable_token_reads_from_the_primary(stock: LocalCluster) -> None:
    """With a forged or not yet committed token the subscriber still runs. A redelivered message has the same effect."""
    async with in_memory(settings_of(stock, token_secret="a secret")) as (worker, _):
        for carried in ("forged", "unknown"):
            for _ in range(2):
                seen = worker.send(worker.broker, "reads", headers={CARRIED: carried})
                assert await in_own_task(seen) == (0, PRIMARY)
        assert await in_own_task(worker.send(worker.broker, "reads")) == (0, REPLICA)


async def test_messages_of_a_subscriber_carry_its_writes(stock: LocalCluster) -> None:
    """A reply is published after the end of the unit of work; the headers of the sender are kept."""
    async with in_memory(settings_of(stock)) as (worker, container):
        headers = {"a": "b"}
        carried = await in_own_task(worker.send(worker.broker, "writes", headers=headers))
        assert headers == {"a": "b"}
        with replay_paused(stock):
            carried = await in_own_task(worker.send(worker.broker, "writes"))
            async with unit_of_work(container, intent=Intent.read(), token=carried) as unit:
                assert await read(unit.resolve(AsyncSession)) == (2, PRIMARY)


async def test_a_batch_reads_the_writes_of_all_its_senders(stock: LocalCluster) -> None:
    """The latest position counts, and an unknown one."""
    async with in_memory(settings_of(stock)) as (worker, container):

        async def publish(*texts: str) -> None:
            await worker.broker.publish_batch(*texts, list="batch")

        assert await in_own_task(worker.send(worker.broker, "reads")) == (0, REPLICA)
        await in_own_task(publish("a", "b"))
        assert await worker.seen["b"].get() == (0, REPLICA)

        async def write_and_publish() -> None:
            await write_with_core(container)
            assert carried_token(container) is not None
            await publish("c")

        with replay_paused(stock):
            await in_own_task(write_and_publish())
            assert await worker.seen["c"].get() == (1, PRIMARY)


async def test_subscribers_wait_for_a_replica_as_long_as_the_application_says(stock: LocalCluster) -> None:
    """Unless their marker says otherwise."""
    async with in_memory(settings_of(stock), wait=LONG) as (worker, container):

        async def write_and_send() -> typing.Any:
            await write_with_core(container)
            return await worker.send(worker.broker, "reads")

        with replay_paused(stock):
            task = asyncio.create_task(in_own_task(write_and_send()))
            assert not (await asyncio.wait([task], timeout=0.4))[0]
        assert await task == (1, REPLICA)


async def test_a_subscriber_does_not_change_the_context_of_its_caller(stock: LocalCluster) -> None:
    """Whether it succeeds or fails; an in-memory broker runs it in the context of the sender."""
    async with in_memory(settings_of(stock)) as (worker, _):
        before = known_client()
        await worker.send(worker.broker, "reads")
        with pytest.raises(ZeroDivisionError):
            await worker.send(worker.broker, "fails")
        assert known_client() is before


async def test_an_application_may_start_again(stock: LocalCluster) -> None:
    """Its messages are handled once, and the monitor runs again."""
    broker = faststream.redis.RedisBroker()
    worker = Worker(broker, "")
    app = faststream.FastStream(broker)
    modern_di_replicas.faststream.setup_replicas(app, create_container(settings_of(stock)))
    for _ in range(2):
        async with faststream.redis.TestRedisBroker(broker), faststream.TestApp(app):
            assert await in_own_task(worker.send(broker, "reads")) == (0, REPLICA)


def test_a_marker_above_a_subscriber_is_refused() -> None:
    """FastStream's wrapper cannot hold a marker; the function inside it can."""
    broker = faststream.redis.RedisBroker()

    @broker.subscriber("a")
    async def reads() -> None: ...

    with pytest.raises(ConfigurationError, match="below"):
        read_intent(reads)


async def test_an_application_does_not_start_with_a_group_that_is_not_declared(database: ReplicationSettings) -> None:
    """As for a web application."""
    broker = faststream.redis.RedisBroker()

    @broker.subscriber("a")
    @read_intent(group="analytics")
    async def report() -> None: ...

    app = faststream.FastStream(broker)
    modern_di_replicas.faststream.setup_replicas(app, create_container(database))
    with pytest.raises(UnknownGroupError):
        async with faststream.redis.TestRedisBroker(broker), faststream.TestApp(app):
            pass


def test_a_container_without_our_providers_is_refused(database: ReplicationSettings) -> None:
    """The framework-neutral providers do not know messages."""
    given: list[list[type[Group]]] = [[], [modern_di_replicas.Dependencies]]
    for groups in given:
        container = Container(groups=groups, context={ReplicationSettings: database})
        with pytest.raises(ConfigurationError, match=r"modern_di_replicas\.faststream\.Dependencies"):
            modern_di_replicas.faststream.setup_replicas(faststream.FastStream(), container)
