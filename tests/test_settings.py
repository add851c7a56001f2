import dataclasses
import pickle
import sys
import typing

import pydantic
import pytest

from modern_di_replicas import ConfigurationError, Primary, Replica, ReplicationSettings
from modern_di_replicas.drivers import known


PRIMARY = "postgresql+asyncpg://app:s3cret@db-1/shop"
REPLICA = "postgresql+asyncpg://app:s3cret@db-2:5433/shop"


@pytest.mark.parametrize(
    ("field", "given", "hint"),
    [
        pytest.param("primary", {"primary": "postgresql://app:s3cret@db-1/shop"}, "asyncpg", id="no driver"),
        pytest.param("primary", {"primary": "postgresql+nope://app:s3cret@db-1/shop"}, "asyncpg", id="unknown driver"),
        pytest.param("primary", {"primary": "sqlite+aiosqlite:///shop.db"}, "asyncpg", id="another database system"),
        pytest.param(
            "primary",
            {"primary": "postgresql+asyncpg://app:s3cret@/shop?host=/run/postgresql:5433"},
            "host=/run/postgresql&port=5433",
            id="a port in the directory of a socket",
        ),
        pytest.param(
            "primary",
            {"primary": "postgresql+asyncpg://app:s3cret@/shop?host=db-1:5432,db-2:5432"},
            "ports are required",
            id="ports that SQLAlchemy does not find",
        ),
        pytest.param(
            "primary",
            {"primary": "postgres://app:s3cret@db-1/shop"},
            "write postgresql+asyncpg://app:***@db-1/shop",
            id="the scheme of others",
        ),
        pytest.param(
            "primary",
            {"primary": "postgresql+psycopg2://app:s3cret@db-1/shop"},
            "write postgresql+psycopg://app:***@db-1/shop",
            id="the driver before",
        ),
        pytest.param("primary", {"primary": None}, "environment variable unset", id="nothing"),
        pytest.param("primary", {"primary": ""}, "environment variable unset", id="an empty text"),
        pytest.param(
            "primary", {"primary": "postgresql+asyncpg://app:p@s3cret@db-1/shop"}, "%40", id="a password with an @"
        ),
        pytest.param(
            "primary",
            {"primary": "postgres://app/x:s3cret@db-1/shop"},
            "postgresql+asyncpg://app/***",
            id="a password that became the database",
        ),
        pytest.param(
            "primary",
            {"primary": "postgresql+asyncpg://db-1/shop?PASSWORD=s3cret"},
            "'PASSWORD'",
            id="a password in the query",
        ),
        pytest.param("primary", {"primary": "app:s3cret@db-1"}, "postgresql+asyncpg://", id="not a URL"),
        pytest.param("primary", {"primary": "postgresql+asyncpg://app:s3cret@db:x/shop"}, "host:5432", id="bad port"),
        pytest.param(
            "primary", {"primary": "postgresql+asyncpg://app:s3cret@db:65536/shop"}, "1 to 65535", id="no such port"
        ),
        pytest.param("primary", {"primary": f"{PRIMARY}?sslmode=require"}, "ssl=", id="libpq's name for TLS"),
        pytest.param("primary", {"primary": f"{PRIMARY}?sslrootcert=ca.pem"}, "SSLContext", id="libpq's files of TLS"),
        pytest.param(
            "primary", {"primary": f"{PRIMARY}?options=-cwork_mem=1"}, "server_settings", id="libpq's options"
        ),
        pytest.param(
            "replicas[0].url", {"replicas": [f"{REPLICA}?application_name=x"]}, "'application_name'", id="libpq"
        ),
        pytest.param("primary", {"primary": f"{PRIMARY}?statement_cache_size=0"}, "not text", id="a number in a URL"),
        pytest.param("primary", {"primary": f"{PRIMARY}?timeout=5"}, "'timeout'", id="what is a setting"),
        pytest.param(
            "replicas[0].url",
            {"replicas": ["postgresql+psycopg://app:s3cret@db-2/shop"]},
            "postgresql+asyncpg",
            id="another driver",
        ),
        pytest.param("primary", {"primary": None}, "postgresql+asyncpg://", id="no URL"),
        pytest.param("replicas", {"replicas": REPLICA}, "list", id="a URL in the place of a list"),
        pytest.param("replicas", {"replicas": None}, "list", id="no list"),
        pytest.param(
            "replicas[1].url",
            {"replicas": [REPLICA, "postgresql+psycopg2://app:s3cret@db-3/shop"]},
            "asyncpg",
            id="sync driver on a replica",
        ),
        pytest.param(
            "replicas[0].url", {"replicas": ["postgresql+asyncpg://app:s3cret@db-2/other"]}, "'shop'", id="database"
        ),
        pytest.param("replicas[1].name", {"replicas": [REPLICA, REPLICA]}, "replicas[0]", id="the same server twice"),
        pytest.param(
            "replicas[1].name",
            {"replicas": [Replica(REPLICA, "a"), Replica("postgresql+asyncpg://app@db-3/shop", "a")]},
            "replicas[0]",
            id="the same name twice",
        ),
        pytest.param(
            "primary.name", {"primary": Primary(PRIMARY, typing.cast(str, 5))}, "string", id="a number for a name"
        ),
        pytest.param(
            "primary.pooled", {"primary": Primary(PRIMARY, pooled=typing.cast(bool, "no"))}, "True", id="pooled"
        ),
        pytest.param("primary.probe_url", {"primary": Primary(PRIMARY, probe_url="db-1")}, "URL", id="probe_url"),
        pytest.param(
            "replicas[0].connect_args['timeout']",
            {"replicas": [Replica(REPLICA, connect_args={"timeout": 5})]},
            "connect_timeout",
            id="an argument that the library owns",
        ),
        pytest.param("connect_args", {"connect_args": [("ssl", "s3cret")]}, "mapping", id="no mapping"),
        pytest.param("connect_args['ssl']", {"connect_args": {"ssl": "s3cret"}}, "verify-full", id="no level of TLS"),
        pytest.param("engine_options", {"engine_options": "echo"}, "mapping", id="no mapping of options"),
        pytest.param(
            "engine_options['poolclass']", {"engine_options": {"poolclass": None}}, "creates the pools", id="poolclass"
        ),
        pytest.param(
            "engine_options['pool_size']",
            {"engine_options": {"pool_size": 3}},
            "primary_pool_size and replica_pool_size",
            id="pool_size",
        ),
        pytest.param(
            "engine_options['ecoh']", {"engine_options": {"ecoh": True}}, "no such option", id="a typing error"
        ),
        pytest.param(
            "replicas[0].promotable",
            {"replicas": [Replica(REPLICA, promotable=typing.cast(bool, "no"))]},
            "True",
            id="promotable",
        ),
        pytest.param("replicas[0].weight", {"replicas": [Replica(REPLICA, weight=0)]}, "at least 1", id="weight"),
        pytest.param(
            "replicas[0].weight",
            {"replicas": [Replica(REPLICA, weight=typing.cast(int, 1.5))]},
            "whole number",
            id="half a weight",
        ),
        pytest.param(
            "replicas[0].groups",
            {"replicas": [Replica(REPLICA, groups=typing.cast(set[str], "analytics"))]},
            "set",
            id="groups",
        ),
        pytest.param("replicas[0].groups", {"replicas": [Replica(REPLICA, groups=set())]}, "set", id="no groups"),
        pytest.param("application_name", {"application_name": ""}, "name", id="no application name"),
        pytest.param("read_isolation", {"read_isolation": "SERIALIZABLE"}, "REPEATABLE READ", id="SERIALIZABLE"),
        pytest.param("primary_pool_size", {"primary_pool_size": -1}, "at least 1", id="primary_pool_size"),
        pytest.param("replica_pool_size", {"replica_pool_size": 0}, "at least 1", id="replica_pool_size"),
        pytest.param("replica_pool_size", {"replica_pool_size": True}, "whole number", id="a flag for a size"),
        pytest.param("primary_max_overflow", {"primary_max_overflow": -1}, "at least 0", id="primary_max_overflow"),
        pytest.param("replica_max_overflow", {"replica_max_overflow": -1}, "at least 0", id="replica_max_overflow"),
        pytest.param("primary_pool_timeout", {"primary_pool_timeout": -0.1}, "at least 0", id="primary_pool_timeout"),
        pytest.param("replica_pool_timeout", {"replica_pool_timeout": -1}, "at least 0", id="replica_pool_timeout"),
        pytest.param("replica_pool_timeout", {"replica_pool_timeout": float("nan")}, "seconds", id="no number"),
        pytest.param("primary_reads", {"primary_reads": "false"}, "True or False", id="a text for a flag"),
        pytest.param("connect_timeout", {"connect_timeout": 0}, "above 0", id="connect_timeout"),
        *(
            pytest.param("token_name", {"token_name": name}, "__Host-", id=f"the name {name} of HTTP")
            for name in ("Host", "set-cookie", "content-length", "Content-Anything", "if-match", "Secure", "sec-gpc")
        ),
        pytest.param("connect_timeout", {"connect_timeout": "5"}, "seconds", id="a text for a number"),
    ],
)
def test_a_bad_value_is_refused_with_its_field_and_a_remedy(
    field: str, given: dict[str, typing.Any], hint: str
) -> None:
    """INVARIANT: no password in an error or its cause; a parser's message would contain it."""
    with pytest.raises(ConfigurationError) as caught:
        ReplicationSettings(**{"primary": PRIMARY, "replicas": [REPLICA], **given})

    error: BaseException | None = caught.value
    assert caught.value.field == field
    assert hint in caught.value.remedy
    while error is not None:
        assert "s3cret" not in f"{error} {error!r} {getattr(error, 'value', '')!r}"
        error = error.__cause__ or error.__context__


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install it."""
    known._load.cache_clear()  # noqa: SLF001  # another test may have loaded it
    monkeypatch.setitem(sys.modules, "modern_di_replicas.drivers.psycopg", None)
    with pytest.raises(ConfigurationError) as caught:
        ReplicationSettings(primary="postgresql+psycopg://app:s3cret@db-1/shop")

    assert "pip install 'modern-di-replicas[psycopg]'" in caught.value.remedy
    assert "s3cret" not in str(caught.value)


def test_a_url_may_have_parameters_of_the_driver() -> None:
    """As text: the driver gets these values as the URL has them."""
    query = "ssl=require&target_session_attrs=any&command_timeout=30&prepared_statement_cache_size=0"
    assert ReplicationSettings(primary=f"{PRIMARY}?{query}").declared_primary.url.endswith(query)


def test_settings_are_plain_data_that_pydantic_can_fill() -> None:
    """A pydantic-settings model may have a field of this type, filled from the environment as JSON."""
    given = (
        f'{{"primary": "{PRIMARY}", "replicas": ["{REPLICA}", '
        '{"url": "postgresql+asyncpg://db-3/shop", "weight": 9, "groups": ["analytics"]}], "replica_pool_size": 7}'
    )

    settings = pydantic.TypeAdapter(ReplicationSettings).validate_json(given)

    assert settings.replica_pool_size == 7
    assert [replica.weight for replica in settings.servers] == [1, 9]
    assert set(settings.servers[1].groups) == {"analytics"}


def test_a_bad_value_from_pydantic_shows_no_password() -> None:
    """INVARIANT: our error is not a ValueError, which pydantic would wrap and quote with the whole input."""
    with pytest.raises(ConfigurationError) as caught:
        pydantic.TypeAdapter(ReplicationSettings).validate_python({"primary": PRIMARY, "primary_pool_size": -1})

    assert "s3cret" not in str(caught.value)


def test_settings_are_frozen() -> None:
    """Checked values cannot change afterwards."""
    settings = ReplicationSettings(primary=PRIMARY)

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.primary_pool_size = -1  # type: ignore[misc]  # the point of the test


def test_an_error_survives_pickling_with_its_attributes() -> None:
    """Task queues send errors between processes."""
    error = ConfigurationError(field="primary", value="x", remedy="y")

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes

    assert (copy.field, copy.value, copy.remedy, str(copy)) == ("primary", "x", "y", str(error))
