"""A Flask application with real replication, through the public contract."""

import asyncio
import atexit
import collections.abc
import contextlib
import functools
import gc
import threading
import typing

import click
import flask
import flask.views
import pytest
from modern_di import Container, Group
from modern_di_flask import FromDI, inject
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from modern_di_replicas import (
    STRONG,
    ConfigurationError,
    ReplicationSettings,
    UnknownGroupError,
    read_intent,
    sync,
    write_intent,
)
from modern_di_replicas.flask import Dependencies, setup_replicas, with_replica
from modern_di_replicas.sync import PrimaryEngine, ReplicaEngine, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.sync.conftest import settings_of
from tests.waiting import until


NAME = "consistency-token"
STANDBY = text("SELECT pg_is_in_recovery()")
Injected = typing.Annotated[Session, FromDI(Session)]


def where(session: Session) -> dict[str, typing.Any]:
    routed = typing.cast(RoutedSession, session)
    count = session.scalar(text("SELECT count(*) FROM visits"))
    return {"replica": session.scalar(STANDBY), "count": count, "server": routed.decision.server}


def visit(session: Session) -> None:
    session.execute(text("INSERT INTO visits DEFAULT VALUES"))


class ByClass(flask.views.MethodView):
    @inject
    def get(self, session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @read_intent
    @inject
    def post(self, session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @inject
    def put(self, session: Injected) -> dict[str, typing.Any]:
        return where(session)


def create_app(container: Container) -> flask.Flask:
    app = flask.Flask(__name__)
    setup_replicas(app, container)
    add_reads(app)
    add_writes(app)
    add_streams(app)
    add_commands(app, container)
    app.add_url_rule("/class", view_func=ByClass.as_view("by_class"))
    return app


def add_reads(app: flask.Flask) -> None:
    blueprint = flask.Blueprint("shop", __name__, url_prefix="/shop")

    @app.get("/read")
    @inject
    def read(session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @app.post("/search")
    @with_replica
    @inject
    def search(session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @app.get("/strong")
    @with_replica(consistency=STRONG)
    @inject
    def strong(session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @app.get("/forced")
    @write_intent
    @inject
    def forced(session: Injected) -> dict[str, typing.Any]:
        return where(session)

    @app.get("/asynchronous")
    @inject
    async def asynchronous(session: Injected) -> dict[str, typing.Any]:
        await asyncio.sleep(0)
        return where(session)

    @blueprint.get("/read")
    @inject
    def of_blueprint(session: Injected) -> dict[str, typing.Any]:
        return where(session)

    app.register_blueprint(blueprint)


def add_writes(app: flask.Flask) -> None:
    @app.post("/write")
    @inject
    def write(session: Injected) -> dict[str, typing.Any]:
        visit(session)
        session.commit()
        return {}

    @app.get("/undeclared")
    @inject
    def undeclared(session: Injected) -> dict[str, typing.Any]:
        visit(session)
        session.commit()
        return where(session)

    @app.post("/fails")
    @inject
    def fails(session: Injected) -> dict[str, typing.Any]:
        visit(session)
        session.commit()
        raise RuntimeError

    @app.post("/stream")
    @inject
    def stream(session: Injected) -> flask.Response:
        visit(session)
        session.commit()
        return flask.Response(flask.stream_with_context(str(session.scalar(STANDBY)) for _ in range(2)))

    @app.post("/late")
    @inject
    def late(session: Injected) -> flask.Response:
        def parts() -> collections.abc.Iterator[str]:
            yield "first"
            visit(session)
            session.commit()
            yield "last"

        return flask.Response(flask.stream_with_context(parts()))

    @app.post("/at-teardown")
    @inject
    def at_teardown(session: Injected) -> dict[str, typing.Any]:
        visit(session)
        flask.g.commits = session
        return {}

    @app.teardown_request
    def commit(_: BaseException | None) -> None:
        if (session := flask.g.pop("commits", None)) is not None:
            session.commit()


def add_streams(app: flask.Flask) -> None:
    @app.get("/streamed-helper")
    @inject
    def streamed_helper(session: Injected) -> flask.Response:
        @inject
        def helper(again: Injected) -> str:
            return f"{again is session} {again.scalar(STANDBY)} "

        return flask.Response(flask.stream_with_context(helper() for _ in range(2)))


def add_commands(app: flask.Flask, container: Container) -> None:
    @app.cli.command("count")
    @inject
    def command(session: Injected) -> None:
        click.echo(f"{where(session)['replica']} {flask.has_request_context()}")

    @app.cli.command("marked")
    @with_replica
    @inject
    def marked(session: Injected) -> None:
        click.echo(str(where(session)["replica"]))

    @app.cli.command("report")
    @with_replica(container)
    def report(session: Injected) -> None:
        click.echo(str(where(session)["replica"]))


@pytest.fixture(scope="module")
def cluster(replicated_cluster: LocalCluster) -> collections.abc.Iterator[LocalCluster]:
    replicated_cluster.primary.execute("CREATE TABLE visits (n serial PRIMARY KEY)")
    replicated_cluster.catch_up()
    yield replicated_cluster
    replicated_cluster.primary.execute("DROP TABLE visits")
    replicated_cluster.catch_up()


@contextlib.contextmanager
def running(cluster: LocalCluster, **options: typing.Any) -> collections.abc.Iterator[flask.Flask]:
    settings = settings_of(cluster, **options)
    with Container(groups=[Dependencies], context={ReplicationSettings: settings}) as container:
        app = create_app(container)
        yield app
        for engine in (container.resolve(PrimaryEngine), *container.resolve(ReplicaEngine).engines.values()):
            assert typing.cast(typing.Any, engine.pool).checkedout() == 0


@pytest.fixture(scope="module")
def app(cluster: LocalCluster) -> collections.abc.Iterator[flask.Flask]:
    with running(cluster) as app:
        yield app


@contextlib.contextmanager
def paused(cluster: LocalCluster) -> collections.abc.Iterator[None]:
    for replica in cluster.replicas:
        replica.pause_replay()
    try:
        yield
    finally:
        for replica in cluster.replicas:
            replica.resume_replay()
        cluster.catch_up()


def read(client: typing.Any, path: str = "/read") -> dict[str, typing.Any]:  # Flask's test client
    response = client.get(path)
    assert response.status_code == 200, response.text
    answer: dict[str, typing.Any] = response.json
    return answer


@pytest.mark.parametrize(
    ("method", "path", "replica"),
    [
        ("get", "/read", True),
        ("get", "/shop/read", True),
        ("post", "/search", True),
        ("get", "/strong", False),
        ("get", "/forced", False),
        ("get", "/class", True),
        ("post", "/class", True),
        ("put", "/class", False),
        ("get", "/asynchronous", True),
    ],
)
def test_the_method_and_the_marker_choose_the_server(app: flask.Flask, method: str, path: str, replica: bool) -> None:
    """A view's marker, or that of a class's method, takes precedence over the HTTP method."""
    response = getattr(app.test_client(), method)(path)
    assert response.json["replica"] is replica


def test_a_head_request_is_served_as_a_get(app: flask.Flask) -> None:
    """Also for a class-based view."""
    for path in ("/read", "/class"):
        assert app.test_client().head(path).status_code == 200


@pytest.mark.parametrize("path", ["/write", "/undeclared", "/fails", "/stream", "/at-teardown"])
def test_a_client_sees_its_writes(app: flask.Flask, cluster: LocalCluster, path: str) -> None:
    """INVARIANT: while no replica has the write, the primary serves its client; replicas serve other clients."""
    writer, other = app.test_client(), app.test_client()
    before = read(other)["count"]
    app.config["PROPAGATE_EXCEPTIONS"] = False
    with paused(cluster):
        response = writer.get(path) if path == "/undeclared" else writer.post(path)
        assert response.headers["Set-Cookie"].startswith(f"{NAME}=1.")
        assert response.headers["Cache-Control"] == "no-store"
        response.close()  # as a server does; a streamed response holds its connection until then
        own, of_others = read(writer), read(other)
        assert (own["count"], own["replica"]) == (before + 1, False)
        assert (of_others["count"], of_others["replica"]) == (before, True)
    until_sync(lambda: read(writer)["replica"])
    assert read(writer)["count"] == before + 1


def until_sync(condition: collections.abc.Callable[[], object]) -> None:
    asyncio.run(until(lambda: bool(condition())))


def test_the_token_may_be_a_header(cluster: LocalCluster) -> None:
    """For clients that are not browsers."""
    with running(cluster, token_carrier="header", token_secret="a secret") as app, paused(cluster):
        client = app.test_client()
        token = client.post("/write").headers[NAME]
        assert read(client)["replica"]
        assert client.get("/read", headers={NAME: token}).get_json()["replica"] is False
        forged = client.get("/read", headers={NAME: f"{token}x"})
        assert forged.get_json()["replica"] is True, "it is ignored"


def test_without_a_carrier_there_are_no_tokens(cluster: LocalCluster) -> None:
    """No carrier is configured."""
    with running(cluster, token_carrier=None, server_timing=True) as app:
        response = app.test_client().post("/write")
        assert "Set-Cookie" not in response.headers
        assert response.headers["Server-Timing"] == 'db;desc="primary (write)"'


def test_a_write_after_the_response_has_begun_is_counted(app: flask.Flask) -> None:
    """The client can no longer be informed."""
    client = app.test_client()
    response = client.post("/late")
    assert response.get_data() == b"firstlast"
    response.close()
    assert "Set-Cookie" not in response.headers
    container = app.extensions["modern_di_container"]
    assert container.resolve(Dependencies.tokens.bound_type).too_late == 1


def test_a_command_is_a_unit_of_work(app: flask.Flask) -> None:
    """It writes, unless it is declared as a read."""
    runner = app.test_cli_runner()
    assert runner.invoke(args=["count"]).output == "False False\n"
    assert runner.invoke(args=["report"]).output == "True\n"


def test_dependencies_in_a_stream_are_those_of_the_request(app: flask.Flask) -> None:
    """Flask pushes the application context again for it, without a new unit of work."""
    with app.test_client().get("/streamed-helper") as response:
        assert response.get_data(as_text=True) == "True True True True "


def test_a_command_may_be_marked(app: flask.Flask) -> None:
    """Like a view."""
    result = app.test_cli_runner().invoke(args=["marked"])
    assert result.output == "True\n"


def test_requests_in_a_pushed_application_context_have_units_of_work_of_their_own(app: flask.Flask) -> None:
    """Flask shares the context of a test with them; each returns its connection, and the test keeps its session."""
    primary = app.extensions["modern_di_container"].resolve(PrimaryEngine)

    @inject
    def of_test(session: Injected) -> Session:
        return session

    with app.app_context():
        before = of_test()
        assert app.test_client().get("/forced").status_code == 200
        assert typing.cast(typing.Any, primary.pool).checkedout() == 0
        with app.test_client().post("/late", buffered=False) as response:
            assert next(iter(response.response)) == b"first"
            assert of_test() is before
            assert response.get_data().endswith(b"last")
        assert typing.cast(typing.Any, primary.pool).checkedout() == 0


def test_an_application_context_has_a_session(app: flask.Flask) -> None:
    """`flask shell` runs in an application context."""

    @inject
    def in_shell(session: Injected) -> object:
        return session.scalar(STANDBY)

    with app.app_context():
        assert in_shell() is False


@pytest.mark.parametrize(("method", "standby"), [("GET", True), ("POST", False)])
def test_an_application_context_inside_a_request_is_of_the_request(
    app: flask.Flask, method: str, standby: bool
) -> None:
    """A helper that pushes a context reads where the request does."""

    @inject
    def in_helper(session: Injected) -> object:
        return session.scalar(STANDBY)

    with app.test_request_context(method=method), app.app_context():
        assert in_helper() is standby


def test_the_container_is_closed_when_the_process_exits(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the application has closed it, or has been collected."""
    at_exit: list[collections.abc.Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", lambda *call: at_exit.append(functools.partial(*call)))
    container = Container(groups=[Dependencies], context={ReplicationSettings: settings_of(cluster)})
    container.open()
    app = create_app(container)
    (close,) = at_exit
    close()
    assert container.closed
    close()
    del app
    gc.collect()
    close()


def test_the_monitor_starts_with_the_first_request_and_ends_with_the_container(cluster: LocalCluster) -> None:
    """Loading the application opens no connection."""
    container = Container(groups=[Dependencies], context={ReplicationSettings: settings_of(cluster)})
    app = create_app(container)
    topology = container.resolve(ReplicaEngine).topology
    assert topology.watcher is None
    results: list[dict[str, typing.Any]] = []
    threads = [threading.Thread(target=lambda: results.append(read(app.test_client()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5
    assert topology.watcher is not None
    container.close_sync()
    assert topology.watcher is None


def test_a_container_without_our_providers_is_refused(cluster: LocalCluster) -> None:
    """With the framework-neutral providers everything would use the primary."""
    groups: list[list[type[Group]]] = [[], [sync.Dependencies]]
    for given in groups:
        container = Container(groups=given, context={ReplicationSettings: settings_of(cluster)})
        with pytest.raises(ConfigurationError, match=r"modern_di_replicas\.flask\.Dependencies"):
            setup_replicas(flask.Flask(__name__), container)


def test_a_marker_with_an_unknown_group_is_refused_at_the_first_request(cluster: LocalCluster) -> None:
    """Views are added after the set-up, so it cannot be checked earlier."""
    with Container(groups=[Dependencies], context={ReplicationSettings: settings_of(cluster)}) as container:
        app = flask.Flask(__name__)
        setup_replicas(app, container)
        app.get("/")(read_intent(group="nowhere")(lambda: ""))
        with pytest.raises(UnknownGroupError):
            app.test_client().get("/")


def test_without_replicas_nothing_is_watched(cluster: LocalCluster) -> None:
    """As in development with one database."""
    with running(cluster, replicas=[]) as app:
        assert not read(app.test_client())["replica"]
        assert "Set-Cookie" not in app.test_client().post("/write").headers
        assert app.extensions["modern_di_container"].resolve(ReplicaEngine).topology.watcher is None


def test_a_test_may_put_a_connection_in_the_place_of_the_engines(cluster: LocalCluster) -> None:
    """Everything in a test is in one transaction that is rolled back."""
    with Container(groups=[Dependencies], context={ReplicationSettings: settings_of(cluster)}) as container:
        app = create_app(container)
        engine = container.resolve(PrimaryEngine)
        with engine.connect() as connection:
            transaction = connection.begin()
            container.override(Dependencies.primary, connection)
            container.override(Dependencies.replica, connection)
            client = app.test_client()
            before = read(client)["count"]
            client.post("/write")
            assert read(client)["count"] == before + 1
            container.reset_override()
            transaction.rollback()


def test_a_listener_sees_statements_of_requests(app: flask.Flask) -> None:
    """On the engine of all replicas, as on any engine of SQLAlchemy."""
    engine = app.extensions["modern_di_container"].resolve(ReplicaEngine)
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:  # noqa: ARG001  # the event's
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        read(app.test_client())
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert "SELECT pg_is_in_recovery()" in seen
