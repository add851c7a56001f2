"""The users of the demo on Flask: the same servers, settings and markers, in synchronous code."""

import collections.abc
import dataclasses
from typing import Annotated

import flask
from modern_di import Container
from modern_di_flask import FromDI, inject
from sqlalchemy import make_url, select
from sqlalchemy.orm import Session

from modern_di_replicas import Intent, ReplicationSettings, current_token
from modern_di_replicas.demo.application import User
from modern_di_replicas.demo.report import SERVER_QUERY, Report
from modern_di_replicas.demo.scenario import Exchange, RequestView
from modern_di_replicas.flask import Dependencies, setup_replicas, with_replica
from modern_di_replicas.sync import RoutedSession


Injected = Annotated[Session, FromDI(Session)]
users = flask.Blueprint("users", __name__)


@users.get("/users")
@inject
def list_users(session: Injected) -> list[str]:
    return list(session.scalars(select(User.name).order_by(User.name)))


@users.post("/users")
@inject
def create_user(session: Injected) -> tuple[dict[str, int], int]:
    user = User(**flask.request.get_json())
    session.add(user)
    session.commit()
    return {"id": user.id}, 201


@users.post("/search")
@with_replica
@inject
def search(session: Injected) -> list[str]:
    words = flask.request.get_json()["words"]
    return list(session.scalars(select(User.name).where(User.name.icontains(words, autoescape=True))))


@users.before_request
def remember_token() -> None:
    flask.g.has_token = current_token() is not None


@users.after_request
@inject
def add_report(
    response: flask.Response,
    session: Annotated[RoutedSession, FromDI(RoutedSession)],
    intent: Annotated[Intent, FromDI(Intent)],
) -> flask.Response:
    """Ask the server for its identity, in the session of the view."""
    port, in_recovery = session.execute(SERVER_QUERY).one()
    report = Report(
        port=port,
        in_recovery=in_recovery,
        server=session.decision.server,
        intent=intent.access.value,
        group="",
        marker="" if intent.reason == flask.request.method else intent.reason,
        level="",
        has_token=flask.g.has_token,
        reason=session.decision.reason,
    )
    response.headers.update(report.as_headers())
    return response


def create_flask_application(container: Container) -> flask.Flask:
    app = flask.Flask(__name__)
    app.register_blueprint(users)
    setup_replicas(app, container)
    return app


def on_psycopg(settings: ReplicationSettings) -> ReplicationSettings:
    """Return the settings of the same servers for synchronous code."""

    def url(given: str) -> str:
        return make_url(given).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    return dataclasses.replace(
        settings,
        primary=url(settings.declared_primary.url),
        replicas=[dataclasses.replace(replica, url=url(replica.url)) for replica in settings.servers],
    )


def visit_flask(settings: ReplicationSettings, view: RequestView) -> list[Exchange]:
    """Send some requests to the application, one after the other, and show each."""
    exchanges: list[Exchange] = []
    context: dict[type, object] = {ReplicationSettings: on_psycopg(settings)}
    with Container(groups=[Dependencies], context=context) as container:
        client = create_flask_application(container).test_client()
        for method, path, body in _requests():
            response = client.open(path, method=method, json=body)
            exchange = Exchange(
                method=method,
                path=path,
                status=response.status_code,
                report=Report.from_headers(dict(response.headers)),
            )
            exchanges.append(exchange)
            view.show_exchange(exchange)
    return exchanges


def _requests() -> collections.abc.Iterator[tuple[str, str, object]]:
    yield "GET", "/users", None
    yield "POST", "/users", {"name": "Annie Easley", "email": "annie@example.com"}
    yield "GET", "/users", None
    yield "POST", "/search", {"words": "annie"}
