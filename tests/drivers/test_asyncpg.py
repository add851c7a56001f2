import ssl

import pytest
from sqlalchemy import make_url

from modern_di_replicas.drivers.asyncpg import Asyncpg
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.testing import LocalCluster


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("timeout", 5, "connect_timeout"),
        ("host", "db-9", "URL"),
        ("loop", None, "event loop"),
        ("tiemout", 5, "no such argument"),
        ("server_settings", "jit=off", "mapping"),
        ("server_settings", {"application_name": "x"}, "application_name"),
        ("ssl", "verify-ful", "verify-full"),
        ("passfile", "/nowhere/.pgpass", "exists"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(name: str, value: object, hint: str) -> None:
    """Before any connection is opened: otherwise each attempt would fail, as if the server were down."""
    remedy = Asyncpg().argument_remedy(name, value)

    assert remedy is not None
    assert hint in remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", lambda: "secret"),
        ("ssl", ssl.create_default_context()),
        ("ssl", "verify-full"),
        ("ssl", False),
        ("passfile", __file__),
        ("server_settings", {"jit": "off"}),
        ("statement_cache_size", 0),
        ("prepared_statement_name_func", lambda: "x"),
    ],
)
def test_arguments_of_the_driver_are_passed_on(name: str, value: object) -> None:
    """Including SQLAlchemy's own arguments for this driver."""
    assert Asyncpg().argument_remedy(name, value) is None


def test_the_servers_settings_are_merged_with_the_name_of_the_application() -> None:
    """Both are in one argument of the driver."""
    given = {"server_settings": {"jit": "off"}, "command_timeout": 30}

    assert Asyncpg().connect_args(given, application_name="shop-primary", timeout=1.5, pooled=False) == {
        "server_settings": {"jit": "off", "application_name": "shop-primary"},
        "command_timeout": 30,
        "timeout": 1.5,
    }


async def test_parameters_of_sqlalchemy_do_not_reach_the_driver(
    replicated_cluster: LocalCluster,
) -> None:
    """A URL may set SQLAlchemy's own cache size, as behind a pooler; the driver refuses unknown arguments."""
    driver: Driver = Asyncpg()
    url = make_url(replicated_cluster.primary.url).set(drivername=driver.scheme)
    url = url.update_query_dict({"prepared_statement_cache_size": "0"})
    connection = await driver.connect(url, {"prepared_statement_name_func": str})

    assert (await driver.fetch_row(connection, "SELECT 1 AS n"))["n"] == 1
    await driver.close(connection, within=1)
    assert driver.is_closed(connection)
