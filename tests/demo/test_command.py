"""The whole command: as a user types it, and in this process."""

import asyncio
import collections
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import typing

import httpx
import pytest

from modern_di_replicas.__main__ import main
from modern_di_replicas.demo import command
from modern_di_replicas.demo.answers import Answers
from modern_di_replicas.demo.screen import Screen, serve_command
from modern_di_replicas.demo.topology import settings_for
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.processes import programs_below
from tests.demo.conftest import soon_noticing


# The command starts its own clusters, and breaks them.
pytestmark = pytest.mark.faults

ROW = re.compile(r"^(GET|HEAD|POST|PUT|DELETE) (\S+) +(\S+) +(read|write) +(\S+) +(\d+) +(true|false) +(\S.*)$")
SERVER = re.compile(r"^(primary|replica-\d) +(\d+) +(true|false) ")


def start(folder: pathlib.Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "modern_di_replicas", "demo", *options],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    pytest.fail(f"{words!r} never came: {text}{process.communicate()[1]}")


def ports(output: str) -> dict[str, str]:
    return {match[1]: match[2] for match in map(SERVER.match, output.splitlines()) if match}


def nothing_is_left(folder: pathlib.Path) -> bool:
    return list(folder.iterdir()) == [] and programs_below(folder) == []


def test_the_demo_shows_real_requests_and_real_faults_and_leaves_nothing(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The primary answered writes and both replicas reads, as the servers report; no read failed."""
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(command, "settings_for", lambda cluster: soon_noticing(settings_for(cluster)))
    assert main(["demo"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    port = ports(output)
    rows = [match.groups() for match in map(ROW.match, output.splitlines()) if match]
    assert len(rows) == int(re.findall(r"(\d+) requests:", output)[0])
    for *_, intent, server, answered, in_recovery, why in rows:
        assert answered == port[server]
        assert (in_recovery == "true") is (server != "primary")
        assert intent == "read" or server == "primary"
        assert "EVENTUAL" not in why or server != "primary"
        assert "STRONG" not in why or server == "primary"
    assert {server for *_, server, _, _, _ in rows} == {"primary", "replica-1", "replica-2"}
    assert {(method, path, marker) for method, path, marker, *_ in rows} >= {
        ("GET", "/users/1", "-"),
        ("POST", "/users", "-"),
        ("GET", "/me", "@write_intent"),
        ("POST", "/search", "@read_intent"),
    }
    assert "log: WARNING" in output
    experiments = re.findall(r"(\d+) reads, (\d+) failed, the slowest", output)
    assert len(experiments) == 5
    assert {failed for _, failed in experiments} == {"0"}
    total = sum(int(reads) for reads, _ in experiments)
    assert f"A freeze, a lag, a crash and a failover: 0 of {total} reads failed." in output
    assert "did not notice" not in output
    assert output.isascii()
    assert nothing_is_left(folder)


def test_serve_answers_requests_and_breaks_servers_until_ctrl_c(folder: pathlib.Path) -> None:
    """A typed command breaks a real server, and no read fails. Ctrl-C is the normal end, and nothing is left."""
    process = start(folder, "--serve")
    output = read_until(process, "this list")
    url = re.findall(r"Serving at (\S+) until", output)[0]
    assert f"curl --include {url}/users/1\n" in output
    assert process.stdin is not None
    with httpx.Client(base_url=url, trust_env=False) as client:
        response = client.get("/users/1")
        assert response.json()["name"].startswith("Ada")
        assert response.headers["x-server-port"] in ports(output).values()
        for typed, answer in (
            ("freeze replica-1", "freeze replica-1: done"),
            ("melt replica-1", "'melt replica-1' is not a command"),
            ("thaw", "thaw replica-1: done"),
            ("servers", "answered"),
        ):
            process.stdin.write(f"{typed}\n")
            process.stdin.flush()
            read_until(process, answer)
        with client.stream("GET", "/live/events") as events:
            lines = events.iter_lines()
            seen = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
            assert seen["failed"]["read"] == 0
            assert sum(server["answered"] for server in seen["servers"]) > 16  # the tour's user and the clients' user
            process.send_signal(signal.SIGINT)
            collections.deque(lines, maxlen=0)  # the page is still open, and its stream ends
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert nothing_is_left(folder)


def test_ctrl_c_ends_the_demo_cleanly_while_the_servers_start(folder: pathlib.Path) -> None:
    """The status is that of an interrupted program, and nothing is left."""
    process = start(folder)
    read_until(process, "base backup")
    process.send_signal(signal.SIGINT)
    assert "Interrupted" in process.communicate()[1]
    assert process.returncode == 130
    assert nothing_is_left(folder)


class Shared:
    """Replaces the demo's own cluster, which takes a second to start, by a running one."""

    def __init__(self, cluster: LocalCluster, *, progress: typing.Callable[[str], None]) -> None:
        self._cluster = cluster
        progress("the cluster of the tests")

    async def __aenter__(self) -> LocalCluster:
        return self._cluster

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._cluster.primary.execute, "DROP TABLE users")
        await asyncio.to_thread(self._cluster.catch_up)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, replicated_cluster: LocalCluster) -> None:
    """Make the demo use the cluster of the tests."""
    monkeypatch.setattr(command, "LocalCluster", functools.partial(Shared, replicated_cluster))


@pytest.mark.usefixtures("shared")
def test_the_demo_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a summary and the next steps."""
    assert main(["demo", "--tour"]) == 0
    output = capsys.readouterr().out
    assert "requests: " in output
    assert "demo --serve" in output
    assert output.endswith("The servers are stopped and their files removed.\n")


def test_the_command_it_names_works_where_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A copy of the repository has no activated environment: only its own interpreter has the package."""
    monkeypatch.chdir(tmp_path)
    assert serve_command() == "python -m modern_di_replicas demo --serve"
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert serve_command() == ".venv/bin/python -m modern_di_replicas demo --serve"


@pytest.mark.usefixtures("shared")
def test_serve_ends_with_a_signal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM, which service managers send, is a normal end too."""
    invite = Answers.show_invitation

    def invite_and_interrupt(answers: Answers, url: str) -> None:
        invite(answers, url)
        # It is delivered in the event loop's next iteration, while the demo waits for it.
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Answers, "show_invitation", invite_and_interrupt)
    assert main(["demo", "--serve"]) == 0
    assert "curl --include http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.usefixtures("shared")
def test_an_interruption_has_the_status_of_its_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """128 plus the number of the signal, as in a shell."""
    monkeypatch.setattr(Screen, "show_application", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main(["demo"]) == 128 + signal.SIGTERM
    assert "Interrupted" in capsys.readouterr().err


def test_a_cluster_that_cannot_start_is_a_readable_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """Instead of a traceback: the cause, the remedy, and the page that helps."""
    missing = tmp_path / "missing"
    monkeypatch.setattr(command, "LocalCluster", functools.partial(LocalCluster, folder=missing))
    assert main(["demo"]) == 1
    errors = capsys.readouterr().err
    assert str(missing) in errors
    assert "TMPDIR" in errors
    assert "See: https://" in errors
    assert "Traceback" not in errors
