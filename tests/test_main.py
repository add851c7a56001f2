import runpy
import subprocess
import sys

import pytest

import modern_di_replicas.__main__
from modern_di_replicas import demo
from modern_di_replicas.__main__ import main
from modern_di_replicas.demo import command


@pytest.mark.parametrize("arguments", [[], ["dance"]])
def test_an_unknown_command_is_answered_with_the_list_of_commands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is that of a usage error."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "usage: python -m modern_di_replicas" in errors
    assert "demo" in errors


@pytest.mark.parametrize("port", ["none", "-1", "65536"])
def test_an_invalid_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before anything starts."""
    with pytest.raises(SystemExit) as caught:
        main(["demo", f"--port={port}"])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["demo"], {"serve": False, "tour": False, "port": 0}),
        (["demo", "--tour"], {"serve": False, "tour": True, "port": 0}),
        (["demo", "--serve", "--port", "8000"], {"serve": True, "tour": False, "port": 8000}),
    ],
)
def test_the_options_reach_the_demo(
    arguments: list[str], options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is the demo's."""
    given: list[dict[str, object]] = []

    def run(**options: object) -> int:
        given.append(options)
        return 7

    monkeypatch.setattr(command, "run", run)
    assert main(arguments) == 7
    assert given == [options]


def test_without_its_extra_the_demo_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the extra."""
    monkeypatch.delattr(demo, "command")
    for module in ("command", "server"):
        monkeypatch.delitem(sys.modules, f"modern_di_replicas.demo.{module}")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "The demo needs 'uvicorn': pip install 'modern-di-replicas[demo]'\n"


def test_the_remedy_is_the_same_for_a_missing_indirect_import() -> None:
    """A new interpreter without psutil, which the cluster needs, prints the remedy and no traceback."""
    script = (
        "import sys; sys.modules['psutil'] = None; from modern_di_replicas.__main__ import main; "
        "sys.exit(main(['demo']))"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)  # noqa: S603
    assert process.returncode == 1
    assert process.stderr == "The demo needs 'psutil': pip install 'modern-di-replicas[demo]'\n"


def test_a_missing_module_that_is_not_of_the_extra_is_an_ordinary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy would not apply, and would hide a bug."""
    monkeypatch.delattr(demo, "command")
    monkeypatch.setitem(sys.modules, "modern_di_replicas.demo.command", None)
    with pytest.raises(ModuleNotFoundError, match="demo"):
        main(["demo"])


def test_the_module_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m modern_di_replicas` ends with the status of the command."""
    monkeypatch.setattr(sys, "argv", ["modern_di_replicas", "demo"])
    monkeypatch.setattr(command, "run", lambda **_: 7)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(modern_di_replicas.__main__.__file__), run_name="__main__")
    assert caught.value.code == 7
