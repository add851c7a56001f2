"""The drivers there are, each imported when it is first used."""

import functools
import importlib
import typing

from sqlalchemy import URL, Engine

from modern_di_replicas.drivers.driver import Driver


SCHEMES: typing.Final = ("postgresql+asyncpg", "postgresql+psycopg")
"""What a URL may begin with."""


def driver_of(where: URL | Engine) -> Driver:
    """Return the driver that a URL names, or that an engine uses."""
    if isinstance(where, Engine):
        name = where.url.get_driver_name()
        return _load(name if where.dialect.is_async else f"{name}_sync")
    return _load(where.get_driver_name())


@functools.cache
def _load(name: str) -> Driver:
    return typing.cast(Driver, importlib.import_module(f"modern_di_replicas.drivers.{name}").driver)
