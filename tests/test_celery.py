"""Celery: a task reads the writes of the code that queued it."""

import asyncio
import collections.abc
import contextlib
import datetime as dt
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import typing
import uuid

import celery
import celery.contrib.testing.worker
import pytest
from modern_di import Container, Group
from modern_di_celery import DITask, FromDI, fetch_di_container
from sqlalchemy.orm import Session

import modern_di_replicas.celery
import modern_di_replicas.sync
from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings, carried_token, read_intent
from modern_di_replicas.consistency.carrying import CARRIED
from modern_di_replicas.consistency.client import known_client
from modern_di_replicas.sync import unit_of_work
from modern_di_replicas.testing import LocalCluster
from tests.carrying import PRIMARY, READ, REPLICA, WRITE, check_jobs, create_stock, replay_paused
from tests.sync.conftest import settings_of
from tests.waiting import until


InSession = typing.Annotated[Session, FromDI(Session)]
LONG = dt.timedelta(seconds=30)


def read(session: Session) -> tuple[int, bool]:
    amount, is_replica = session.execute(READ).one()
    return amount, is_replica


class Reads(DITask):
    """A task defined as a class."""

    name = "reads_as_a_class"

    @read_intent
    def run(self, session: InSession) -> tuple[int, bool]:
        return read(session)


def create_app(cluster: LocalCluster, url: str = "memory://", **options: typing.Any) -> celery.Celery:
    """Return a Celery application with its tasks, used by the worker and by the code that queues them."""
    app = celery.Celery(uuid.uuid4().hex, broker=url, backend=url if url.startswith("redis") else None)
    app.conf.task_default_queue = app.main
    app.conf.worker_hijack_root_logger = False
    task = functools.partial(app.task, base=DITask, shared=False)
    wait = options.pop("wait", None)

    @task(name="reads")  # type: ignore[untyped-decorator]
    @read_intent
    def reads(session: InSession) -> tuple[int, bool]:
        return read(session)

    @read_intent
    @task(name="marked_above")  # type: ignore[untyped-decorator]
    def marked_above(session: InSession) -> tuple[int, bool]:
        return read(session)

    @task(name="unmarked")  # type: ignore[untyped-decorator]
    def unmarked(session: InSession) -> tuple[int, bool]:
        return read(session)

    @task(name="writes")  # type: ignore[untyped-decorator]
    def writes(session: InSession) -> None:
        session.execute(WRITE)
        session.commit()

    @task(name="another_unit")  # type: ignore[untyped-decorator]
    @read_intent
    def another_unit(intent: typing.Annotated[Intent, FromDI(Intent)]) -> tuple[bool, bool]:
        with unit_of_work(container) as unit:
            return intent.is_write, unit.resolve(Intent).is_write

    @task(name="fails")  # type: ignore[untyped-decorator]
    def fails(session: InSession) -> None:
        read(session)
        raise ZeroDivisionError

    app.register_task(Reads())
    container = Container(
        groups=[modern_di_replicas.celery.Dependencies],
        context={modern_di_replicas.ReplicationSettings: settings_of(cluster, **options)},
    )
    modern_di_replicas.celery.setup_replicas(app, container, wait=wait)
    return app


@contextlib.contextmanager
def eager(cluster: LocalCluster, **options: typing.Any) -> collections.abc.Iterator[celery.Celery]:
    """Yield an application that runs its tasks in the calling process."""
    app = create_app(cluster, **options)
    app.conf.task_always_eager = True
    app.conf.task_eager_propagates = True
    with fetch_di_container(app):
        yield app


@contextlib.contextmanager
def working(app: celery.Celery) -> collections.abc.Iterator[None]:
    """Run a worker in a thread."""
    worker = celery.contrib.testing.worker.start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR")
    with fetch_di_container(app), worker:
        yield


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


@pytest.fixture
def app(stock: LocalCluster) -> collections.abc.Iterator[celery.Celery]:
    with eager(stock) as app:
        yield app


