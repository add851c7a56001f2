"""Follow a tutorial exactly: its commands in order, in an empty folder, with a wheel in place of the package's name.

Run by `make release-check`: python .ci/tutorial_check.py docs/tutorial.md dist/modern_di_replicas-*.whl
"""

import collections.abc
import contextlib
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import typing


BLOCK: typing.Final = re.compile(r"^```(python|shell|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE: typing.Final = re.compile(r"# (\w+\.py)(, continued)?\n")
PORT: typing.Final = "8000"
OWN_SERVERS: typing.Final = "@db-1/"
"""In commands for servers that a reader would have."""
SECONDS: typing.Final = 60


class Tutorial:
    """The folder of a reader who follows the tutorial, and the deviations from the page."""

    def __init__(self, folder: pathlib.Path, wheel: pathlib.Path) -> None:
        self._folder = folder
        self._state = folder / "where-it-is-now"
        self._is_served = False
        self._wheel = str(wheel.absolute())
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        self.problems: list[str] = []

    def follow(self, page: str) -> None:
        """Follow each block of the page."""
        with contextlib.ExitStack() as running:
            for kind, text in BLOCK.findall(page):
                if kind == "shell" and OWN_SERVERS not in text:
                    self._run(text)
                elif kind == "console":
                    self._compare(text, running)
                elif found := FILE.match(text):
                    self._write(found[1], text, continued=bool(found[2]))

    def _write(self, name: str, text: str, *, continued: bool) -> None:
        with (self._folder / name).open("a" if continued else "w") as file:
            file.write(text.replace(PORT, self._port))

    def _compare(self, text: str, running: contextlib.ExitStack) -> None:
        """Run the commands of a block, and compare their output with the page."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, expected = part.split("\n", 1)
            if command.startswith("curl") and not self._is_served:
                running.enter_context(self._serving())
                self._is_served = True
            printed = self._run(command)
            if not expected:
                continue
            # A replica that has not caught up leaves a read to the primary.
            shown = {expected.strip(), expected.strip().replace("a replica", "the primary")}
            if printed.strip() not in (shown if command.startswith("curl") else {expected.strip()}):
                self.problems.append(f"{command} printed {printed!r}")

    @contextlib.contextmanager
    def _serving(self) -> collections.abc.Iterator[None]:
        with subprocess.Popen(
            [".venv/bin/python", "serve.py"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                until = time.monotonic() + SECONDS
                while not self._answers() and server.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)
                yield
            finally:
                server.send_signal(signal.SIGINT)
                _, log = server.communicate(timeout=SECONDS)
                if "Error" in log:
                    self.problems.append(f"serve.py logged {log[-1000:]}")

    def _answers(self) -> bool:
        with socket.socket() as client:
            return not client.connect_ex(("127.0.0.1", int(self._port)))

    def _run(self, command: str) -> str:
        command = command.replace("modern-di-replicas[", f"{self._wheel}[").replace(f":{PORT}", f":{self._port}")
        script = f"set -e; [ ! -d .venv ] || . .venv/bin/activate\n{command}\npwd >{shlex.quote(str(self._state))}"
        done = subprocess.run(  # noqa: S603  # our own page
            ["bash", "-c", script],  # noqa: S607  # wherever it is
            cwd=self._folder,
            env={**self._environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"$ {command.strip()}\n{done.stdout.strip()[-500:]}")  # noqa: T201  # it is a command
        if done.returncode:
            self.problems.append(f"{command.strip()} failed: {(done.stderr or done.stdout)[-2000:]}")
        else:
            self._folder = pathlib.Path(self._state.read_text().strip())
        return done.stdout


def main(page: str, wheel: str) -> int:
    """Print each command, and return the number of problems."""
    with tempfile.TemporaryDirectory() as folder:
        tutorial = Tutorial(pathlib.Path(folder), pathlib.Path(wheel))
        tutorial.follow(pathlib.Path(page).read_text())
    for problem in tutorial.problems:
        print(f"PROBLEM: {problem}")  # noqa: T201
    return len(tutorial.problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
