"""The position of a token in the headers of a request and of a response."""

import dataclasses

import pytest

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.tokens.carrier import Carrier


SETTINGS = ReplicationSettings(primary="postgresql+asyncpg://db-1/shop")
NO_STORE = (b"cache-control", b"no-store")


def carrier(**options: object) -> Carrier:
    return Carrier(dataclasses.replace(SETTINGS, **options))  # type: ignore[arg-type]  # each is one of them


def test_every_cookie_of_the_name_is_read() -> None:
    """A browser sends a cookie of the host and one of a parent domain together."""
    headers = [(b"cookie", b"a=b; consistency-token=first"), (b"cookie", b"consistency-token=second; c=d")]
    assert carrier().read(headers) == ["first", "second"]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], [NO_STORE]),
        ([(b"content-type", b"text/plain")], [NO_STORE]),
        ([(b"Cache-Control", b"private, max-age=5")], []),
    ],
)
@pytest.mark.parametrize("kind", ["cookie", "header"])
def test_a_response_with_a_token_is_not_cached_unless_the_application_says_so(
    kind: str, given: list[tuple[bytes, bytes]], added: list[tuple[bytes, bytes]]
) -> None:
    """A cached response would pass the token of one client to others."""
    *before, token = carrier(token_carrier=kind).write(given, "x", scheme="http")[: len(given) + 1]
    assert before == given
    assert token[0] == (b"set-cookie" if kind == "cookie" else b"consistency-token")
    assert carrier(token_carrier=kind).write(given, "x", scheme="http")[len(given) + 1 :] == added


@pytest.mark.parametrize(
    ("name", "scheme", "is_secure"),
    [
        ("consistency-token", "http", False),
        ("consistency-token", "https", True),
        ("__Host-consistency-token", "http", True),
        ("__secure-consistency-token", "http", True),
    ],
)
def test_a_cookie_is_secure_where_it_may_or_must_be(name: str, scheme: str, is_secure: bool) -> None:
    """Behind a proxy that terminates TLS a server sees http; browsers refuse a `__Host-` cookie without `Secure`."""
    [(_, cookie), _] = carrier(token_name=name).write([], "x", scheme=scheme)
    assert cookie.startswith(name.encode() + b"=x; ")
    assert cookie.endswith(b"; Secure") is is_secure
