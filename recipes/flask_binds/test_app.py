import collections.abc

import pytest
from sqlalchemy import Engine, create_engine, insert, make_url, select

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.sync import PrimaryEngine
from modern_di_replicas.testing import LocalCluster
from recipes.flask_binds.app import ArchiveBase, Base, OldOrder, Order, create_app


def with_psycopg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@pytest.fixture
def archive(replicated_cluster: LocalCluster) -> collections.abc.Iterator[Engine]:
    """Another database without replicas."""
    replicated_cluster.primary.execute("CREATE DATABASE archive")
    url = make_url(with_psycopg(replicated_cluster.primary.url)).set(database="archive")
    engine = create_engine(url)
    ArchiveBase.metadata.create_all(engine)
    yield engine
    engine.dispose()
    replicated_cluster.primary.execute("DROP DATABASE archive")


def test_models_of_another_database_stay_there(
    database: ReplicationSettings, replicated_cluster: LocalCluster, archive: Engine
) -> None:
    """For the other models, a reading request uses a replica, and a writing one the primary."""
    settings = ReplicationSettings(
        primary=with_psycopg(database.declared_primary.url),
        replicas=[with_psycopg(replica.url) for replica in database.servers],
    )
    app = create_app(settings, archive)
    container = app.extensions["modern_di_container"]
    with container:
        primary = container.resolve(PrimaryEngine)
        Base.metadata.create_all(primary)
        with primary.begin() as connection:
            connection.execute(insert(Order), [{"id": 1}, {"id": 2}])
        replicated_cluster.catch_up()
        client = app.test_client()
        assert client.get("/orders").json == {"orders": 2, "standby": True, "old": 0, "archive": "archive"}
        assert client.post("/orders/archive").json == {"archived": 2}
        answer = client.get("/orders").get_json()
        assert (answer["orders"], answer["old"]) == (0, 2)
        with archive.connect() as connection:
            assert len(connection.execute(select(OldOrder)).all()) == 2
