"""The driver of the suite: `pytest --driver psycopg`, default asyncpg."""

import os
import typing

import pytest
import sqlalchemy.exc

from modern_di_replicas.testing.cluster import DRIVER_VARIABLE


DRIVER: typing.Final = os.environ.get(DRIVER_VARIABLE, "asyncpg")

UNREACHABLE: typing.Final = (OSError, sqlalchemy.exc.OperationalError)
"""The errors of a session whose server does not accept connections: SQLAlchemy wraps psycopg's errors."""


TLS_LEVEL: typing.Final = "ssl" if DRIVER == "asyncpg" else "sslmode"
"""The driver's parameter for encrypted connections."""


def server_settings(**values: str) -> dict[str, typing.Any]:
    """Return `connect_args` that apply PostgreSQL settings to each session."""
    if DRIVER == "asyncpg":
        return {"server_settings": values}
    return {"options": " ".join(f"-c {name}={value}" for name, value in values.items())}


def only_on(driver: str, reason: str) -> pytest.MarkDecorator:
    """Mark a test of a difference between the drivers; `docs/drivers.md` lists them."""
    return pytest.mark.skipif(driver != DRIVER, reason=f"only on {driver}: {reason}")
