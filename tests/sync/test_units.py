"""Units of work outside a request."""

import concurrent.futures
import typing

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from modern_di_replicas import Intent, ReplicationSettings, current_token
from modern_di_replicas.sync import (
    Monitor,
    PrimaryEngine,
    ReplicaEngine,
    RoutedSession,
    SessionFactory,
    unit_of_work,
)
from tests.session.models import Account
from tests.sync.test_dependencies import IN_RECOVERY, container_of


def test_a_unit_of_work_reads_or_writes_as_it_declares(shop: ReplicationSettings) -> None:
    """A read uses a replica, a write or an undeclared one the primary; at the end all connections are returned."""
    with container_of(shop) as container:
        container.validate()
        for intent, on_replica in ((Intent.read(), True), (Intent.write(), False), (None, False)):
            with unit_of_work(container, intent=intent) as unit:
                session = unit.resolve(Session)
                assert session is unit.resolve(RoutedSession)
                assert session.scalar(IN_RECOVERY) is on_replica
                with unit.resolve(SessionFactory)() as another:
                    assert another.scalar(IN_RECOVERY) is on_replica
        primary, replica = container.resolve(PrimaryEngine), container.resolve(ReplicaEngine)
        assert primary.pool.checkedout() == replica.pool.checkedout() == 0  # type: ignore[attr-defined]  # of pools of ours
        pools: list[typing.Any] = [primary.pool, *(engine.pool for engine in replica.engines.values())]
        assert sum(pool.checkedin() for pool in pools) >= 2
    pools = [primary.pool, *(engine.pool for engine in replica.engines.values())]
    assert sum(pool.checkedin() for pool in pools) == 0


def test_a_unit_of_work_reads_its_writes_and_those_of_earlier_ones(shop: ReplicationSettings) -> None:
    """In each thread a unit of work has a separate record, which the next one in the thread inherits."""
    with container_of(shop) as container, Monitor(container.resolve(ReplicaEngine)):

        def write_and_read(balance: int) -> list[int | None]:
            with unit_of_work(container, intent=Intent.write()) as unit:
                unit.resolve(Session).execute(text("UPDATE account SET balance = :b"), {"b": balance})
                unit.resolve(Session).commit()
            with unit_of_work(container, intent=Intent.read()) as unit:
                session = unit.resolve(Session)
                return [session.scalar(select(Account.balance))]

        for balance in range(10):
            assert write_and_read(balance) == [balance]
        token = current_token()
        assert token is not None
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert executor.submit(current_token).result() is None
            assert executor.submit(write_and_read, 100).result() == [100]
        assert current_token() == token
        with unit_of_work(container, intent=Intent.read(), token=token) as unit:
            assert unit.resolve(Session).scalar(select(Account.balance)) == 100