def in_own_thread(function: collections.abc.Callable[[], typing.Any]) -> typing.Any:
    """Run a function as a separate client without writes."""
    results: list[typing.Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


async def test_a_task_in_a_worker_reads_the_writes_of_its_request(stock: LocalCluster, redis_url: str) -> None:
    """Through a real Redis; the request is asynchronous, and the worker is not."""
    app = create_app(stock, redis_url, token_secret="a secret")

    async def queue(name: str) -> tuple[int, bool]:
        result = app.tasks[name].delay()
        return tuple(await asyncio.to_thread(result.get, 30))

    with working(app):
        await check_jobs(stock, queue, token_secret="a secret")


def test_a_task_with_an_unusable_token_reads_from_the_primary(stock: LocalCluster, redis_url: str) -> None:
    """With a forged or not yet committed token it still runs. A redelivered message has the same effect twice."""
    app = create_app(stock, redis_url, token_secret="a secret")
    with working(app):
        for carried in ("forged", "unknown", 7):
            for _ in range(2):
                result = app.tasks["reads"].apply_async(headers={CARRIED: carried}, task_id=f"of {carried}")
                assert result.get(30) == [0, PRIMARY]
                result.forget()
        for name in ("reads", "marked_above", "reads_as_a_class"):
            assert app.tasks[name].delay().get(30) == [0, REPLICA]
        assert app.tasks["another_unit"].delay().get(30) == [False, True]


@contextlib.contextmanager
def forking(cluster: LocalCluster, redis_url: str, *, queue: str, processes: int) -> collections.abc.Iterator[int]:
    """Run a worker that forks, in a separate process; yield its process id, and stop it as an operator does."""
    settings = settings_of(cluster)
    environment = {
        **os.environ,
        "REDIS_URL": redis_url,
        "QUEUE": queue,
        "PRIMARY_URL": settings.declared_primary.url,
        "REPLICA_URLS": " ".join(replica.url for replica in settings.servers),
    }
    command = [sys.executable, "-m", "celery", "--app", "tests.celery_worker:app", "worker"]
    options = ["--pool", "prefork", "--concurrency", str(processes)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "CRITICAL"]
    worker = subprocess.Popen([*command, *options, *quiet], env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  # ours
    try:
        yield worker.pid
        worker.terminate()  # a warm shutdown
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()


def queued(redis_url: str, queue: str) -> celery.Celery:
    """Return an application that queues tasks for a worker that forks."""
    app = celery.Celery("forked", broker=redis_url, backend=redis_url)
    app.conf.task_default_queue = queue
    container = Container(
        groups=[modern_di_replicas.celery.Dependencies],
        context={ReplicationSettings: ReplicationSettings(primary="postgresql+psycopg://nowhere/db")},
    )
    modern_di_replicas.celery.setup_replicas(app, container)
    return app


@pytest.mark.slow
def test_a_task_of_a_killed_worker_is_run_by_another(
    stock: LocalCluster, redis_url: str, tmp_path: pathlib.Path
) -> None:
    """In a forked process of a separate worker: its message is redelivered with its token."""
    mark = tmp_path / "killed"
    app = queued(redis_url, "dies")
    with forking(stock, redis_url, queue="dies", processes=1), replay_paused(stock):
        chain = celery.chain(app.signature("writes"), app.signature("dies_once", (str(mark),), immutable=True))
        assert chain.delay().get(60) == [1, PRIMARY]
        assert mark.exists()


@pytest.mark.slow
async def test_the_processes_of_a_worker_have_connections_and_monitors_of_their_own(
    stock: LocalCluster, redis_url: str, tmp_path: pathlib.Path
) -> None:
    """It forks after the engines were used. A killed process is replaced, and at the end no connection is left."""

    def connections(like: str) -> int:
        count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '{like}'"  # noqa: S608  # ours
        return int(stock.primary.execute(count))

    def meet(number: int) -> list[dict[str, typing.Any]]:
        folder = tmp_path / str(number)
        folder.mkdir()
        sent = [app.send_task("meets", (str(folder),)) for _ in range(2)]
        met = [one.get(60) for one in sent]
        assert {one["parent"] for one in met} == {worker}
        assert all(one["is_watched"] for one in met)
        assert len({one["process"] for one in met}) == len({one["connection"] for one in met}) == 2
        return met

    app = queued(redis_url, "meets")
    with forking(stock, redis_url, queue="meets", processes=2) as worker:
        first = await asyncio.to_thread(meet, 1)
        assert [one["saw"] for one in first] == [[0, REPLICA]] * 2
        assert connections("forked-monitor") == 3, "of the main process, and of each that it has forked"
        killed = first[0]["process"]
        os.kill(killed, signal.SIGKILL)
        second = await asyncio.to_thread(meet, 2)
        assert killed not in {one["process"] for one in second}
        assert first[1]["process"] in {one["process"] for one in second}
        with replay_paused(stock):
            chain = celery.chain(app.signature("writes"), app.signature("dies_once", (str(tmp_path),), immutable=True))
            assert await asyncio.to_thread(chain.delay().get, 60) == [1, PRIMARY]
    await until(lambda: not connections("forked%"))


def test_an_eager_task_reads_earlier_writes(stock: LocalCluster, app: celery.Celery) -> None:
    """It has no message, and runs in its caller; it leaves nothing behind there, whether it succeeds or fails."""

    def run() -> list[typing.Any]:
        seen = [app.tasks["reads"].delay().get()]
        with replay_paused(stock), unit_of_work(container) as unit:
            session = unit.resolve(Session)
            session.execute(WRITE)
            client = known_client()
            assert carried_token(container) == "unknown"
            seen.append(app.tasks["reads"].delay().get())
            session.commit()
            seen.append(app.tasks["reads"].delay().get())
            with pytest.raises(ZeroDivisionError):
                app.tasks["fails"].delay()
            assert known_client() is client
        return seen

    container = fetch_di_container(app)
    assert in_own_thread(run) == [(0, REPLICA), (0, PRIMARY), (1, PRIMARY)]


def test_the_next_task_of_a_chain_reads_the_writes_of_the_previous_one(stock: LocalCluster, redis_url: str) -> None:
    """The worker queues it when the task before it has ended."""
    app = create_app(stock, redis_url)
    with working(app):
        app.tasks["reads"].delay().get(30)  # the monitor runs from here on
        with replay_paused(stock):
            chain = celery.chain(app.tasks["writes"].si(), app.tasks["reads"].si())
            assert chain.delay().get(30) == [1, PRIMARY]


def test_tasks_wait_for_a_replica_as_long_as_the_application_says(stock: LocalCluster) -> None:
    """Unless their marker says otherwise."""
    with eager(stock, wait=LONG) as app:
        container = fetch_di_container(app)
        seen: list[typing.Any] = []

        def run() -> None:
            app.tasks["writes"].delay().get()
            with unit_of_work(container) as unit:
                unit.resolve(Session).execute(WRITE)
                unit.resolve(Session).commit()
                seen.append(app.tasks["reads"].delay().get())

        with replay_paused(stock):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(0.5)
            assert not seen
        thread.join(30)
        assert seen == [(2, REPLICA)]


def test_a_container_without_our_providers_is_refused() -> None:
    """The framework-neutral providers do not know tasks."""
    given: list[list[type[Group]]] = [[], [modern_di_replicas.sync.Dependencies]]
    for groups in given:
        with pytest.raises(ConfigurationError, match=r"modern_di_replicas\.celery\.Dependencies"):
            modern_di_replicas.celery.setup_replicas(celery.Celery(), Container(groups=groups))


def test_an_application_that_was_not_set_up_is_left_alone() -> None:
    """Celery's signals are global to all applications of a process."""
    app = celery.Celery(set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(shared=False)  # type: ignore[untyped-decorator]
    def plain() -> bool:
        return known_client() is None

    assert in_own_thread(lambda: plain.delay().get())
    headers: dict[str, typing.Any] = {}
    celery.signals.before_task_publish.send(sender="of another", headers=headers)
    assert headers == {}
