import collections.abc
import contextlib
import logging

import httpx
import pytest
from modern_di_fastapi import fetch_di_container
from sqlalchemy import insert

from modern_di_replicas import PrimaryEngine, ReplicationSettings, StaleWriteError, WriteOnReplicaError
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.write_in_get.app import Article, Base, main


Serve = collections.abc.Callable[[str], contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    routing_log: RoutingLog,
    monkeypatch: pytest.MonkeyPatch,
) -> Serve:
    """Yield the application with a value of ON_WRITE, and one article that has 7 views."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))

    @contextlib.asynccontextmanager
    async def serve(on_write: str) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
        monkeypatch.setenv("ON_WRITE", on_write)
        app = main()
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://magazine") as client,
        ):
            async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(insert(Article).values(id=1, title="Standby", views=7))
            replicated_cluster.catch_up()
            routing_log.clear()
            yield client

    return serve


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("on_write", ["escalate", "raise"])
@pytest.mark.parametrize("path", ["/articles/1", "/articles/1/object"])
async def test_with_the_marker_it_just_works(
    serve: Serve, path: str, on_write: str, routing_log: RoutingLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything runs on the primary, in both modes, without a warning."""
    async with serve(on_write) as client:
        answers = [(await client.get(path)).json() for _ in range(2)]

    assert answers == [{"title": "Standby", "views": 8}, {"title": "Standby", "views": 9}]
    assert set(routing_log.servers) == {"primary"}
    assert warnings(caplog) == []


async def test_without_it_a_write_moves_to_the_primary_and_the_log_says_so_once(
    serve: Serve, routing_log: RoutingLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The write is foreseen, so the replica never gets it. The second request causes no further warning."""
    async with serve("escalate") as client:
        answers = [(await client.get("/unmarked/1")).json() for _ in range(2)]

    assert [answer["views"] for answer in answers] == [8, 9]
    assert set(routing_log.servers) == {"primary"}
    [warning] = warnings(caplog)
    assert all(fact in warning for fact in ("app.read_unmarked ", "UPDATE", "@write_intent"))


async def test_where_writes_raise_the_error_names_the_handler_and_the_statement(
    serve: Serve, routing_log: RoutingLog
) -> None:
    """A test thus finds the handler without its marker; nothing has been sent to any server."""
    async with serve("raise") as client:
        with pytest.raises(WriteOnReplicaError) as caught:
            await client.get("/unmarked/1")

    assert caught.value.endpoint.endswith("app.read_unmarked")
    assert caught.value.statement == "UPDATE"
    assert routing_log.servers == []


@pytest.mark.parametrize(("on_write", "error"), [("escalate", StaleWriteError), ("raise", WriteOnReplicaError)])
async def test_without_it_an_object_that_a_replica_gave_is_not_written(
    serve: Serve, on_write: str, error: type[Exception], routing_log: RoutingLog
) -> None:
    """Not even after an escalation: the replica may have been behind, and other views would be lost."""
    async with serve(on_write) as client:
        with pytest.raises(error):
            await client.get("/unmarked/1/object")

        assert routing_log.servers in (["replica-1"], ["replica-2"])
        assert (await client.get("/articles/1")).json()["views"] == 8


@pytest.mark.parametrize("path", ["/articles/9", "/articles/9/object", "/unmarked/9", "/unmarked/9/object"])
async def test_an_unknown_article_is_not_found(serve: Serve, path: str) -> None:
    """On the primary as on a replica."""
    async with serve("escalate") as client:
        assert (await client.get(path)).status_code == 404
