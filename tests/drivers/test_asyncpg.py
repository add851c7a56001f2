from sqlalchemy import make_url

from modern_di_replicas.drivers.asyncpg import Asyncpg


def test_what_belongs_to_sqlalchemy_does_not_reach_the_driver() -> None:
    """A URL may tune SQLAlchemy's own cache, as behind a pooler; the driver refuses what it does not know."""
    url = "postgresql+asyncpg://app:secret@db-1:5433/shop?prepared_statement_cache_size=0&ssl=require"

    assert Asyncpg().connect_arguments(make_url(url), application_name="x", timeout=1.5) == {
        "host": "db-1",
        "port": 5433,
        "user": "app",
        "password": "secret",
        "database": "shop",
        "ssl": "require",
        "server_settings": {"application_name": "x"},
        "timeout": 1.5,
    }
