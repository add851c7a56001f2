"""The WSGI middleware, with everything that PEP 3333 allows an application."""

import collections.abc
import dataclasses
import sys
import time
import typing
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from modern_di_replicas import ConsistencyToken, ReplicationSettings, Tokens
from modern_di_replicas.consistency.client import client_of_request
from modern_di_replicas.observability.request import note_decision
from modern_di_replicas.routing.decision import Cause, on_primary
from modern_di_replicas.wsgi.middleware import STATE, TokenMiddleware


SETTINGS = ReplicationSettings(
    primary="postgresql+psycopg://db-1/shop", replicas=["postgresql+psycopg://db-2/shop"], token_secret="a secret"
)
TOKEN = ConsistencyToken(lsn=1, timeline=1, database="0" * 16, issued_at=1 << 34)
TYPE = ("content-type", "text/plain")


def write() -> None:
    client = client_of_request()
    assert client is not None
    client.written(TOKEN)


class Server:
    """Serves one request according to PEP 3333, and records the response."""

    def __init__(self, app: WSGIApplication, **settings: typing.Any) -> None:
        self.tokens = Tokens(dataclasses.replace(SETTINGS, **settings))
        self.app = TokenMiddleware(app, dataclasses.replace(SETTINGS, **settings), self.tokens)
        self.headers: list[tuple[str, str]] | None = None
        self.sent: list[bytes] = []

    def serve(self, **environment: str) -> typing.Self:
        environ: WSGIEnvironment = dict(environment)
        setup_testing_defaults(environ)

        def start(
            status: str,  # noqa: ARG001
            headers: list[tuple[str, str]],
            failure: typing.Any = None,  # as PEP 3333 requires
        ) -> collections.abc.Callable[[bytes], object]:
            if failure is not None and self.sent:
                raise failure[1].with_traceback(failure[2])
            self.headers = headers
            return self.sent.append

        parts = self.app(environ, typing.cast(StartResponse, start))
        try:
            for part in parts:
                assert self.headers is not None, "the response begins before its body"
                self.sent.append(part)
        finally:
            typing.cast(typing.Any, parts).close()
        return self

    @property
    def has_token(self) -> bool:
        return any(name == "set-cookie" for name, _ in self.headers or ())


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [TYPE])
    if environ.get("WRITES"):
        write()  # as an application that commits at the end of a request
    return [b"body"]


def generator(environ: WSGIEnvironment, start_response: StartResponse) -> collections.abc.Iterator[bytes]:
    write()
    start_response("200 OK", [TYPE])
    yield b"first"
    if environ.get("WRITES"):
        write()
    yield b"last"


def empty(environ: WSGIEnvironment, start_response: StartResponse) -> collections.abc.Iterator[bytes]:  # noqa: ARG001
    write()
    start_response("204 No Content", [])
    yield from ()


