"""Tests of synchronous applications in one transaction that is rolled back."""

import collections.abc
import threading

import pytest
from modern_di import Container
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.errors import SharedConnectionBusyError
from modern_di_replicas.sync import Dependencies, PrimaryEngine, SessionFactory, unit_of_work
from modern_di_replicas.testing import LocalCluster, create_database, rolled_back
from tests.sync.conftest import settings_of


COUNT = text("SELECT count(*) FROM note")
INSERT = text("INSERT INTO note VALUES (1)")


@pytest.fixture(scope="module")
def settings(replicated_cluster: LocalCluster) -> ReplicationSettings:
    return settings_of(create_database(replicated_cluster, "rolled_back_sync"))


@pytest.fixture
def container(settings: ReplicationSettings) -> collections.abc.Iterator[Container]:
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        with container.resolve(PrimaryEngine).begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS note"))
            connection.execute(text("CREATE TABLE note (id int)"))
        yield container


def test_everything_of_a_test_is_rolled_back(container: Container) -> None:
    """A commit of one unit of work is visible to the next one's reads; nothing remains."""
    with rolled_back(container) as connection:
        with unit_of_work(container, intent=Intent.write()) as unit:
            session = unit.resolve(Session)
            session.execute(INSERT)
            session.commit()
            session.execute(INSERT)
            session.execute(INSERT)
            session.rollback()
            with unit.resolve(SessionFactory)() as another:
                assert another.scalar(COUNT) == 1
        with unit_of_work(container, intent=Intent.read()) as unit:
            assert unit.resolve(Session).scalar(COUNT) == 1
        with container.resolve(PrimaryEngine).begin() as core:
            core.execute(INSERT)
        autocommit = container.resolve(PrimaryEngine).execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as core:
            core.execute(INSERT)
        assert connection.scalar(COUNT) == 3
        with pytest.raises(DBAPIError), container.resolve(PrimaryEngine).begin() as core:
            core.execute(text("SELECT 1 / 0"))
        assert connection.scalar(COUNT) == 3
    with container.resolve(PrimaryEngine).connect() as core:
        assert core.scalar(COUNT) == 0


def test_units_of_work_take_turns(container: Container) -> None:
    """Another thread waits for the connection; a timeout is an error that names both units of work."""
    with rolled_back(container, timeout=0.1), unit_of_work(container, intent=Intent.write()) as unit:
        unit.resolve(Session).execute(INSERT)
        with unit_of_work(container) as other, pytest.raises(SharedConnectionBusyError):
            other.resolve(Session).scalar(COUNT)
        unit.resolve(Session).commit()
    counted: list[int | None] = []
    with rolled_back(container):

        def count() -> None:
            with unit_of_work(container) as unit:
                counted.append(unit.resolve(Session).scalar(COUNT))

        with unit_of_work(container, intent=Intent.write()) as unit:
            unit.resolve(Session).execute(INSERT)
            thread = threading.Thread(target=count)
            thread.start()
            unit.resolve(Session).commit()
        thread.join()
    assert counted == [1]
