"""The pools of synchronous engines, used by many threads."""

import threading
import typing

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from modern_di_replicas.cluster.pools import pre_ping
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.pools.pre_ping import VALIDATED
from modern_di_replicas.cluster.pools.threaded import ThreadedPool
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import serving, synchronous
from tests.waiting import wait_for


def test_waiting_threads_continue_in_the_new_pool(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: no thread waits for a pool whose connections were all terminated."""
    engine = create_engine(
        synchronous(replicated_cluster.primary.url), poolclass=ThreadedPool, pool_size=1, max_overflow=0
    )
    connections = OpenConnections(engine)
    taken = engine.connect()
    answers: list[int | None] = []

    def read() -> None:
        with engine.connect() as connection:
            answers.append(connection.scalar(text("SELECT 1")))

    waiting = [threading.Thread(target=read) for _ in range(5)]
    for thread in waiting:
        thread.start()
    pool = typing.cast(typing.Any, engine.pool)
    wait_for(lambda: pool.waiting == len(waiting))
    connections.terminate()
    for thread in waiting:
        thread.join(10)
    assert answers == [1] * len(waiting)
    with pytest.raises(OperationalError):
        taken.execute(text("SELECT 1"))
    taken.close()
    assert typing.cast(ThreadedPool, engine.pool).in_use == 0
    engine.dispose()


def test_an_idle_connection_is_not_given_out_after_all_were_terminated(replicated_cluster: LocalCluster) -> None:
    """No thread waits for it, so none is woken."""
    engine = create_engine(
        synchronous(replicated_cluster.primary.url), poolclass=ThreadedPool, pool_size=1, max_overflow=0
    )
    connections = OpenConnections(engine)
    backend = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        first = connection.scalar(backend)
    connections.terminate()
    with engine.connect() as connection:
        assert connection.scalar(backend) != first
    engine.dispose()


def test_waiting_threads_get_the_error_of_a_failed_connection() -> None:
    """A failed attempt to connect frees its place and wakes another waiting thread."""
    engine = create_engine(
        "postgresql+psycopg://", poolclass=ThreadedPool, pool_size=1, max_overflow=0, pool_timeout=30
    )
    OpenConnections(engine)
    connecting, failing = threading.Event(), threading.Event()

    def fail(*_: object, **__: object) -> typing.NoReturn:
        connecting.set()
        failing.wait(10)
        raise ConnectionRefusedError

    typing.cast(typing.Any, engine.dialect).connect = fail
    errors: list[BaseException] = []

    def check_out() -> None:
        try:
            engine.raw_connection()
        except ConnectionRefusedError as error:
            errors.append(error)

    threads = [threading.Thread(target=check_out) for _ in range(3)]
    for thread in threads:
        thread.start()
        connecting.wait(10)
    failing.set()
    for thread in threads:
        thread.join(20)
    assert len(errors) == len(threads), "none waits until the pool's own timeout"


def test_an_idle_connection_is_pinged_and_kept_or_replaced(replicated_cluster: LocalCluster) -> None:
    """A connection that answers is reused; otherwise it is closed in the background thread and replaced."""
    with serving(replicated_cluster) as servers:
        engine = servers.replica.choose()

        def checked_out() -> tuple[typing.Any, dict[typing.Any, typing.Any]]:
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
                return connection.connection.driver_connection, connection.info

        first, info = checked_out()
        info[VALIDATED] -= 10
        again, info = checked_out()
        assert again is first
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pre_ping, "_QUESTION", "SELECT pg_sleep(600) AS alive")  # longer than any test may take
            info[VALIDATED] -= 10
            replaced, info = checked_out()
            assert replaced is not first
            assert first.closed
            patch.setattr(pre_ping, "_QUESTION", "SELECT nonsense")
            info[VALIDATED] -= 10
            assert checked_out()[0] is not replaced
    # Their servers do not notice, and would delay the replay for other tests.
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%'"
    for replica in replicated_cluster.replicas:
        replica.execute(ends)
