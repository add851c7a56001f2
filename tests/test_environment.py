"""`ReplicationSettings.from_env`: every field except those that need code, with the variable's name in each error."""

import dataclasses
import datetime as dt
import os
import pathlib
import subprocess
import sys
import typing

import pydantic
import pytest
from sqlalchemy.engine import make_url

from modern_di_replicas import (
    EVENTUAL,
    STRONG,
    Bounded,
    ConfigurationError,
    Primary,
    Replica,
    ReplicationSettings,
)
from modern_di_replicas.environment import PARSERS
from modern_di_replicas.observability import LoggingHook


PRIMARY = "postgresql+asyncpg://app:s3cret@db-1/shop"
REPLICAS = ["postgresql+asyncpg://app:s3cret@db-2/shop", "postgresql+asyncpg://app:s3cret@db-3/shop"]
SEVERAL_HOSTS = "postgresql+asyncpg://app:s3cret@/shop?host=db-4:5432,db-5:5432"


def read(**variables: str) -> ReplicationSettings:
    return ReplicationSettings.from_env("SHOP_", environment={"SHOP_PRIMARY": PRIMARY, **variables})


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SHOP_MAX_LAG", "2.5", dt.timedelta(seconds=2.5)),
        ("SHOP_MAX_LAG", "None", None),
        ("SHOP_TOKEN_LIFETIME", "90", dt.timedelta(seconds=90)),
        ("SHOP_TOKEN_CARRIER", "none", None),
        ("SHOP_TOKEN_CARRIER", "header", "header"),
        ("SHOP_CONSISTENCY", "eventual", EVENTUAL),
        ("SHOP_CONSISTENCY", "Strong", STRONG),
        ("SHOP_CONSISTENCY", "0.5", Bounded(lag=dt.timedelta(seconds=0.5))),
        ("SHOP_POOLED", "yes", True),
        ("SHOP_ENABLED", "Off", False),
        ("SHOP_REPLICA_POOL_SIZE", "7", 7),
        ("SHOP_PRIMARY_FALLBACK_LIMIT", "3", 3),
        ("SHOP_PROBE_INTERVAL", "0.25", 0.25),
        ("SHOP_REPLICA_SHARE", "0.1", 0.1),
        ("SHOP_BALANCING", "round-robin", "round-robin"),
        ("SHOP_CONNECT_ARGS", '{"command_timeout": 5}', {"command_timeout": 5}),
        ("SHOP_ENGINE_OPTIONS", '{"echo": true}', {"echo": True}),
        ("SHOP_TOKEN_SECRET", "abc", "abc"),
        ("SHOP_TOKEN_SECRET", '["old", "new"]', ["old", "new"]),
        ("SHOP_APPLICATION_NAME", " shop ", "shop"),
        ("shop_application_name", "shop", "shop"),
        ("SHOP_APPLICATION_NAME", "", "app"),
    ],
)
def test_each_kind_of_value_is_read(variable: str, text: str, value: object) -> None:
    """Durations are seconds, levels are case-insensitive, and an empty variable counts as unset."""
    settings = read(**{variable: text})
    assert getattr(settings, variable.lower().removeprefix("shop_")) == value


@pytest.mark.parametrize(
    ("text", "replicas"),
    [
        ("", []),
        (REPLICAS[0], REPLICAS[:1]),
        (", ".join(REPLICAS), REPLICAS),
        (f'["{REPLICAS[0]}", "{REPLICAS[1]}"]', REPLICAS),
        (
            f'[{{"url": "{REPLICAS[0]}", "name": "a", "weight": 2, "groups": ["reports"], "max_lag": 60}}]',
            [Replica(REPLICAS[0], "a", 2, {"reports"}, dt.timedelta(minutes=1))],
        ),
        (f'{{"url": "{REPLICAS[0]}", "promotable": false}}', [Replica(REPLICAS[0], promotable=False)]),
    ],
)
def test_replicas_are_urls_or_json(text: str, replicas: list[str | Replica]) -> None:
    """One URL, several separated by commas, or a list of URLs and objects."""
    assert read(SHOP_REPLICAS=text).replicas == tuple(replicas)


def test_a_comma_between_hosts_separates_no_replicas() -> None:
    """A URL may contain several hosts."""
    with pytest.raises(ConfigurationError, match=r"SHOP_REPLICAS\[1\]\.url .* ports are required"):
        read(SHOP_REPLICAS=f"{REPLICAS[0]},{SEVERAL_HOSTS}")


def test_the_primary_may_be_json_as_well() -> None:
    """A name, for example, is an argument of `Primary`."""
    settings = read(SHOP_PRIMARY=f'{{"url": "{PRIMARY}", "name": "main"}}')
    assert settings.primary == Primary(PRIMARY, "main")


