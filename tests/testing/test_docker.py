"""A cluster in containers, if there is a Docker engine: `make test-docker`."""

import asyncio
import os
import shutil
import subprocess
import typing

import pytest
from modern_di import Container, Scope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Dependencies, Intent, Monitor, ReplicaEngine, ReplicationSettings
from modern_di_replicas.errors import ClusterStateError, DockerNotAvailableError, ServerFailedError
from modern_di_replicas.testing import DockerCluster, fault
from tests.waiting import until


IMAGE: typing.Final = os.environ.get("DOCKER_IMAGE", "postgres:18")


def why_not() -> str | None:
    """Return the reason why the tests cannot run here."""
    if shutil.which("docker") is None:
        return "there is no Docker client"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:  # noqa: S607  # as PATH has it
        return "there is no Docker engine"
    found = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)  # noqa: S603, S607
    return f"the image {IMAGE} is not here: docker pull {IMAGE}" if found.returncode else None


pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=f"{why_not()}"),
    pytest.mark.xdist_group("docker"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def cluster() -> typing.Iterator[DockerCluster]:
    """Yield a primary and two replicas in containers."""
    with DockerCluster(image=IMAGE) as cluster:
        yield cluster


def test_the_servers_replicate_and_can_be_broken_like_local_ones(cluster: DockerCluster) -> None:
    """The faults and their names are the same."""
    first, second = cluster.replicas
    cluster.primary.execute("CREATE TABLE word (text text)")
    cluster.catch_up()
    for name in ("freeze", "crash", "stop", "lag"):
        with fault(name, first):
            assert name in ("lag", "freeze") or not first.is_running()
            assert first.is_frozen() is (name == "freeze")
            cluster.primary.execute("INSERT INTO word VALUES ('hello')")
        cluster.catch_up()
    for replica in (first, second):
        assert replica.execute("SELECT count(*) FROM word") == "4"
    assert "ready to accept" in cluster.primary.log()


def test_a_frozen_server_answers_nothing(cluster: DockerCluster) -> None:
    """Like a host that hangs."""
    with fault("freeze", cluster.primary), pytest.raises(ServerFailedError, match="frozen"):
        cluster.primary.execute("SELECT 1")


async def test_an_application_routes_and_survives_a_frozen_replica(cluster: DockerCluster) -> None:
    """On containers as on local servers."""
    first, second = cluster.replicas
    settings = ReplicationSettings(primary=cluster.primary.url, replicas=[first.url, second.url])

    async def place(container: Container, intent: Intent) -> bool:
        async with container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit:
            return bool(await unit.resolve(AsyncSession).scalar(text("SELECT pg_is_in_recovery()")))

    async with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        replica = container.resolve(ReplicaEngine)
        async with Monitor(replica):
            assert await place(container, Intent.read())
            assert not await place(container, Intent.write())
            await asyncio.to_thread(first.freeze)
            try:
                for _ in range(20):
                    assert await place(container, Intent.read()) in (True, False)
                await until(lambda: not replica.snapshot.servers[f"{first.host}:{first.port}"].up)  # type: ignore[union-attr]  # a monitor runs
                assert await place(container, Intent.read())
            finally:
                await asyncio.to_thread(first.thaw)


def test_a_promoted_replica_is_followed() -> None:
    """A switchover between containers."""
    with DockerCluster(image=IMAGE) as cluster:
        promoted, standby = cluster.replicas
        promoted.promote()
        standby.follow(promoted)
        cluster.primary.stop("immediate")
        promoted.execute("CREATE TABLE after_promotion (n int)")
        cluster.catch_up()
        assert standby.execute("SELECT to_regclass('after_promotion') IS NOT NULL") == "t"


def test_an_image_that_does_not_exist_is_an_error_with_the_reason() -> None:
    """No container is left."""
    cluster = DockerCluster(image="modern-di-replicas.invalid/none:1")
    with pytest.raises(DockerNotAvailableError, match="none:1"), cluster:
        pytest.fail("it started")
    with pytest.raises(ClusterStateError):
        cluster.primary  # noqa: B018  # the access is the point
