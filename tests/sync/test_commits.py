"""Each commit that may have written gives its client a token, for every way to commit in a synchronous application."""

import collections.abc
import contextlib
import threading
import typing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from modern_di_replicas import ConsistencyToken, TransactionRolledBackError
from modern_di_replicas.consistency.client import Client, request_of
from modern_di_replicas.sync import RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.cluster import test_commits
from tests.session.models import Account
from tests.sync.awaitable import hold_to
from tests.sync.conftest import Servers, serving


WRITE = text("UPDATE account SET balance = balance")

Way = collections.abc.Callable[[Servers], object]


def core_begin(servers: Servers) -> None:
    with servers.primary.begin() as connection:
        connection.execute(WRITE)


def core_autocommit(servers: Servers) -> None:
    with servers.primary.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(WRITE)


def core_many(servers: Servers) -> None:
    with servers.primary.begin() as connection:
        connection.execute(text("UPDATE account SET balance = balance WHERE id = :id"), [{"id": 1}, {"id": 2}])


def core_without_parameters(servers: Servers) -> None:
    with servers.primary.execution_options(no_parameters=True).begin() as connection:
        connection.exec_driver_sql("UPDATE account SET balance = balance")


def savepoint(servers: Servers) -> None:
    with servers.primary.begin() as connection, connection.begin_nested():
        connection.execute(WRITE)


def session_commit(servers: Servers) -> None:
    with RoutedSession(servers.primary) as session:
        session.execute(WRITE)
        session.commit()


def session_begin(servers: Servers) -> None:
    with sessionmaker(servers.primary, class_=RoutedSession).begin() as session:
        session.get_one(Account, 1).version += 0
        session.execute(WRITE)


def escalated(servers: Servers) -> None:
    with servers.session() as session:
        session.scalar(text("SELECT 1"))
        session.execute(WRITE)
        session.commit()


def plain_session(servers: Servers) -> None:
    with Session(servers.primary) as session:
        session.execute(WRITE)
        session.commit()


def dbapi(servers: Servers) -> None:
    connection = servers.primary.raw_connection()
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("UPDATE account SET balance = balance")
    connection.commit()
    connection.close()


def driver(servers: Servers) -> None:
    with servers.primary.connect() as connection:
        opened = typing.cast(typing.Any, connection.connection.driver_connection)
        opened.execute("UPDATE account SET balance = balance")
        opened.commit()


def detached(servers: Servers) -> None:
    with servers.primary.connect() as connection:
        connection.detach()
        connection.execute(WRITE)
        connection.commit()


def chosen_with_a_reason(servers: Servers) -> None:
    with servers.primary.with_decision(servers.primary.decision).begin() as connection:
        connection.execute(WRITE)


WAYS: tuple[Way, ...] = (
    *(core_begin, core_autocommit, core_many, core_without_parameters, savepoint, session_commit, session_begin),
    *(escalated, plain_session, dbapi, driver, detached, chosen_with_a_reason),
)


def written_by(way: Way, servers: Servers) -> Client:
    client = Client(is_request=True)
    with request_of(client):
        way(servers)
    return client


@pytest.mark.parametrize("way", WAYS)
def test_a_write_has_a_token(servers: Servers, way: Way) -> None:
    """Its position is known once the connection is returned, and is at or before that of the next commit."""
    client = written_by(way, servers)
    assert client.token is not None
    assert client.wrote
    assert not client.position_unknown
    assert written_by(core_begin, servers).token is not None
    after = written_by(core_begin, servers).token
    assert isinstance(after, ConsistencyToken)
    assert after.lsn >= client.token.lsn


def test_rolled_back_and_reading_transactions_have_no_token(servers: Servers) -> None:
    """A failed transaction has no token either."""

    def roll_back(servers: Servers) -> None:
        with servers.primary.connect() as connection:
            connection.execute(WRITE)
            connection.rollback()
        with contextlib.suppress(DBAPIError), servers.primary.begin() as connection:
            connection.execute(text("UPDATE account SET balance = 1 / 0"))
        with servers.session() as session:
            session.scalar(text("SELECT 1"))

    client = written_by(roll_back, servers)
    assert client.token is None
    assert not client.position_unknown


def test_a_commit_in_two_phases_has_a_token_or_an_error() -> None:
    """Prepared, in one step, and for a failed transaction."""
    with LocalCluster(replicas=1, settings={"max_prepared_transactions": "2"}) as cluster:
        cluster.primary.execute("CREATE TABLE note (body text)")
        with serving(cluster) as servers:

            def commit(statement: str, *, prepare: bool = False) -> collections.abc.Callable[[Servers], None]:
                def way(servers: Servers) -> None:
                    with servers.primary.connect() as connection:
                        transaction = connection.begin_twophase()
                        with contextlib.suppress(DBAPIError):
                            connection.execute(text(statement))
                        if prepare:
                            transaction.prepare()
                        transaction.commit()

                return way

            for prepare in (True, False):
                assert written_by(commit("INSERT INTO note VALUES ('a')", prepare=prepare), servers).token is not None
            assert cluster.primary.execute("SELECT count(*) FROM note") == "2"
            with pytest.raises(TransactionRolledBackError):
                written_by(commit("SELECT 1 / 0"), servers)


def test_threads_have_clients_of_their_own(servers: Servers) -> None:
    """INVARIANT: the writes of one thread are not attributed to another thread's client."""
    clients = [Client(is_request=True) for _ in range(8)]
    together = threading.Barrier(len(clients))

    def work(number: int) -> None:
        with request_of(clients[number]):
            together.wait()
            for _ in range(20):
                if number % 2:
                    core_begin(servers)
                else:
                    with servers.primary.connect() as connection:
                        connection.scalar(text("SELECT 1"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [client.token is not None for client in clients] == [False, True] * 4


fresh_context, cluster, primary = test_commits.fresh_context, test_commits.cluster, test_commits.primary

hold_to(
    test_commits,
    globals(),
    without=(
        # For a synchronous connection that is never returned, the garbage collector can ask the server.
        "test_a_connection_that_was_never_given_back_leaves_its_client_unsure",
        # The monitor asks in its own thread.
        "test_a_monitor_ends_while_a_question_is_open",
        # It awaits the driver's own methods.
        "test_a_connection_of_the_driver_that_was_lost_is_given_back_quietly",
    ),
)
