"""The packaged dashboard and alert rules use existing metrics."""

import collections.abc
import importlib.resources
import json
import pathlib
import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry

from modern_di_replicas.observability import PrometheusHook


PROMTOOL = shutil.which("promtool")
ASSETS = pathlib.Path(str(importlib.resources.files("modern_di_replicas.observability") / "assets"))
METRIC = re.compile(r"\bdb_\w+")


def known() -> set[str]:
    """Return the names under which Prometheus stores the hook's metrics."""
    registry = CollectorRegistry()
    PrometheusHook(registry=registry)
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket"], "gauge": [""]}[family.type]
        names |= {family.name + suffix for suffix in suffixes}
    return names


def expressions() -> collections.abc.Iterator[str]:
    dashboard = json.loads((ASSETS / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    """A renamed metric has to be renamed in the dashboard."""
    shown = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert shown == known()


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    """An alert for a metric that does not exist never fires."""
    rules = (ASSETS / "alerts.yml").read_text()
    asked = {name for line in rules.splitlines() if "description" not in line for name in METRIC.findall(line)}
    assert asked
    assert asked <= known()


def test_no_two_panels_overlap() -> None:
    """Grafana would move overlapping panels."""
    cells: set[tuple[int, int]] = set()
    for panel in json.loads((ASSETS / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own
        assert max(x for x, _ in own) < 24
        cells |= own


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; Debian's package `prometheus` has it")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "rules", str(ASSETS / "alerts.yml")],
        ["test", "rules", str(pathlib.Path(__file__).parent / "assets" / "alerts_test.yml")],
    ],
)
def test_promtool_accepts_the_rules_and_each_alert_fires_when_it_should(command: list[str]) -> None:
    """For each alert there is a series that triggers it."""
    run = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, check=False)  # noqa: S603
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; Debian's package `prometheus` has it")
def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: pathlib.Path) -> None:
    """As recording rules, because promtool checks those."""
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run = subprocess.run([str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True, check=False)  # noqa: S603
    assert run.returncode == 0, run.stdout + run.stderr
