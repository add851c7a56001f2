import dataclasses
import datetime as dt
import pathlib
import secrets
import shutil
import tempfile
import typing

import pytest
from sqlalchemy.engine import make_url

from modern_di_replicas import Replica, ReplicationSettings
from modern_di_replicas.demo.topology import settings_for
from modern_di_replicas.testing import LocalCluster


def soon_noticing(settings: ReplicationSettings) -> ReplicationSettings:
    """Return the same settings with a shorter detection time, for tests that wait for a fault."""
    return dataclasses.replace(
        settings, probe_interval=0.1, probe_timeout=0.4, max_lag=dt.timedelta(seconds=0.4), connect_timeout=1.0
    )


@pytest.fixture
def folder() -> typing.Iterator[pathlib.Path]:
    """Yield an empty folder that every account can enter, which pytest's own tmp_path is not."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="tests-of-demo-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def settings(replicated_cluster: LocalCluster) -> typing.Iterator[ReplicationSettings]:
    """Yield the settings of the demo, in a separate database."""
    database = f"shop_{secrets.token_hex(4)}"
    replicated_cluster.primary.execute(f"CREATE DATABASE {database}")
    replicated_cluster.catch_up()
    given = settings_for(replicated_cluster)
    yield ReplicationSettings(
        primary=_with_database(given.declared_primary.url, database),
        replicas=[
            Replica(_with_database(replica.url, database), name=replica.name, groups=replica.groups)
            for replica in given.servers
        ],
    )
    replicated_cluster.primary.execute(f"DROP DATABASE {database} WITH (FORCE)")
    replicated_cluster.catch_up()


def _with_database(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)
