"""Commands typed while the demo serves."""

import collections.abc
import typing

import pytest

from modern_di_replicas.demo.commands import Commands
from modern_di_replicas.demo.faults import Faults
from modern_di_replicas.demo.live.picture import ServerPicture
from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing import LocalCluster


class Listener:
    """Records messages."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def show_commands(self) -> None:
        self.said.append(("commands", ""))

    def show_servers(self, servers: collections.abc.Iterable[ServerPicture]) -> None:
        self.said.append(("servers", " ".join(server.name for server in servers)))

    def show_done(self, words: str) -> None:
        self.said.append(("done", words))

    def show_refusal(self, words: str) -> None:
        self.said.append(("refusal", words))


class FakeFaults(Faults):
    """Does nothing to servers: every fault is possible on `frozen`, and none elsewhere."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def candidates(self, fault: str) -> list[str]:
        return {"thaw": ["frozen"], "freeze": ["one", "two"]}.get(fault, [])

    async def commit(self, fault: str, name: str) -> None:
        if name == "broken":
            raise ServerFailedError(server=name, action=fault, output="no")
        self.done.append((fault, name))


async def answer(line: str, faults: Faults | None = None) -> tuple[str, str]:
    listener = Listener()
    server = typing.cast(ServerPicture, type("Named", (), {"name": "primary"}))
    await Commands(faults or FakeFaults(), listener, servers=lambda: [server]).execute(line)
    assert len(listener.said) == (1 if line.strip() else 0)
    return listener.said[0] if listener.said else ("", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("help\n", ("commands", "")),
        ("servers", ("servers", "primary")),
        ("  \n", ("", "")),
        ("thaw", ("done", "thaw frozen: done")),
        ("  Crash   Replica-1 \n", ("done", "crash replica-1: done")),
        ("freeze", ("refusal", "which server? freeze one | two")),
        ("start", ("refusal", "no server to start now")),
        (
            "burn it",
            (
                "refusal",
                "'burn it' is not a command: try freeze, thaw, crash, start, lag, resume, promote, help, servers",
            ),
        ),
    ],
)
async def test_each_line_has_one_answer(line: str, said: tuple[str, str]) -> None:
    """Without a server name, the only possible server is used; the answer to wrong input lists the possibilities."""
    assert await answer(line) == said


@pytest.mark.parametrize("line", ["help me", "crash one two"])
async def test_a_line_with_too_many_words_is_not_a_command(line: str) -> None:
    """No part of it is executed."""
    faults = FakeFaults()
    kind, words = await answer(line, faults)
    assert (kind, faults.done) == ("refusal", [])
    assert words.startswith(f"'{line}' is not a command")


async def test_a_failed_fault_is_an_answer_too() -> None:
    """The demo continues."""
    kind, words = await answer("crash broken")
    assert kind == "refusal"
    assert words.startswith("The server 'broken' failed to crash")


async def test_a_fault_that_a_servers_state_forbids_is_refused(replicated_cluster: LocalCluster) -> None:
    """The refusal is that of `Faults`."""
    kind, words = await answer("start replica-1", Faults(replicated_cluster))
    assert (kind, words) == ("refusal", "replica-1 is running: freeze, crash, lag, promote is possible there")
