import collections.abc

import pytest
from modern_di import Container, Group, Scope, providers
from sqlalchemy.ext.asyncio import AsyncSession

import modern_di_replicas.fastapi
import modern_di_replicas.litestar
from modern_di_replicas import Monitor, PrimaryEngine, ReplicaEngine, ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.background_job.app import Base, Comment, Jobs, Post, PostRepository, clean_up, main, report


class Repositories(Group):
    posts = providers.Factory(PostRepository, scope=Scope.REQUEST)


@pytest.fixture(
    params=[
        [Jobs],
        [modern_di_replicas.fastapi.Dependencies, Repositories],
        [modern_di_replicas.litestar.Dependencies, Repositories],
    ],
    ids=["jobs only", "fastapi", "litestar"],
)
async def container(
    request: pytest.FixtureRequest,
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    routing_log: RoutingLog,
) -> collections.abc.AsyncIterator[Container]:
    async with (
        Container(groups=request.param, context={ReplicationSettings: database}) as container,
        Monitor(container.resolve(ReplicaEngine)),
    ):
        await fill(container)
        replicated_cluster.catch_up()
        routing_log.clear()
        yield container


async def fill(container: Container) -> None:
    async with container.resolve(PrimaryEngine).begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with container.build_child_container(scope=Scope.REQUEST) as unit_of_work:
        session = unit_of_work.resolve(AsyncSession)
        comments = [Comment(text="First!"), Comment(text="Buy now", is_spam=True)]
        session.add_all([Post(title="Hello", comments=comments), Post(title="Quiet")])
        await session.commit()


async def test_a_job_that_declares_a_read_uses_a_replica(container: Container, routing_log: RoutingLog) -> None:
    """Also with the container of a web application, outside a request."""
    assert await report(container) == {"Hello": 2, "Quiet": 0}
    assert routing_log.servers in (["replica-1"], ["replica-2"])


async def test_an_undeclared_job_writes_to_the_primary(container: Container, routing_log: RoutingLog) -> None:
    """Without a declaration, any statement is allowed."""
    assert await clean_up(container) == 1
    assert set(routing_log.servers) == {"primary"}


async def test_the_program_cleans_up_and_reports(
    database: ReplicationSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As run from a shell, here with a single server: settings without replicas are valid."""
    async with Container(groups=[Jobs], context={ReplicationSettings: database}) as container:
        await fill(container)
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", "")

    await main()

    assert capsys.readouterr().out == "Deleted 1 spam comments.\n{'Hello': 1, 'Quiet': 0}\n"
