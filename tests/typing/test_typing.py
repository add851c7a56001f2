"""The three type checkers accept users' code, each in its strictest mode."""

import pathlib
import subprocess
import sys

import pytest


USAGE = pathlib.Path(__file__).parent / "usage.py"
COMMANDS = {
    "mypy": ["mypy", "--strict"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
    "ty": ["ty", "check", "--error-on-warning", "--python", sys.prefix],
}
ROOT = pathlib.Path(__file__).parent.parent.parent
WRONG = """
from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.observability import Event


class Hook:
    def on_happening(self, event: Event) -> None: ...


ReplicationSettings(primary="a", hooks=[Hook()])
ReplicationSettings(primary="a", replica_share="half")
Intent.read(affinity=7)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "checker",
    # It takes eight seconds of processor time; the others are fast and find the same errors.
    ["mypy", "ty", pytest.param("pyright", marks=pytest.mark.slow)],
)
def test_correct_code_type_checks_and_errors_are_found(checker: str, tmp_path: pathlib.Path) -> None:
    """Both files are checked in one run, because it takes seconds.

    A checker that treats everything as Any would accept both.
    """
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    done = run([*COMMANDS[checker], str(USAGE), str(wrong)])
    assert _locations(done.stdout, USAGE) == [], done.stdout + done.stderr
    assert done.returncode != 0
    assert {int(line.split(":")[1]) for line in _locations(done.stdout, wrong)} == {10, 11, 12}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    program = pathlib.Path(sys.prefix) / "bin" / command[0]
    if not program.exists():
        pytest.skip(f"{command[0]} is not installed; the dependency group `lint` has it")
    return subprocess.run([str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603


def _locations(output: str, path: pathlib.Path) -> list[str]:
    """Return `path:line` of each error, which all three print."""
    lines = [line.partition(path.name)[2] for line in output.splitlines() if "note:" not in line]
    return [f"{path.name}{line}" for line in lines if line.startswith(":") and line[1:2].isdigit()]
