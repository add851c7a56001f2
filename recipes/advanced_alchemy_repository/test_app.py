import collections.abc
import typing

import fastapi
import httpx
import pytest
from modern_di import Scope
from modern_di_fastapi import fetch_di_container
from sqlalchemy import text

from modern_di_replicas import Intent, PrimaryEngine, ReplicationSettings, StaleWriteError
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.advanced_alchemy_repository.app import Book, BookRepository, main


EMMA = {"id": 1, "title": "Emma", "copies": 3}
REPLICAS = {"replica-1", "replica-2"}

Use = collections.abc.Callable[[BookRepository], collections.abc.Awaitable[object]]


@pytest.fixture
async def app(
    database: ReplicationSettings,
    replicated_cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    routing_log: RoutingLog,
) -> collections.abc.AsyncIterator[fastapi.FastAPI]:
    """Yield the started application with one book."""
    monkeypatch.setenv("PRIMARY_URL", database.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in database.servers))
    app = main()
    async with app.router.lifespan_context(app):
        async with fetch_di_container(app).resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Book.metadata.create_all, tables=[Book.metadata.tables["books"]])
        async with fetch_di_container(app).build_child_container(scope=Scope.REQUEST) as unit_of_work:
            await unit_of_work.resolve(BookRepository).add(Book(title="Emma", copies=3))
        replicated_cluster.catch_up()
        routing_log.clear()
        yield app


@pytest.fixture
async def client(app: fastapi.FastAPI) -> collections.abc.AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://library") as client:
        yield client


@pytest.mark.parametrize(("path", "answer"), [("/books/1", EMMA), ("/books", {"total": 1, "books": [EMMA]})])
async def test_a_get_reads_a_replica(
    client: httpx.AsyncClient, routing_log: RoutingLog, path: str, answer: object
) -> None:
    """The repository reads a page and its total with one statement."""
    assert (await client.get(path)).json() == answer
    assert routing_log.servers in (["replica-1"], ["replica-2"])


@pytest.mark.parametrize(
    ("request_line", "options", "answer"),
    [
        ("POST /books", {"json": {"title": "Persuasion"}}, {"id": 2, "title": "Persuasion", "copies": 1}),
        ("PUT /books/1", {"json": {"title": "Emma", "copies": 5}}, {**EMMA, "copies": 5}),
        ("PUT /books/7", {"json": {"title": "Lady Susan"}}, {"id": 7, "title": "Lady Susan", "copies": 1}),
        ("PATCH /books/1", {"params": {"copies": 9}}, {**EMMA, "copies": 9}),
        ("DELETE /books/1", {}, EMMA),
        ("GET /books/1/borrow", {}, {**EMMA, "copies": 2}),
    ],
)
async def test_a_write_is_on_the_primary_from_its_first_statement(
    client: httpx.AsyncClient,
    routing_log: RoutingLog,
    request_line: str,
    options: dict[str, typing.Any],
    answer: object,
) -> None:
    """The method or the marker declares a write, so the repository also loads the row there."""
    response = await client.request(*request_line.split(), **options)

    assert response.json() == answer
    assert set(routing_log.servers) == {"primary"}


async def test_an_update_does_not_undo_writes_that_a_replica_lacks(
    client: httpx.AsyncClient, app: fastapi.FastAPI
) -> None:
    """Without waiting for the replicas in between, each loan is based on the result of the previous one."""
    for _ in range(3):
        (await client.get("/books/1/borrow")).raise_for_status()

    async with fetch_di_container(app).resolve(PrimaryEngine).connect() as connection:
        assert await connection.scalar(text("SELECT copies FROM books")) == 0


# Each repository method in a unit of work that declares a read, such as a GET without a marker.


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda books: books.get(1), id="get"),
        pytest.param(lambda books: books.get_one(title="Emma"), id="get_one"),
        pytest.param(lambda books: books.get_many(), id="get_many"),
        pytest.param(lambda books: books.get_many_and_count(), id="get_many_and_count"),
        pytest.param(
            lambda books: books.get_many_and_count(count_with_window_function=False), id="get_many_and_count, basic"
        ),
        pytest.param(lambda books: books.count(), id="count"),
        pytest.param(lambda books: books.exists(title="Emma"), id="exists"),
    ],
)
async def test_a_method_that_reads_stays_on_its_replica(
    app: fastapi.FastAPI, use: Use, routing_log: RoutingLog
) -> None:
    """As the server itself reports."""
    await in_a_unit_of_work_that_reads(app, use)

    assert len(set(routing_log.servers)) == 1
    assert set(routing_log.servers) <= REPLICAS


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda books: books.add(Book(title="Persuasion")), id="add"),
        pytest.param(lambda books: books.add_many([Book(title="Persuasion"), Book(title="Sanditon")]), id="add_many"),
        pytest.param(lambda books: books.upsert(Book(id=7, title="Sanditon")), id="upsert of a new one"),
        pytest.param(lambda books: books.update(Book(id=1, copies=3)), id="update that changes nothing"),
        pytest.param(lambda books: books.update(Book(id=1, copies=5), with_for_update=True), id="update, locked"),
        pytest.param(lambda books: books.update_many([Book(id=1, title="Emma", copies=5)]), id="update_many"),
        pytest.param(lambda books: books.delete_many([1]), id="delete_many"),
        pytest.param(lambda books: books.delete_where(title="Emma"), id="delete_where"),
    ],
)
async def test_a_method_that_writes_other_rows_than_it_read_moves_to_the_primary(
    app: fastapi.FastAPI, use: Use, routing_log: RoutingLog
) -> None:
    """It may read from the replica first, but the written values come from the caller or from the primary."""
    await in_a_unit_of_work_that_reads(app, use)

    assert routing_log.servers[-1] == "primary"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda books: books.update(Book(id=1, copies=5)), id="update"),
        pytest.param(lambda books: books.upsert(Book(id=1, title="Emma", copies=5)), id="upsert"),
        pytest.param(
            lambda books: books.get_and_update(title="Emma", copies=5, match_fields="title"), id="get_and_update"
        ),
        pytest.param(lambda books: books.delete(1), id="delete"),
    ],
)
async def test_a_method_that_loads_from_the_replica_first_is_refused(
    app: fastapi.FastAPI, use: Use, routing_log: RoutingLog
) -> None:
    """The row may have changed on the primary since; the repository does not wrap the library's error."""
    with pytest.raises(StaleWriteError) as caught:
        await in_a_unit_of_work_that_reads(app, use)

    assert (caught.value.model, caught.value.key) == ("Book", (1,))
    assert "declare a write" in str(caught.value)
    assert set(routing_log.servers) <= REPLICAS


async def in_a_unit_of_work_that_reads(app: fastapi.FastAPI, use: Use) -> None:
    context = {Intent: Intent.read()}
    async with fetch_di_container(app).build_child_container(scope=Scope.REQUEST, context=context) as unit_of_work:
        await use(unit_of_work.resolve(BookRepository))


@pytest.mark.parametrize("request_line", ["GET /books/9", "GET /books/9/borrow", "DELETE /books/9"])
async def test_an_unknown_book_is_not_found(client: httpx.AsyncClient, request_line: str) -> None:
    """On a replica as on the primary, it is the repository's NotFoundError."""
    assert (await client.request(*request_line.split())).status_code == 404
