"""Results of a busy machine are not written."""

import pathlib
import typing

import pytest

from benchmarks import __main__ as command
from benchmarks import machine
from benchmarks.machine import BusyMachineError
from benchmarks.results import Results
from tests.benchmarks.made_up import made_up_results


class Others:
    """Simulates other programs that use the machine."""

    def __init__(self, *, are_busy: bool) -> None:
        self._are_busy = are_busy

    def check(self, *_: float) -> None:
        if self._are_busy:
            msg = "The machine is busy"
            raise BusyMachineError(msg)


Run = typing.Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Run:
    """Run the command with synthetic measurements; the machine may be busy before or during them."""

    def run(*arguments: str, before: bool = False, during: bool = False) -> int:
        monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
        monkeypatch.setattr(machine, "check_quiet", Others(are_busy=before).check)
        monkeypatch.setattr(command, "_measure", lambda *_, **__: (made_up_results(), Others(are_busy=during)))
        monkeypatch.setattr(command, "render", lambda _: None)
        return command.main(arguments)

    return run


def test_the_results_of_a_quiet_machine_are_written(run: Run, tmp_path: pathlib.Path) -> None:
    """They are kept for rendering, which is a separate step."""
    assert run() == 0
    assert Results.load(tmp_path / "results.json") == made_up_results()


@pytest.mark.parametrize("when", ["before", "during"])
def test_the_results_of_a_busy_machine_are_not_written(
    run: Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    """The command prints the reason and fails."""
    assert run(**{when: True}) == 1
    assert "The machine is busy" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_quick_run_only_shows_its_results(
    run: Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a warning on a busy machine."""
    assert run("--quick", before=True, during=True) == 0
    assert "These figures are not reliable" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
