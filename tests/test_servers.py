import dataclasses
import typing

import pytest

from modern_di_replicas import ConfigurationError, Replica, ReplicationSettings


PRIMARY = "postgresql+asyncpg://app:s3cret@db-1/shop"
REPLICA = "postgresql+asyncpg://app:s3cret@db-2:5433/shop"


def test_urls_become_replicas_named_by_their_address() -> None:
    """A URL suffices: name, weight and group have defaults."""
    settings = ReplicationSettings(primary=PRIMARY, replicas=[REPLICA, "postgresql+asyncpg://app@db-3/shop"])

    assert [replica.label for replica in settings.servers] == ["db-2:5433", "db-3:5432"]
    assert {replica.weight for replica in settings.servers} == {1}
    assert settings.servers[0].groups == {"default"}


def test_a_url_with_several_hosts_is_named_by_all_of_them() -> None:
    """Asyncpg accepts several hosts in the query; the name contains them."""
    url = "postgresql+asyncpg://app:s3cret@/shop?host=db-2:5432&host=db-3:5432"

    assert ReplicationSettings(primary=PRIMARY, replicas=[url]).servers[0].label == "db-2:5432,db-3:5432"
    one_host = "postgresql+asyncpg://app:s3cret@/shop?host=db-2:5432"
    assert ReplicationSettings(primary=PRIMARY, replicas=[one_host]).servers[0].label == "db-2:5432"


def test_servers_in_one_socket_directory_are_distinguished_by_their_ports() -> None:
    """The directory is the host, and the port is part of the socket's file name."""
    urls = [f"postgresql+asyncpg://app@/shop?host=/run/postgresql&port={port}" for port in (5432, 5433)]
    shared = "postgresql+asyncpg://app@:5434/shop?host=/run/postgresql"
    names = [one.label for one in ReplicationSettings(primary=PRIMARY, replicas=[*urls, shared]).servers]
    assert names == [f"/run/postgresql:{port}" for port in (5432, 5433, 5434)]


def test_a_database_that_is_not_named_is_the_one_of_the_user() -> None:
    """As in libpq: without a database in the URL, its name is that of the user."""
    ReplicationSettings(primary="postgresql+asyncpg://shop@db-1", replicas=["postgresql+asyncpg://shop@db-2/shop"])


def test_a_password_in_the_query_of_a_url_is_masked_too() -> None:
    """Asyncpg also accepts the password as a query parameter."""
    with pytest.raises(ConfigurationError) as caught:
        ReplicationSettings(primary="postgresql://db-1/shop?password=s3cret&user=app")

    assert "s3cret" not in str(caught.value)
    assert "db-1" in str(caught.value)


def test_a_repr_shows_the_hosts_and_nothing_secret() -> None:
    """Settings appear in logs and tracebacks."""
    settings = ReplicationSettings(
        primary=PRIMARY,
        replicas=[REPLICA, Replica(REPLICA, name="other", weight=2, connect_args={"password": "s3cret"})],
        token_secret="s3cret",  # of this test
        shadow=True,
    )

    assert repr(settings) == ("ReplicationSettings(primary='db-1:5432', replicas=['db-2:5433', 'other'], shadow=True)")
    assert repr(settings.servers) == "(Replica('db-2:5433'), Replica('other', weight=2))"
    assert repr(settings.declared_primary) == "Primary('db-1:5432')"


@pytest.mark.parametrize("value", [None, 5, "no URL", "postgresql+asyncpg://app:s3cret@db:x/shop"])
def test_a_repr_accepts_invalid_urls(value: typing.Any) -> None:
    """A debugger shows settings and servers that were not checked yet."""
    unchecked = object.__new__(ReplicationSettings)
    for field in dataclasses.fields(ReplicationSettings):
        object.__setattr__(unchecked, field.name, field.default)
    object.__setattr__(unchecked, "primary", value)
    object.__setattr__(unchecked, "replicas", value)
    assert "primary='<no URL>', replicas=[]" in repr(unchecked)
    assert repr(Replica(value)) == "Replica('<no URL>')"
