"""The token in a message, and its effect on a job."""

import collections.abc
import dataclasses
import time
import typing

import pytest
from modern_di import Container
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import (
    ConsistencyToken,
    Intent,
    PrimaryEngine,
    ReplicationSettings,
    Tokens,
    carried_token,
    current_token,
    unit_of_work,
)
from modern_di_replicas.consistency.carrying import POSITION_UNKNOWN, client_of
from modern_di_replicas.testing import LocalCluster
from tests.carrying import (
    PRIMARY,
    REPLICA,
    WRITE,
    caught_up,
    create_stock,
    in_own_task,
    read,
    replay_paused,
    settings_of,
    watched,
)


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


@pytest.fixture
async def container(database: ReplicationSettings) -> collections.abc.AsyncIterator[Container]:
    async with watched(database) as container:
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO stock VALUES (1, 0)"))
        yield container


async def test_without_writes_no_token_is_carried(container: Container) -> None:
    """A job that was queued by a read may use any replica."""

    async def run() -> None:
        async with unit_of_work(container, intent=Intent.read()) as unit:
            await unit.resolve(AsyncSession).scalar(text("SELECT 1"))
            assert carried_token(container) is None

    await in_own_task(run())


async def test_the_token_of_a_commit_is_carried(container: Container) -> None:
    """As text, which the application's tokens can parse."""

    async def run() -> None:
        async with unit_of_work(container) as unit:
            session = unit.resolve(AsyncSession)
            await session.execute(WRITE)
            await session.commit()
            await session.scalar(text("SELECT 1"))  # a refresh starts a transaction that has nothing to commit
            carried = carried_token(unit)
            assert carried is not None
            assert unit.resolve(Tokens).decode(carried) == current_token()

    await in_own_task(run())


async def test_before_the_commit_of_its_unit_of_work_the_position_is_unknown(container: Container) -> None:
    """INVARIANT: a worker may run before the commit; only the primary will have the write."""

    async def run() -> None:
        async with unit_of_work(container) as unit:
            session = unit.resolve(AsyncSession)
            assert carried_token(container) == POSITION_UNKNOWN, "it says that it writes, and has not yet"
            await session.execute(WRITE)
            await session.commit()
            assert carried_token(container) != POSITION_UNKNOWN

            stock = Stock(id=2, amount=0)
            session.add(stock)
            assert carried_token(container) == POSITION_UNKNOWN, "nothing is flushed"
            await session.flush()
            assert carried_token(container) == POSITION_UNKNOWN, "nothing is committed"
            await session.commit()
            assert carried_token(container) != POSITION_UNKNOWN

            stock.amount = 3
            assert carried_token(container) == POSITION_UNKNOWN, "a change is not flushed"
            await session.flush()
            await session.rollback()
            assert carried_token(container) != POSITION_UNKNOWN

            async with container.resolve(PrimaryEngine).connect() as connection:
                await connection.execute(WRITE)
                assert carried_token(container) == POSITION_UNKNOWN, "Core has written, and not committed"
            assert carried_token(container) != POSITION_UNKNOWN

    await in_own_task(run())


async def test_a_unit_of_work_with_core_carries_that_it_has_not_committed(container: Container) -> None:
    """As with a session: it declares a write, and has not committed yet."""

    async def run() -> None:
        async with unit_of_work(container) as unit:
            assert carried_token(container) is None, "it has neither an engine nor a session"
            engine = unit.resolve(AsyncEngine)
            assert carried_token(container) == POSITION_UNKNOWN
            async with engine.begin() as connection:
                await connection.execute(WRITE)
            assert carried_token(container) not in (None, POSITION_UNKNOWN)

    await in_own_task(run())


async def test_an_escalated_read_carries_that_it_has_not_committed(container: Container) -> None:
    """Declared as a read, it has escalated to the primary."""

    async def run() -> None:
        async with unit_of_work(container, intent=Intent.read()) as unit:
            session = unit.resolve(AsyncSession)
            session.add(Stock(id=2, amount=0))
            assert carried_token(container) == POSITION_UNKNOWN
            await session.commit()
            assert carried_token(container) != POSITION_UNKNOWN
            await session.execute(WRITE)
            assert carried_token(container) == POSITION_UNKNOWN

    await in_own_task(run())


async def test_an_unknown_position_is_carried_on(container: Container) -> None:
    """By a job that queues another one; its own writes do not include the uncommitted ones elsewhere."""

    async def run() -> None:
        async with unit_of_work(container, token=POSITION_UNKNOWN) as unit:
            session = unit.resolve(AsyncSession)
            await session.execute(WRITE)
            await session.commit()
            assert carried_token(container) == POSITION_UNKNOWN
            assert current_token() is None

    await in_own_task(run())


@pytest.mark.parametrize("secret", [None, "a secret"], ids=["unsigned", "signed"])
async def test_a_job_with_an_unusable_token_reads_from_the_primary(
    disposable_cluster: LocalCluster, secret: str | None
) -> None:
    """For a forged or malformed token, or one of another database; an expired one still names its position."""
    create_stock(disposable_cluster)
    async with watched(settings_of(disposable_cluster, token_secret=secret)) as container:
        tokens = container.resolve(Tokens)
        position = await tokens.now()
        assert position is not None

        async def run(carried: object) -> tuple[int, bool]:
            async with unit_of_work(container, intent=Intent.read(), token=typing.cast(str, carried)) as unit:
                return await read(unit.resolve(AsyncSession))

        def text_of(**changes: typing.Any) -> str:
            return tokens.encode(dataclasses.replace(position, **changes))

        expired = text_of(issued_at=int(time.time()) - 3600)
        foreign = text_of(database="0" * 16)
        ahead = text_of(lsn=position.lsn + (1 << 40))
        forged = f"{text_of()}x"
        for carried in (foreign, ahead, forged, "", "1.2.3", POSITION_UNKNOWN, 7, b"1", {"a": 1}):
            assert await in_own_task(run(carried)) == (0, PRIMARY), carried
        assert tokens.rejected.keys() >= {"foreign"}
        assert await in_own_task(run(expired)) == (0, REPLICA)
        with replay_paused(disposable_cluster):
            disposable_cluster.primary.execute(str(WRITE))
            later = await tokens.now()
            assert later is not None
            expired = tokens.encode(dataclasses.replace(later, issued_at=1))
            assert await in_own_task(run(expired)) == (1, PRIMARY)
        await caught_up(disposable_cluster)
        assert await in_own_task(run(expired)) == (1, REPLICA)


def test_a_token_is_taken_as_it_is() -> None:
    """An application that has parsed it needs no text."""
    token = ConsistencyToken(lsn=1, timeline=1, database="0" * 16, issued_at=0)
    client = client_of(Container(groups=[]), token)
    assert (client.token, client.position_unknown, client.is_request) == (token, False, True)
