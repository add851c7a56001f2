"""Which tokens of clients are accepted, and which token a client gets; the positions of the servers are synthetic."""

import dataclasses
import time
import typing

import pytest

from modern_di_replicas import ConsistencyToken, ReplicationSettings
from modern_di_replicas.cluster.topology import Topology
from modern_di_replicas.consistency.client import Client
from modern_di_replicas.consistency.serializer import Rejection
from modern_di_replicas.consistency.wal import LAST_LSN
from modern_di_replicas.observability import TokenReceived, TokenSent
from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.tokens.validation import MAX_TEXTS, Tokens
from tests.observability.recorder import Recorder
from tests.unconnected import URL, engines


WRITTEN = 100
LEADER = Observation(
    at=1.0, in_recovery=False, lsn=WRITTEN, written=WRITTEN, timeline=1, system=7, database="shop", answered=1.0
)
NOW = int(time.time())
TOKEN = ConsistencyToken(lsn=WRITTEN, timeline=1, database=LEADER.identity, issued_at=NOW)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a new token, because the tests may run long after this file is imported."""
    monkeypatch.setattr(time, "time", lambda: NOW)


class Watcher:
    """Asks a primary that has written nothing more, or does not answer."""

    timeout = 1.0

    def __init__(self, topology: Topology, *, answers: bool = True) -> None:
        self._topology = topology
        self._answers = answers

    async def probe_now(self, name: str) -> None:  # noqa: ARG002  # there is one
        if self._answers:
            self._topology.positions.follow(dataclasses.replace(LEADER, at=time.monotonic()))

    async def primary_answers(self) -> bool:
        await self.probe_now("db-1")
        return self._answers


def tokens(*, answers: bool | None = True, **options: typing.Any) -> tuple[Tokens, Recorder]:
    """Return an object that validates tokens, with a known primary; `answers=None` means that no monitor runs."""
    recorder = Recorder()
    _, replica = engines("db-2", hooks=[recorder], **options)
    topology = replica.topology
    topology.positions.follow(LEADER)
    if answers is not None:
        topology.watcher = Watcher(topology, answers=answers)
    return Tokens(replica.settings, topology), recorder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lsn": WRITTEN + 1}, "ahead"),
        ({"timeline": 2}, "ahead"),
        ({"issued_at": 1}, "expired"),
        ({"database": "0" * 16}, "foreign"),
    ],
)
async def test_a_token_that_is_not_believed_is_counted_by_its_reason(
    change: dict[str, typing.Any], reason: Rejection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hooks are informed; the request is served without a token."""
    service, recorder = tokens()
    topology = typing.cast(typing.Any, service)._topology  # noqa: SLF001  # whose primary answers
    monkeypatch.setattr(type(topology), "leader", "db-1")
    assert await service.admit([str(dataclasses.replace(TOKEN, **change))]) is None
    assert service.rejected == {reason: 1}
    assert [event.outcome for event in recorder.of(TokenReceived)] == [reason]


async def test_of_several_texts_the_latest_valid_one_counts() -> None:
    """A cookie of the same name may be set for a parent domain; a larger number is an attack."""
    service, recorder = tokens()
    older = str(dataclasses.replace(TOKEN, lsn=WRITTEN - 1))
    assert await service.admit(["nonsense", older, str(TOKEN), older]) == TOKEN
    assert service.rejected == {"malformed": 1}
    assert await service.admit([str(n) for n in range(MAX_TEXTS + 1)]) is None
    assert service.rejected == {"malformed": 1, "duplicated": 1}
    assert await service.admit([]) is None
    assert [event.outcome for event in recorder.of(TokenReceived)] == ["malformed", "accepted", "duplicated"]


async def test_a_signed_token_is_not_compared_with_the_primarys_position() -> None:
    """The application has issued it, so the servers need not be asked."""
    service, _ = tokens(token_secret="of the test")
    ahead = dataclasses.replace(TOKEN, lsn=WRITTEN + 1)
    assert not service.asks_servers
    assert await service.admit([service.encode(ahead)]) == ahead
    assert tokens()[0].asks_servers
    assert not Tokens(ReplicationSettings(primary=URL.format("db-1"))).asks_servers


async def test_a_token_of_everything_becomes_the_current_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was issued when the primary's position was unknown; now it is known."""
    service, _ = tokens()
    monkeypatch.setattr(Topology, "leader", "db-1")
    assert await service.admit([str(dataclasses.replace(TOKEN, lsn=LAST_LSN))]) == TOKEN


async def test_without_servers_a_token_is_only_read() -> None:
    """As in a script that passes a token on."""
    service = Tokens(ReplicationSettings(primary=URL.format("db-1")))
    ahead = dataclasses.replace(TOKEN, lsn=LAST_LSN)
    assert await service.admit([str(ahead)]) == ahead
    assert service.decode(str(dataclasses.replace(TOKEN, issued_at=1)), expires=False) is not None
    assert service.everything() is None
    assert await service.now() is None


async def test_a_client_that_has_written_gets_the_position_of_the_last_write() -> None:
    """An unknown position is asked from the primary; if it does not answer, the token requires everything."""
    for answers, in_doubt, lsn in ((True, False, WRITTEN), (False, False, LAST_LSN), (True, True, LAST_LSN)):
        service, _ = tokens(answers=answers)
        client = Client(is_request=True)
        write = client.begin_write()
        if not in_doubt:
            write.committed()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Topology, "leader", "db-1")
            token = await service.of(client)
        assert token is not None
        assert token.lsn == lsn
    known = Client(is_request=True, token=TOKEN)
    assert await service.of(known) == TOKEN


def test_tokens_of_responses_are_reported() -> None:
    """A late token is counted: its client did not get it."""
    service, recorder = tokens()
    service.note_sent()
    service.note_too_late()
    assert service.too_late == 1
    assert [event.outcome for event in recorder.of(TokenSent)] == ["sent", "too_late"]
