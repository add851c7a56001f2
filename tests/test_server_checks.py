"""Checks of the declared servers."""

import typing

import pytest
from sqlalchemy import make_url

from modern_di_replicas import ConfigurationError, Primary, Replica
from modern_di_replicas.drivers.known import driver_of
from modern_di_replicas.server_checks import check_connect_args, check_primary, check_replicas, check_url


URL = "postgresql+asyncpg://app:s3cret@{}/shop"
PRIMARY = Primary(URL.format("db-1"))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (None, "is an environment variable unset"),
        ("app:s3cret@db-1", "use a URL of the form"),
        ("postgresql+psycopg2://app:s3cret@db-1/shop", "write postgresql+psycopg://app:***@db-1/shop"),
        ("postgres://app:s3cret@db-1/shop", "write postgresql+asyncpg://app:***@db-1/shop"),
        ("postgresql+asyncpg://app:s3@cret@db-1/shop", "percent-encode"),
        (f"{URL.format('db-1')}?sslmode=require", "ssl="),
    ],
)
def test_an_invalid_url_is_refused_with_a_valid_form(value: object, remedy: str) -> None:
    """INVARIANT: without the password, even if it is where a parser does not expect it."""
    with pytest.raises(ConfigurationError) as caught:
        check_url("primary", value)
    assert remedy in caught.value.remedy
    assert caught.value.__context__ is None
    assert "cret" not in str(caught.value)


def test_the_parsed_url_of_the_primary_is_returned() -> None:
    """The checked value is the one that is used."""
    assert check_primary(PRIMARY) == make_url(PRIMARY.url)


@pytest.mark.parametrize(
    ("server", "field"),
    [
        (Primary(URL.format("db-1"), typing.cast(str, 5)), "primary.name"),
        (Primary(URL.format("db-1"), pooled=typing.cast(bool, "yes")), "primary.pooled"),
        (Primary(URL.format("db-1"), probe_url="postgresql+psycopg://db-1/shop"), "primary.probe_url"),
        (Primary(URL.format("db-1"), connect_args={"timeout": 1}), "primary.connect_args['timeout']"),
    ],
)
def test_the_declaration_of_a_server_is_checked(server: Primary, field: str) -> None:
    """Before any connection is opened."""
    with pytest.raises(ConfigurationError) as caught:
        check_primary(server)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("replicas", "pooled", "field"),
    [
        (URL.format("db-2"), False, "replicas"),
        ([URL.format("db-2"), URL.format("db-2")], False, "replicas[1].name"),
        ([Replica(URL.format("db-2"), "a"), Replica(URL.format("db-3"), "a")], False, "replicas[1].name"),
        (["postgresql+psycopg://db-2/shop"], False, "replicas[0].url"),
        (["postgresql+asyncpg://db-2/other"], False, "replicas[0].url"),
        (["postgresql+asyncpg://db-2/other"], True, None),
        ([Replica("postgresql+asyncpg://db-2/other", pooled=True)], False, None),
        ([Replica("postgresql+asyncpg://db-2/other", pooled=False)], True, "replicas[0].url"),
        ([Replica(URL.format("db-2"), weight=0)], False, "replicas[0].weight"),
        ([Replica(URL.format("db-2"), groups={""})], False, "replicas[0].groups"),
        ([Replica(URL.format("db-2"), promotable=typing.cast(bool, 1))], False, "replicas[0].promotable"),
        ([], False, None),
        ((URL.format("db-2"), Replica(URL.format("db-3"))), False, None),
    ],
)
def test_replicas_are_checked_together(replicas: object, pooled: bool, field: str | None) -> None:
    """Names, driver and database have to agree; behind a pooler, a database may have another name."""
    if field is None:
        check_replicas(replicas, primary=PRIMARY, pooled=pooled)
        return
    with pytest.raises(ConfigurationError) as caught:
        check_replicas(replicas, primary=PRIMARY, pooled=pooled)
    assert caught.value.field == field


def test_an_argument_of_the_driver_is_named_and_its_value_is_not_shown() -> None:
    """It may be a password."""
    driver = driver_of(make_url(PRIMARY.url))
    check_connect_args("connect_args", {"password": lambda: "s3cret"}, driver)
    for value in ({"tiemout": "s3cret"}, [("password", "s3cret")]):
        with pytest.raises(ConfigurationError) as caught:
            check_connect_args("connect_args", value, driver)
        assert "s3cret" not in str(caught.value)
