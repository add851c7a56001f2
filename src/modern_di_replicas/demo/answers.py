"""The answers of `demo --serve` to typed commands, in ASCII and 80 columns."""

import collections.abc
import typing

from rich.console import Console
from rich.text import Text

from modern_di_replicas.demo.faults import MEANINGS
from modern_di_replicas.demo.live.picture import ServerPicture
from modern_di_replicas.demo.rows import Column, print_header, print_row


SERVERS: typing.Final = (
    Column(title="server", width=10),
    Column(title="port", width=5),
    Column(title="it is", width=11),
    Column(title="seen as", width=11),
    Column(title="reads", width=5),
    Column(title="lag", width=8),
    Column(title="in use", width=6),
    Column(title="answered"),
)


class Answers:
    """Prints the answers.

    Args:
        console: where to print.

    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def show_invitation(self, url: str) -> None:
        """Print how to break servers."""
        self._say("\n  Clients send requests all the time. Break servers under them, in a browser:\n", style="dim")
        self._say(f"{url}/", style="bold")
        self._say("\n  or here, by typing a command:\n", style="dim")
        self.show_commands()

    def show_commands(self) -> None:
        """Print the commands."""
        for fault, meaning in MEANINGS.items():
            self._command(f"{fault} replica-1", meaning)
        self._command("servers", "how the application sees its servers now")
        self._command("help", "this list")

    def show_servers(self, servers: collections.abc.Iterable[ServerPicture]) -> None:
        """Print the state of the servers."""
        print_header(self._console, SERVERS)
        for server in servers:
            cells = [
                server.name,
                str(server.port),
                server.state,
                server.role if server.up else "down",
                "yes" if server.serves_reads else "no",
                "-" if server.lag_seconds is None else f"{server.lag_seconds:.2f} s",
                str(server.in_use),
                str(server.answered),
            ]
            print_row(self._console, SERVERS, cells, style="" if server.up else "red")

    def show_done(self, words: str) -> None:
        self._say(f"  {words}", style="green")

    def show_refusal(self, words: str) -> None:
        self._say(f"  {words}", style="red")

    def _command(self, command: str, meaning: str) -> None:
        self._say(f"    {command:<18} {meaning}")

    def _say(self, words: str, *, style: str = "") -> None:
        self._console.print(Text(words, style=style), soft_wrap=True)
