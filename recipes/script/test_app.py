import dataclasses

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.testing import LocalCluster, RoutingLog
from recipes.script.app import Base, Comment, Post, create_container, delete_spam, main, report


@pytest.fixture
def settings(database: ReplicationSettings, replicated_cluster: LocalCluster) -> ReplicationSettings:
    def on_psycopg(url: str) -> str:
        return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    primary = on_psycopg(database.declared_primary.url)
    engine = create_engine(primary)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Post(id=1, title="Hello"), Post(id=2, title="World")])
        session.flush()
        session.add_all(Comment(post_id=1, is_spam=spam) for spam in (False, False, True))
        session.commit()
    engine.dispose()
    replicated_cluster.catch_up()
    replicas = [dataclasses.replace(replica, url=on_psycopg(replica.url)) for replica in database.servers]
    return dataclasses.replace(database, primary=primary, replicas=replicas)


def test_the_report_reads_from_replicas_and_the_clean_up_writes_to_the_primary(
    settings: ReplicationSettings, replicated_cluster: LocalCluster, routing_log: RoutingLog
) -> None:
    """Each unit of work uses the server that it declares."""
    with create_container(settings) as container:
        assert report(container) == {"Hello": 3, "World": 0}
        assert "primary" not in routing_log.servers
        routing_log.clear()
        assert delete_spam(container) == 1
        assert set(routing_log.servers) == {"primary"}
        replicated_cluster.catch_up()
        assert report(container) == {"Hello": 2, "World": 0}


def test_the_script_reads_its_writes(
    settings: ReplicationSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the monitor, a read after a write in the same thread includes it."""
    monkeypatch.setenv("PRIMARY_URL", settings.declared_primary.url)
    monkeypatch.setenv("REPLICA_URLS", " ".join(replica.url for replica in settings.servers))
    main()
    assert capsys.readouterr().out == "Deleted 1 spam comments.\n{'Hello': 2, 'World': 0}\n"
