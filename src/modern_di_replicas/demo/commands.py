"""The commands of `demo --serve`: run a typed line, and print the answer."""

import collections.abc
import typing

from modern_di_replicas.demo.faults import MEANINGS, Faults, NotPossibleError
from modern_di_replicas.demo.live.picture import ServerPicture
from modern_di_replicas.errors import ReplicasError


class CommandView(typing.Protocol):
    """Shows the answers."""

    def show_commands(self) -> None: ...
    def show_servers(self, servers: collections.abc.Iterable[ServerPicture]) -> None: ...
    def show_done(self, words: str) -> None: ...
    def show_refusal(self, words: str) -> None: ...


class Commands:
    """Runs commands, one after the other.

    Args:
        faults: breaks and repairs servers.
        view: shows the answers.
        servers: returns the state of the servers.

    """

    def __init__(
        self,
        faults: Faults,
        view: CommandView,
        *,
        servers: collections.abc.Callable[[], collections.abc.Iterable[ServerPicture]],
    ) -> None:
        self._faults = faults
        self._view = view
        self._listings: dict[str, collections.abc.Callable[[], None]] = {
            "help": view.show_commands,
            "servers": lambda: view.show_servers(servers()),
        }

    async def execute(self, line: str) -> None:
        """Run one line; the answer to an invalid line lists the valid ones."""
        word, *names = line.lower().split() or [""]
        if not word:
            return
        if not names and word in self._listings:
            self._listings[word]()
            return
        try:
            name = self._server(line, word, names)
            await self._faults.commit(word, name)
        except (NotPossibleError, ReplicasError) as error:
            self._view.show_refusal(str(error))
        else:
            self._view.show_done(f"{word} {name}: done")

    def _server(self, line: str, word: str, names: collections.abc.Sequence[str]) -> str:
        """Return the named server; without a name, the only one for which the command is possible."""
        if word not in MEANINGS or len(names) > 1:
            msg = f"{line.strip()!r} is not a command: try {', '.join([*MEANINGS, *self._listings])}"
            raise NotPossibleError(msg)
        if names:
            return names[0]
        candidates = self._faults.candidates(word)
        if len(candidates) != 1:
            which = f"which server? {word} {' | '.join(candidates)}" if candidates else f"no server to {word} now"
            raise NotPossibleError(which)
        return candidates[0]
