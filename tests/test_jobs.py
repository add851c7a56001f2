"""Units of work outside a request."""

import asyncio
import collections.abc
import contextlib
import typing

import fastapi
import httpx
import pytest
from modern_di import Container
from modern_di_fastapi import FromDI
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
from modern_di_replicas import Intent, ReplicationSettings, Tokens, carried_token, current_token, unit_of_work
from modern_di_replicas.consistency.client import current_client
from modern_di_replicas.testing import LocalCluster
from tests.carrying import (
    PRIMARY,
    REPLICA,
    caught_up,
    create_stock,
    in_own_task,
    read,
    replay_paused,
    settings_of,
    watched,
    write,
    write_with_core,
)


@pytest.fixture
def stock(disposable_cluster: LocalCluster) -> LocalCluster:
    create_stock(disposable_cluster)
    return disposable_cluster


async def read_in_unit(container: Container, **options: typing.Any) -> tuple[int, bool]:
    async with unit_of_work(container, intent=Intent.read(), **options) as unit:
        return await read(unit.resolve(AsyncSession))


async def write_in_unit(container: Container, **options: typing.Any) -> None:
    async with unit_of_work(container, **options) as unit:
        await write(unit.resolve(AsyncSession))


async def test_a_unit_of_work_reads_the_writes_of_earlier_ones_in_the_same_task(stock: LocalCluster) -> None:
    """A script is one client, however it commits; the paused replicas serve it again later."""
    async with watched(settings_of(stock)) as container:
        assert await read_in_unit(container) == (0, REPLICA)
        with replay_paused(stock):
            await write_in_unit(container)
            assert await read_in_unit(container) == (1, PRIMARY)
            await write_with_core(container)
            assert await read_in_unit(container) == (2, PRIMARY)
        await caught_up(stock)
        assert await read_in_unit(container) == (2, REPLICA)


async def test_each_task_has_its_own_client(stock: LocalCluster) -> None:
    """The writes of one job do not keep another job off the replicas."""
    async with watched(settings_of(stock)) as container:
        with replay_paused(stock):
            await in_own_task(write_in_unit(container))
            assert await in_own_task(read_in_unit(container)) == (0, REPLICA)
            assert current_token() is None


async def test_a_unit_of_work_reads_the_writes_in_its_messages_token(stock: LocalCluster) -> None:
    """The message carries a text between processes; the worker has another container."""
    settings = settings_of(stock, token_secret="a secret")

    async def send() -> str | None:
        await write_in_unit(container)
        return carried_token(container)

    async with watched(settings) as container, watched(settings) as worker:
        with replay_paused(stock):
            text = await in_own_task(send())
            assert text is not None
            assert await read_in_unit(worker) == (0, REPLICA)
            assert await read_in_unit(worker, token=text) == (1, PRIMARY)
            assert await read_in_unit(worker, token=container.resolve(Tokens).decode(text)) == (1, PRIMARY)
        await caught_up(stock)
        assert await read_in_unit(worker, token=text) == (1, REPLICA)


async def test_a_unit_of_work_in_a_request_is_the_requests(stock: LocalCluster) -> None:
    """The client is informed of its writes; a background task that begins later reads them without a token."""
    app = fastapi.FastAPI()
    seen = []

    async def later(container: Container) -> None:
        seen.append(await read_in_unit(container))

    @app.post("/")
    async def handler(
        container: typing.Annotated[Container, FromDI(Container)], background: fastapi.BackgroundTasks
    ) -> None:
        await write_in_unit(root)
        seen.append(await read_in_unit(root))
        background.add_task(later, root)
        assert container is not root

    root = Container(
        groups=[modern_di_replicas.fastapi.Dependencies], context={ReplicationSettings: settings_of(stock)}
    )
    modern_di_replicas.fastapi.setup_replicas(app, root)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        with replay_paused(stock):
            response = await client.post("/")
    assert "consistency-token" in response.cookies
    assert seen == [(1, PRIMARY), (1, PRIMARY)]


async def test_a_token_inside_a_request_adds_to_the_requests_writes(stock: LocalCluster) -> None:
    """Both are known, and the later position counts."""
    async with watched(settings_of(stock)) as container, unit_of_work(container) as unit:
        await write(unit.resolve(AsyncSession))
        early = current_token()
        with replay_paused(stock):
            await write(unit.resolve(AsyncSession))
            assert await read_in_unit(container, token=early) == (2, PRIMARY)


async def test_a_unit_of_work_ends_with_its_block(stock: LocalCluster) -> None:
    """Whatever the block raises, the session is closed, and the next unit of work is another one."""
    async with watched(settings_of(stock)) as container:
        with contextlib.suppress(ZeroDivisionError):
            async with unit_of_work(container) as unit:
                session = unit.resolve(AsyncSession)
                await read(session)
                raise ZeroDivisionError
        assert not session.in_transaction()
        assert unit.closed
        async with unit_of_work(container, context={Intent: Intent.read()}) as other:
            assert await read(other.resolve(AsyncSession)) == (0, REPLICA)


async def generated(container: Container) -> collections.abc.AsyncGenerator[AsyncSession]:
    async with unit_of_work(container) as unit:
        yield unit.resolve(AsyncSession)


async def test_a_unit_of_work_may_end_in_another_task_than_it_began_in(stock: LocalCluster) -> None:
    """For example that of a fixture, or of a generator finalized by the event loop; no state remains."""
    async with watched(settings_of(stock)) as container:
        sessions = generated(container)
        await write(await asyncio.create_task(anext(sessions)))
        await sessions.aclose()
        assert current_token() is not None


async def test_a_lost_commit_answer_leaves_the_position_unknown_for_the_next_unit_of_work(
    stock: LocalCluster,
) -> None:
    """As within one unit of work: it may still be committed."""
    async with watched(settings_of(stock)) as container:

        async def run() -> tuple[int, bool]:
            async with unit_of_work(container):
                current_client().begin_write()
            return await read_in_unit(container)

        assert await in_own_task(run()) == (0, PRIMARY)
