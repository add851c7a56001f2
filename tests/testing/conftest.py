import pathlib
import shutil
import tempfile
import typing

import pytest

from modern_di_replicas.testing.workspace import default_parent


@pytest.fixture
def folder() -> typing.Iterator[pathlib.Path]:
    """Yield an empty folder that every account can enter, which pytest's own tmp_path is not."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="tests-of-local-cluster-", dir=default_parent())).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
