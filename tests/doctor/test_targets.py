import pathlib
import sys

import pytest

from modern_di_replicas import ConfigurationError, ReplicationSettings
from modern_di_replicas.doctor.targets import settings_of


PRIMARY = "postgresql+asyncpg://u:p@a/db"


def test_the_first_url_is_the_primary_s() -> None:
    """A plain PostgreSQL URL gets the driver."""
    settings = settings_of([PRIMARY, "postgresql://u:p@b/db", "postgres://u:p@c/db"])
    assert settings.declared_primary.url == PRIMARY
    assert [server.url for server in settings.servers] == [
        "postgresql+asyncpg://u:p@b/db",
        "postgresql+asyncpg://u:p@c/db",
    ]


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Change to the folder of an application."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "doctors_application", raising=False)
    path = tmp_path / "doctors_application.py"
    path.write_text(
        f"""
from modern_di_replicas import ReplicationSettings

settings = ReplicationSettings(primary={PRIMARY!r})
number = 1

class Config:
    @staticmethod
    def database():
        return settings
"""
    )
    return path


@pytest.mark.parametrize("name", ["settings", "Config.database"])
@pytest.mark.usefixtures("module")
def test_settings_are_taken_from_the_application(name: str) -> None:
    """An attribute, also of a class; a callable is called."""
    assert settings_of([f"doctors_application:{name}"]) == ReplicationSettings(primary=PRIMARY)
    settings_of([f"doctors_application:{name}"])  # the folder is on the path already


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("doctors_application:nothing", "nothing"),
        ("doctors_application:number", "it is a int"),
        ("nowhere.at_all:settings", "nowhere"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_name_that_leads_to_no_settings_is_an_error(target: str, words: str) -> None:
    """The error says what the name refers to."""
    with pytest.raises(ConfigurationError) as caught:
        settings_of([target])
    assert words in caught.value.remedy