def by_hand(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
    write()
    start_response("200 OK", [TYPE])(b"by hand")
    return []


def corrected(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
    start_response("200 OK", [TYPE])
    write()
    try:
        int("no number")
    except ValueError:
        start_response("500 Internal Server Error", [TYPE], sys.exc_info())
    return [b"an error"]


def too_late(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
    start_response("200 OK", [TYPE])(b"by hand")
    try:
        int("no number")
    except ValueError:
        start_response("500 Internal Server Error", [TYPE], sys.exc_info())
    return []


@pytest.mark.parametrize("app", [plain, generator, empty, by_hand, corrected])
def test_a_response_carries_the_token_however_it_starts(app: WSGIApplication) -> None:
    """At once, with its first part, without any part, by `write()`, or restarted after an error."""
    server = Server(app).serve(WRITES="" if app is generator else "yes")
    assert server.has_token
    assert server.tokens.too_late == 0


def test_a_write_after_the_response_has_begun_is_counted() -> None:
    """Its client can no longer be informed."""
    assert Server(generator).serve(WRITES="yes").tokens.too_late == 1


def test_a_request_that_wrote_nothing_gets_no_token_over_wsgi() -> None:
    """Nor a header for caches."""
    assert Server(plain).serve().headers == [TYPE]


def test_without_a_monitor_an_unknown_position_gives_no_token() -> None:
    """The token could not be created; the response is complete all the same."""

    def in_doubt(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
        client = client_of_request()
        assert client is not None
        client.begin_write()  # whose commit was never answered
        start_response("200 OK", [TYPE])
        return [b"body"]

    assert Server(in_doubt).serve().headers == [TYPE]


def test_a_body_that_is_closed_before_its_first_part_has_no_response() -> None:
    """For example after the client has disconnected: no token is late."""
    environ: WSGIEnvironment = {"WRITES": "yes"}
    setup_testing_defaults(environ)
    server = Server(generator)
    body = server.app(environ, lambda *_: server.sent.append)
    typing.cast(typing.Any, body).close()
    assert server.tokens.too_late == 0


def test_an_error_after_the_response_has_begun_is_the_servers() -> None:
    """According to PEP 3333, the server knows whether something was sent."""
    with pytest.raises(ValueError, match="no number"):
        Server(too_late).serve()


def test_errors_of_the_application_are_passed_on() -> None:
    """Before any response."""

    def fails(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
        raise LookupError

    with pytest.raises(LookupError):
        Server(fails).serve()


def test_a_token_is_read_from_a_cookie_or_a_header() -> None:
    """It belongs to the client of this request, and not to later requests."""
    seen: list[ConsistencyToken | None] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:  # noqa: ARG001
        client = client_of_request()
        seen.append(None if client is None else client.token)
        start_response("200 OK", [TYPE])
        return []

    text = Tokens(SETTINGS).encode(TOKEN)
    Server(app).serve(HTTP_COOKIE=f"a=b; consistency-token={text}")
    Server(app, token_carrier="header").serve(HTTP_CONSISTENCY_TOKEN=text)
    Server(app).serve(HTTP_COOKIE="a=b")
    assert seen == [None, None, None], "it is from the future"
    current = Tokens(SETTINGS).encode(dataclasses.replace(TOKEN, issued_at=int(time.time())))
    Server(app).serve(HTTP_COOKIE=f"a=b; consistency-token={current}")
    assert [token is not None for token in seen] == [False, False, False, True]
    assert client_of_request() is None


@pytest.mark.parametrize("settings", [{"token_carrier": None}, {"replicas": ()}])
def test_without_tokens_only_the_decision_is_reported(settings: dict[str, typing.Any]) -> None:
    """In the environment, and in a header if the settings say so."""
    kept: list[object] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        note_decision(on_primary(Cause.WRITE, ""))
        write()
        kept.append(environ[STATE]["decision"])
        start_response("200 OK", [TYPE])
        return []

    server = Server(app, server_timing=True, **settings).serve()
    assert kept == [on_primary(Cause.WRITE, "")]
    assert server.headers == [TYPE, ("server-timing", 'db;desc="primary (write)"')]
    assert server.tokens.too_late == 0


def test_a_signed_token_needs_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It requires no question; an unsigned one is compared with the primary's position."""
    text = Tokens(SETTINGS).encode(dataclasses.replace(TOKEN, issued_at=int(time.time())))
    assert not Tokens(SETTINGS).asks_servers
    monkeypatch.setattr("modern_di_replicas.wsgi.middleware.background", None)
    server = Server(plain).serve(HTTP_COOKIE=f"consistency-token={text}")
    assert server.sent == [b"body"]
    assert not server.tokens.rejected


def test_it_keeps_to_the_protocol() -> None:
    """The validator of the standard library is on both sides."""
    server = Server(validator(plain))
    server.app = validator(server.app)  # type: ignore[assignment]  # it takes and gives an application
    server.serve(QUERY_STRING="", WRITES="yes")
    assert server.sent == [b"body"]
