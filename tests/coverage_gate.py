"""The coverage of `make test`: lines and branches of the package, and the gate.

`pytest -p tests.coverage_gate`. SlipCover instruments only our modules, when they are imported. Before Python 3.14,
coverage.py would double the processor time of the suite, because it traces every call in SQLAlchemy and follows its
greenlets.
"""

import collections.abc
import importlib
import io
import json
import pathlib
import typing

import pytest
import slipcover


SOURCE: typing.Final = pathlib.Path(__file__).parents[1] / "src" / "modern_di_replicas"
OMITTED: typing.Final = ["*/testing/docker.py"]  # covered by `make test-docker`, where a Docker engine is
MINIMUM: typing.Final = 100
NEVER: typing.Final = 2**31 - 1  # removes no probe from running code: functions keep their code objects

_meter: typing.Final = slipcover.Slipcover(
    branch=True,
    source=[str(SOURCE)],
    omit=OMITTED,
    exclude_also=[
        r"@typing\.overload",
        r"\.\.\.$",
        r'if hasattr\(os, "register_at_fork"\):',  # always there on POSIX
        r'if __name__ == "__main__":',  # runs in a separate process, see tests/test_main.py
    ],
    d_miss_threshold=NEVER,
)
slipcover.ImportManager(_meter, slipcover.FileMatcher(sources=[SOURCE], omit=OMITTED)).__enter__()
# As one of pytest's plugins, it would be loaded before it can be instrumented.
importlib.import_module("modern_di_replicas.testing.fixtures")

_of_workers: typing.Final[list[dict[str, typing.Any]]] = []


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, in the process that distributes the tests
def pytest_testnodedown(node: typing.Any, error: object) -> None:
    if error is None:
        _of_workers.append(json.loads(node.workeroutput["coverage"]))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    coverage = _meter.get_coverage()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["coverage"] = json.dumps(coverage)
        return
    for other in _of_workers:
        slipcover.merge_coverage(coverage, other)
    session.config.stash[_COVERAGE] = coverage
    if _covered(coverage) < MINIMUM and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    coverage = config.stash.get(_COVERAGE, None)
    if coverage is not None:
        terminalreporter.section("coverage")
        if _covered(coverage) < MINIMUM:
            table = io.StringIO()
            slipcover.print_coverage(coverage, outfile=table, skip_covered=True)
            terminalreporter.write(table.getvalue())
        terminalreporter.line(f"{_covered(coverage):.2f} % of lines and branches; {MINIMUM:g} % are required")


_COVERAGE: typing.Final = pytest.StashKey[dict[str, typing.Any]]()


def _covered(coverage: collections.abc.Mapping[str, typing.Any]) -> float:
    return float(coverage["summary"]["percent_covered"])