@pytest.mark.parametrize(
    ("variables", "field", "hint"),
    [
        ({"SHOP_MAX_LAG": "ten"}, "SHOP_MAX_LAG", "number of seconds"),
        ({"SHOP_MAX_LAG": "-1"}, "SHOP_MAX_LAG", "above zero"),
        ({"SHOP_PROBE_TIMEOUT": "nan s"}, "SHOP_PROBE_TIMEOUT", "use a number"),
        ({"SHOP_POOLED": "maybe"}, "SHOP_POOLED", "true or false"),
        ({"SHOP_REPLICA_POOL_SIZE": "2.5"}, "SHOP_REPLICA_POOL_SIZE", "whole number"),
        ({"SHOP_CONSISTENCY": "quick"}, "SHOP_CONSISTENCY", "EVENTUAL"),
        ({"SHOP_CONSISTENCY": "-1"}, "SHOP_CONSISTENCY", "EVENTUAL"),
        ({"SHOP_CONNECT_ARGS": "[1]"}, "SHOP_CONNECT_ARGS", "JSON object"),
        ({"SHOP_REPLICAS": '[{"weight": 2}]'}, "SHOP_REPLICAS", "JSON list"),
        ({"SHOP_REPLICAS": '["postgres://app:s3cret@db-2/shop"]'}, "SHOP_REPLICAS[0].url", "postgresql+asyncpg://app"),
        ({"SHOP_PRIMARY": '{"url"'}, "SHOP_PRIMARY", "JSON object"),
        ({"SHOP_PRIMARY": ""}, "SHOP_PRIMARY", "unset"),
        ({"SHOP_ON_WRITE": "panic"}, "SHOP_ON_WRITE", "escalate"),
        ({"SHOP_MAXLAG": "2"}, "SHOP_MAXLAG", "SHOP_MAX_LAG"),
    ],
)
def test_an_error_names_the_variable(variables: dict[str, str], field: str, hint: str) -> None:
    """INVARIANT: the error names the variable and a valid value, and shows no secret."""
    with pytest.raises(ConfigurationError) as caught:
        read(**variables)
    assert caught.value.field == field
    assert hint in str(caught.value)
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_other_variables_are_ignored() -> None:
    """Other programs may use the same prefix."""
    assert read(SHOP_TITLE="The shop", OTHER_MAX_LAG="x").max_lag == dt.timedelta(seconds=10)


def test_code_may_add_and_replace_fields() -> None:
    """Fields that need code, such as hooks, are arguments; an error in them names the field."""
    hook = LoggingHook()
    environment = {"DB_PRIMARY": PRIMARY, "DB_MAX_LAG": "1"}
    settings = ReplicationSettings.from_env(environment=environment, hooks=[hook], max_lag=None)
    assert (settings.hooks, settings.max_lag) == ([hook], None)
    with pytest.raises(ConfigurationError) as caught:
        ReplicationSettings.from_env(environment=environment, hooks=[1])
    assert caught.value.field == "hooks"


def test_the_variables_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env()` alone reads `DB_PRIMARY`."""
    monkeypatch.setenv("DB_PRIMARY", PRIMARY)
    assert ReplicationSettings.from_env().primary == PRIMARY


def test_every_field_can_be_read_but_hooks() -> None:
    """A new field of the settings needs a parser."""
    assert {field.name for field in dataclasses.fields(ReplicationSettings)} - set(PARSERS) == {"hooks"}


class Model(pydantic.BaseModel):
    primary: pydantic.PostgresDsn
    replica: pydantic.SecretStr


def test_urls_may_be_objects_of_pydantic_or_of_sqlalchemy() -> None:
    """A `PostgresDsn`, a `SecretStr` and SQLAlchemy's `URL` are converted to their text."""
    model = Model.model_validate({"primary": PRIMARY, "replica": REPLICAS[0]})
    primary: typing.Any = model.primary
    replicas: list[typing.Any] = [model.replica, make_url(REPLICAS[1])]
    settings = ReplicationSettings(primary=primary, replicas=replicas)
    assert settings.primary == PRIMARY
    assert settings.replicas == tuple(REPLICAS)
    assert Primary(primary, probe_url=typing.cast(typing.Any, make_url(REPLICAS[0]))).probe_url == REPLICAS[0]


FAILING = """
import os
from modern_di_replicas import Primary, Replica, ReplicationSettings

def test_settings():
    ReplicationSettings(primary=os.environ["A_URL"], replicas=[Replica(os.environ["A_URL"] + "?nope=1")])

def test_environment():
    ReplicationSettings.from_env("A_")
"""


def test_the_report_of_a_failed_test_shows_no_password(tmp_path: pathlib.Path) -> None:
    """Pytest prints arguments and, optionally, local variables of an error's frames."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    environment = {**os.environ, "A_URL": PRIMARY, "A_PRIMARY": f"{PRIMARY}?nope=1", "PYTHONPATH": ""}
    run = subprocess.run(  # noqa: S603  # pytest, on a file of ours
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-l", "--tb=long", tmp_path.name],
        cwd=tmp_path.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 failed" in run.stdout
    assert "ConfigurationError" in run.stdout
    assert "s3cret" not in run.stdout + run.stderr
