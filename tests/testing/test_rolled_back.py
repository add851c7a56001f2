"""A test in one transaction that is rolled back, with the units of work of the application."""

import asyncio
import collections.abc
import typing

import pytest
import sqlalchemy.exc
from modern_di import Container, Scope
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import (
    Dependencies,
    Intent,
    PrimaryEngine,
    ReplicaEngine,
    ReplicationSettings,
    RoutedSession,
    SessionFactory,
)
from modern_di_replicas.errors import SharedConnectionBusyError
from modern_di_replicas.testing import RoutingLog, rolled_back


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "rolled_back_note"

    text: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
async def container(database: ReplicationSettings) -> collections.abc.AsyncIterator[Container]:
    """Yield an application with a table."""
    async with Container(groups=[Dependencies], context={ReplicationSettings: database}) as container:
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield container


def unit_of_work(container: Container, intent: Intent | None = None) -> Container:
    return container.build_child_container(scope=Scope.REQUEST, context={Intent: intent or Intent.write()})


async def add(container: Container, note: str, *, commits: bool = True) -> None:
    async with unit_of_work(container) as unit:
        session = unit.resolve(AsyncSession)
        session.add(Note(text=note))
        await (session.commit() if commits else session.flush())


async def notes(container: Container) -> list[str]:
    async with unit_of_work(container, Intent.read()) as unit:
        return sorted(await unit.resolve(AsyncSession).scalars(select(Note.text)))


async def test_reads_see_what_the_test_wrote_and_nothing_of_it_is_left(container: Container) -> None:
    """Both roles, Core and the ORM, use the one transaction."""
    async with rolled_back(container) as connection:
        await add(container, "one")
        assert await notes(container) == ["one"]
        async with container.resolve(ReplicaEngine).connect() as core:
            assert not await core.scalar(text("SELECT pg_is_in_recovery()"))
            assert await core.scalar(select(func.count()).select_from(Note)) == 1
        async with container.resolve(PrimaryEngine).begin() as core:
            await core.execute(text("INSERT INTO rolled_back_note VALUES ('two')"))
        assert await connection.scalar(select(func.count()).select_from(Note)) == 2
    assert await notes(container) == []


async def test_a_unit_of_work_undoes_its_own_changes_only(container: Container) -> None:
    """A rollback, an error and a session closed without a commit behave as in production."""
    async with rolled_back(container):
        await add(container, "kept")
        await add(container, "closed", commits=False)
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            await add(container, "kept")
        async with unit_of_work(container) as unit:
            session = unit.resolve(AsyncSession)
            session.add(Note(text="undone"))
            await session.flush()
            await session.rollback()
            session.add(Note(text="after the rollback"))
            await session.commit()
        assert await notes(container) == ["after the rollback", "kept"]


async def test_concurrent_requests_and_jobs_take_turns(container: Container) -> None:
    """INVARIANT: on one connection they would otherwise end each other's savepoints."""
    async with rolled_back(container):
        await asyncio.gather(*(add(container, f"{number}", commits=number % 5 > 0) for number in range(30)))
        assert len(await notes(container)) == 24


async def test_sessions_of_one_unit_of_work_overlap(container: Container) -> None:
    """In whatever order their transactions end, each keeps or undoes its own changes."""
    async with rolled_back(container), unit_of_work(container) as unit:
        first = unit.resolve(AsyncSession)
        engine = typing.cast(typing.Any, first.bind)
        async with RoutedSession(engine) as second, RoutedSession(engine) as third:
            for number, session in enumerate((first, second, third)):
                session.add(Note(text=str(number)))
                await session.flush()
            await first.commit()
            await third.rollback()
            await second.commit()
        assert sorted(await first.scalars(select(Note.text))) == ["0", "1"]


async def test_a_session_inside_a_rolled_back_one_ends_without_an_error(container: Container) -> None:
    """PostgreSQL undoes all later savepoints with one; nothing remains to be released."""
    async with rolled_back(container), unit_of_work(container) as unit:
        first = unit.resolve(AsyncSession)
        async with RoutedSession(typing.cast(typing.Any, first.bind)) as second:
            for session in (first, second):
                await session.execute(select(Note.text))
            await first.rollback()
        assert list(await first.scalars(select(Note.text))) == []


async def test_the_wait_for_a_turn_is_bounded_and_names_both(container: Container) -> None:
    """A test that keeps a transaction open while it sends a request would otherwise wait forever."""
    async with rolled_back(container, timeout=0.05):
        async with unit_of_work(container, Intent.write(reason="the test")) as held:
            held.resolve(AsyncSession).add(Note(text="not committed"))
            await held.resolve(AsyncSession).flush()
            with pytest.raises(SharedConnectionBusyError) as caught:
                await notes(container)
        assert (caught.value.waiting, caught.value.holding) == (
            "a unit of work (declared)",
            "a unit of work (the test)",
        )
        assert await notes(container) == []


