import logging
import sys

import pytest

import modern_di_replicas.watch
from modern_di_replicas.__main__ import main
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.server import free_port
from modern_di_replicas.watch import command
from modern_di_replicas.watch.history import History


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a terminal with 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def urls(cluster: LocalCluster) -> list[str]:
    return [server.url for server in cluster.servers]


def test_one_picture_shows_every_server_with_role_and_lag(
    replicated_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """In 80 columns."""
    assert main(["watch", *urls(replicated_cluster), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[1]: line.split() for line in lines if "127.0.0.1" in line}
    primary, *replicas = replicated_cluster.servers
    assert rows[f"127.0.0.1:{primary.port}"] == ["+", f"127.0.0.1:{primary.port}", "primary"]
    for replica in replicas:
        assert rows[f"127.0.0.1:{replica.port}"][2:4] == ["standby", "0.00"]


def test_a_server_that_dies_is_an_event_and_the_log_stays_off_the_screen(
    disposable_cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures follow the events until the time is over."""
    victim = disposable_cluster.replicas[0]
    monkeypatch.setattr(command, "REFRESH", 0.05)

    class Stopper(History):
        """Stops the victim at the first picture, and ends with the event."""

        def sample(self) -> None:
            super().sample()
            if victim.is_running():
                victim.stop("immediate")
            if any(victim_name in line.words for line in self.lines):
                raise KeyboardInterrupt

    victim_name = f"127.0.0.1:{victim.port}"
    monkeypatch.setattr(command, "History", Stopper)
    assert main(["watch", *urls(disposable_cluster)]) == 0
    assert "is down" not in capsys.readouterr().err
    assert logging.getLogger("modern_di_replicas").propagate


def test_it_ends_after_the_seconds_it_was_given(
    replicated_cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a pipe, a recording or a test."""
    monkeypatch.setattr(command, "REFRESH", 0.05)
    assert main(["watch", *urls(replicated_cluster), "--seconds", "0.2"]) == 0
    assert "none yet" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["mysql://a/b", "postgresql://u:wrong@127.0.0.1:{port}/postgres"])
def test_servers_that_cannot_be_watched_are_exit_status_1(
    target: str, replicated_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a wrong scheme or a wrong password."""
    assert main(["watch", target.format(port=replicated_cluster.primary.port), "--once"]) == 1
    captured = capsys.readouterr()
    assert captured.err
    assert "wrong" not in captured.err.replace("wrong user", "")


def test_a_primary_that_is_down_is_shown(replicated_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The command is most useful during a failure."""
    gone = replicated_cluster.primary.url.replace(f":{replicated_cluster.primary.port}", f":{free_port()}")
    assert main(["watch", gone, replicated_cluster.replicas[0].url, "--once"]) == 0
    assert "down" in capsys.readouterr().out


def test_without_its_extra_watch_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the extra."""
    monkeypatch.delattr(modern_di_replicas.watch, "command", raising=False)
    monkeypatch.delitem(sys.modules, "modern_di_replicas.watch.command", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["watch", "postgresql://a/b"]) == 1
    assert "modern-di-replicas[cli]" in capsys.readouterr().err
