"""The supported drivers, each imported when it is first used."""

import functools
import importlib
import typing

from sqlalchemy import URL, Engine

from modern_di_replicas.drivers.driver import Driver


SCHEMES: typing.Final = ("postgresql+asyncpg", "postgresql+psycopg")
"""The supported schemes of URLs."""


def driver_of(where: URL | Engine) -> Driver:
    """Return the driver of a URL or an engine."""
    if isinstance(where, Engine):
        name = where.url.get_driver_name()
        return _load(name if where.dialect.is_async else f"{name}_sync")
    return _load(where.get_driver_name())


@functools.cache
def _load(name: str) -> Driver:
    return typing.cast(Driver, importlib.import_module(f"modern_di_replicas.drivers.{name}").driver)