async def test_a_unit_of_work_that_has_only_read_does_not_keep_others_waiting(container: Container) -> None:
    """A request that has committed and read starts a background task, which ends before its session is closed."""
    async with rolled_back(container, timeout=5), unit_of_work(container, Intent.write(reason="request")) as request:
        session = request.resolve(AsyncSession)
        session.add(Note(text="request"))
        await session.commit()
        assert await session.scalar(select(func.count()).select_from(Note)) == 1
        await add(container, "task")
        assert await session.scalar(select(func.count()).select_from(Note)) == 2
        session.add(Note(text="request, again"))
        await session.commit()
        await session.execute(select(Note.text))
        await add(container, "another task")
        await session.rollback()
        assert await notes(container) == ["another task", "request", "request, again", "task"]


@pytest.mark.parametrize("kept", ["SELECT FOR UPDATE", "SAVEPOINT", "an error", "a stream", "the driver's connection"])
async def test_a_unit_of_work_keeps_its_turn_while_something_would_be_lost(container: Container, kept: str) -> None:
    """INVARIANT: a lock, a savepoint or a cursor would end with its turn, and a failed transaction needs a rollback."""
    async with rolled_back(container, timeout=0.05), unit_of_work(container) as unit:
        session = unit.resolve(AsyncSession)
        if kept == "SELECT FOR UPDATE":
            await session.execute(select(Note.text).with_for_update())
        elif kept == "SAVEPOINT":
            await session.begin_nested()
            await session.execute(select(Note.text))
        elif kept == "an error":
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                await session.execute(text("SELECT 1/0"))
        elif kept == "a stream":
            stream = await session.stream(select(Note.text))
        else:
            assert (await (await session.connection()).get_raw_connection()).driver_connection
        with pytest.raises(SharedConnectionBusyError):
            await notes(container)
        if kept == "a stream":
            await stream.close()
        await session.rollback()
        assert await notes(container) == []


async def test_sessions_of_units_of_work_that_read_interleave(container: Container) -> None:
    """INVARIANT: a resumed turn ends the savepoints of the previous turn, not those of its own other sessions."""

    async def request(number: int) -> None:
        async with unit_of_work(container, Intent.read()) as unit:
            sessions = unit.resolve(SessionFactory)

            async def read() -> None:
                async with sessions() as session:
                    for _ in range(3):
                        await session.execute(select(Note.text))
                        await asyncio.sleep(0)

            await asyncio.gather(*(read() for _ in range(4)))
        await add(container, str(number))

    async with rolled_back(container, timeout=30):
        await asyncio.gather(*(request(number) for number in range(6)))
        assert len(await notes(container)) == 6


async def test_requests_that_read_and_then_write_do_so_one_after_the_other(
    container: Container, routing_log: RoutingLog
) -> None:
    """Reads interleave, transactions that write do not; statements of the routing log hold no turn."""

    async def request(number: int) -> None:
        async with unit_of_work(container) as unit:
            session = unit.resolve(AsyncSession)
            for _ in range(3):
                await session.execute(select(Note.text))
                await asyncio.sleep(0)
            session.add(Note(text=str(number)))
            await session.flush()
            await asyncio.sleep(0)
            await (session.rollback() if number % 4 == 0 else session.commit())
            await session.execute(select(Note.text))

    async with rolled_back(container, timeout=30):
        await asyncio.gather(*(request(number) for number in range(20)))
        assert len(await notes(container)) == 15
    assert routing_log.visits


async def test_a_cancelled_request_leaves_the_transaction_usable(container: Container) -> None:
    """INVARIANT: after a cancellation at any step, the savepoints match PostgreSQL's; other requests continue."""
    if "asyncpg" not in str(container.resolve(PrimaryEngine).url):
        pytest.skip("with psycopg, a statement that is cancelled may close the one connection")

    async def request(number: int) -> None:
        async with unit_of_work(container) as unit:
            session = unit.resolve(AsyncSession)
            await session.execute(select(Note.text))
            session.add(Note(text=str(number)))
            await session.flush()
            await session.rollback()

    async with rolled_back(container):
        for steps in range(30):
            task = asyncio.create_task(request(steps))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, add(container, f"other {steps}"), return_exceptions=True)
        assert len(await notes(container)) == 30


async def test_autocommit_keeps_its_changes(container: Container) -> None:
    """It does not wait for a commit."""
    async with rolled_back(container):
        engine = container.resolve(PrimaryEngine).execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as core:
            await core.execute(text("INSERT INTO rolled_back_note VALUES ('at once')"))
        read_only = engine.execution_options(postgresql_readonly=True, postgresql_deferrable=True)
        async with read_only.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM rolled_back_note")) == 1
        async with engine.connect() as idle:
            adapted = typing.cast(typing.Any, (await idle.get_raw_connection()).dbapi_connection)
            assert adapted.autocommit is False  # it belongs to the shared connection
            adapted.set_autocommit(True)  # as psycopg's dialect does
            adapted.set_isolation_level(None)
        assert await notes(container) == ["at once"]
