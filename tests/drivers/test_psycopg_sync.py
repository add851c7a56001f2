"""psycopg's synchronous connections: timeouts, termination, and reports of direct use."""

import concurrent.futures
import contextlib
import socket
import threading
import typing

import psycopg
import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from modern_di_replicas import ConfigurationError, TransactionRolledBackError
from modern_di_replicas.cluster.pools.open_connections import OpenConnections
from modern_di_replicas.cluster.waiting import complete
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.drivers.opening import TerminatedWhileOpeningError
from modern_di_replicas.drivers.psycopg_sync import PsycopgSync
from modern_di_replicas.sync.engines import create_primary_engine
from modern_di_replicas.testing import LocalCluster
from tests.drivers.test_psycopg_sync_connection import connected
from tests.sync.conftest import settings_of, synchronous
from tests.waiting import wait_for


def test_an_engine_has_the_driver_of_its_half() -> None:
    """The same URL names both drivers."""
    assert isinstance(driver_of(create_engine("postgresql+psycopg://")), PsycopgSync)
    assert not isinstance(driver_of(make_url("postgresql+psycopg://")), PsycopgSync)


def test_commits_that_bypass_sqlalchemy_are_detected(replicated_cluster: LocalCluster) -> None:
    """A write on the driver's connection has its token when the connection is returned."""
    primary = create_primary_engine(settings_of(replicated_cluster))
    client = Client(is_request=True)
    with request_of(client), primary.connect() as connection:
        driver = typing.cast(typing.Any, connection.connection.driver_connection)
        with driver.transaction():
            driver.execute("CREATE TEMPORARY TABLE noted (n int)")
    assert client.token is not None
    assert not client.position_unknown
    with primary.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE lost (n int)"))
        with contextlib.suppress(DBAPIError):
            connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(TransactionRolledBackError):
            connection.commit()
    primary.dispose()


def test_a_server_that_does_not_answer_is_abandoned_in_time() -> None:
    """The driver counts whole seconds, at least two, which is too long for a replica that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = create_engine(f"postgresql+psycopg://u@127.0.0.1:{port}/db", connect_args={"timeout": 0.2})
        PsycopgSync().set_up(engine)
        with pytest.raises(TimeoutError, match="no connection within"):
            engine.connect()
        left = [thread for thread in threading.enumerate() if thread.name == "connecting"]
        assert left, "psycopg has not given up by then"
        for thread in left:
            thread.join(10)
            assert not thread.is_alive(), "it waits for the server long after it was given up"


def test_an_attempt_to_connect_can_be_given_up() -> None:
    """Otherwise it would wait for its full timeout at a server that is declared down."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = create_engine(f"postgresql+psycopg://u@127.0.0.1:{silent.getsockname()[1]}/db")
        connections = OpenConnections(engine)

        @event.listens_for(engine, "do_connect")
        def watch(_: object, __: object, ___: object, arguments: dict[str, typing.Any]) -> None:
            driver_of(engine).watch_opening(arguments, connections.opening)

        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            attempt = executor.submit(engine.connect)
            accepted, _ = silent.accept()
            connections.opening.give_up()
            connections.opening.give_up()  # a second call has no effect
            with pytest.raises(TerminatedWhileOpeningError):
                attempt.result(10)
            accepted.close()


