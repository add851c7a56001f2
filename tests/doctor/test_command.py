import json
import sys

import pytest

import modern_di_replicas.doctor
from modern_di_replicas.__main__ import main
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.testing.server import free_port


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a terminal with 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def test_a_good_cluster_is_reported_in_80_columns(
    good_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each server with its facts, the connection budget, and the result that nothing was found."""
    assert main(["doctor", *(server.url for server in good_cluster.servers)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "Nothing found" in printed
    assert "1 worker x (15 + 1) = 16, of 100 - 3 reserved" in printed
    for server in good_cluster.servers:
        assert f"+ 127.0.0.1:{server.port}" in printed


def test_a_problem_is_exit_status_1_with_remedy_and_page(
    good_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings that differ only in their server are shown together."""
    urls = [server.url for server in good_cluster.servers]
    gone = urls[0].replace(f":{good_cluster.primary.port}", f":{free_port()}")
    assert main(["doctor", *urls, gone, "--workers", "8"]) == 1
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("problem connection-budget") == 1
    assert printed.count("may run out of connections") == 3
    assert "Remedy: make the pools smaller" in printed
    assert "/doctor/#unreachable" in printed
    assert "4 problems, 0 of advice." in printed


def test_advice_alone_is_exit_status_0(replicated_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """PostgreSQL's defaults are not a problem, but could be improved."""
    assert main(["doctor", *(server.url for server in replicated_cluster.servers)]) == 0
    assert "0 problems, 4 of advice." in capsys.readouterr().out


def test_json_has_the_facts_the_budgets_and_the_findings(
    good_cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a deployment that checks its servers; the number of workers comes from the environment."""
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    assert main(["doctor", good_cluster.primary.url, "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["servers"][0]["in_recovery"] is False
    assert content["budgets"][0]["fits"] is False
    (finding,) = content["findings"]
    assert finding["kind"] == "connection-budget"
    assert finding["severity"] == "problem"
    assert finding["page"].endswith("/doctor/#connection-budget")


def test_no_password_is_shown(good_cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in the output nor in an error."""
    url = good_cluster.primary.url
    password = url.split(":")[2].partition("@")[0]
    main(["doctor", url, url.replace(password, "wrong-secret"), "--json"])
    main(["doctor", url, url.replace("127.0.0.1", "localhost").replace(password, "wrong-secret"), "--json"])
    main(["doctor", url, f"mysql://u:{password}@a/b"])
    captured = capsys.readouterr()
    assert password not in captured.out + captured.err
    assert "wrong-secret" not in captured.out + captured.err


def test_a_target_that_is_not_usable_is_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Before any connection is opened."""
    assert main(["doctor", "mysql://a/b"]) == 2
    assert "primary" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "many"])
def test_workers_are_a_number_from_1(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before any connection is opened."""
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "postgresql://a/b", f"--workers={workers}"])
    assert caught.value.code == 2
    assert "--workers" in capsys.readouterr().err


def test_without_its_extra_the_doctor_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the extra."""
    monkeypatch.delattr(modern_di_replicas.doctor, "command", raising=False)
    for module in ("command", "report"):
        monkeypatch.delitem(sys.modules, f"modern_di_replicas.doctor.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["doctor", "postgresql://a/b"]) == 1
    assert capsys.readouterr().err == "The doctor needs 'rich.console': pip install 'modern-di-replicas[cli]'\n"