def test_a_connection_that_comes_too_late_is_closed(replicated_cluster: LocalCluster) -> None:
    """Its caller has given up."""
    came, given_up = threading.Event(), threading.Event()

    def password() -> str | None:
        given_up.wait(10)
        return make_url(replicated_cluster.primary.url).password

    class Late(psycopg.Connection[typing.Any]):
        def close(self) -> None:
            super().close()
            came.set()

    url = make_url(synchronous(replicated_cluster.primary.url)).set(password=None)
    engine = create_engine(url, connect_args={"timeout": 0.1, "password": password, "connection_class": Late})
    PsycopgSync().set_up(engine)
    with pytest.raises(TimeoutError):
        engine.connect()
    given_up.set()
    assert came.wait(10)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_password_is_requested_for_each_connection(replicated_cluster: LocalCluster, is_async: bool) -> None:
    """By a function or a coroutine function."""
    asked: list[bool] = []

    def plain() -> str | None:
        asked.append(True)
        return make_url(replicated_cluster.primary.url).password

    async def coroutine() -> str | None:
        return plain()

    settings = settings_of(replicated_cluster, connect_args={"password": coroutine if is_async else plain})
    primary = create_primary_engine(settings)
    with primary.connect() as first, primary.connect() as second:
        assert first.scalar(text("SELECT 1")) == second.scalar(text("SELECT 1")) == 1
    assert len(asked) == 2
    primary.dispose()


def test_an_error_of_the_password_function_is_raised_in_its_caller(replicated_cluster: LocalCluster) -> None:
    """The function's error is raised in the caller that connects."""

    def fail() -> str:
        msg = "the vault is sealed"
        raise LookupError(msg)

    primary = create_primary_engine(settings_of(replicated_cluster, connect_args={"password": fail}))
    with pytest.raises(LookupError, match="sealed"):
        primary.connect()


def test_terminating_wakes_the_thread_that_waits(replicated_cluster: LocalCluster) -> None:
    """INVARIANT: its socket is shut down but not closed, because its number could be reused at once."""
    driver = PsycopgSync()
    with connected(replicated_cluster) as connection:
        errors: list[Exception] = []

        def wait() -> None:
            try:
                connection.execute("SELECT pg_sleep(60)")
            except psycopg.OperationalError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(connection.lock.locked)
        driver.terminate(connection)
        thread.join(10)
        assert len(errors) == 1
        assert driver.is_closed(connection)
        driver.terminate(connection)  # a closed connection stays closed
        with connection.lock:
            driver.terminate(connection)


def test_the_socket_of_a_connection_that_has_just_closed_is_left_alone() -> None:
    """INVARIANT: between two calls its number may be reused by another connection, which must stay open."""

    class JustClosed:
        lock = threading.Lock()

        def __init__(self, descriptor: int) -> None:
            self._descriptors = [descriptor]

        def fileno(self) -> int:
            if not self._descriptors:
                raise psycopg.OperationalError  # as psycopg reports that it is closed
            return self._descriptors.pop()

    ours, theirs = socket.socketpair()
    with ours, theirs, JustClosed.lock:
        PsycopgSync().terminate(JustClosed(ours.fileno()))
        ours.send(b"alive")
        assert theirs.recv(5) == b"alive"


def test_an_own_question_leaves_no_transaction_open(replicated_cluster: LocalCluster) -> None:
    """It does not end one either."""
    driver = PsycopgSync()
    idle = psycopg.pq.TransactionStatus.IDLE
    with connected(replicated_cluster) as connection:
        connection.autocommit = False
        assert complete(driver.fetch_row(connection, "SELECT 1 AS n")) == {"n": 1}
        assert connection.info.transaction_status == idle
        connection.execute("SELECT 1")
        assert complete(driver.fetch_row(connection, "SELECT 2 AS n")) == {"n": 2}
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        connection.rollback()
        with pytest.raises(psycopg.OperationalError):
            complete(driver.fetch_row(connection, "SELECT pg_terminate_backend(pg_backend_pid()) AS n"))
        complete(driver.close(connection, within=1))
        assert connection.closed


def test_connections_that_do_not_report_are_refused(replicated_cluster: LocalCluster) -> None:
    """A `do_connect` listener that opens its own connection would hide lost commits."""
    primary = create_primary_engine(settings_of(replicated_cluster))
    url = make_url(replicated_cluster.primary.url).set(drivername="postgresql").render_as_string(hide_password=False)
    event.listen(primary, "do_connect", lambda *_: psycopg.connect(url))
    with pytest.raises(ConfigurationError, match="connect_args"):
        primary.connect()
