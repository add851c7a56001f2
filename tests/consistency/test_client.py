import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modern_di_replicas.consistency.client import DOUBT_SECONDS, SESSIONS, Client, Write
from modern_di_replicas.consistency.token import ConsistencyToken


def token(position: tuple[int, int], *, database: str = "0" * 16) -> ConsistencyToken:
    return ConsistencyToken(timeline=position[0], lsn=position[1], database=database, issued_at=0)


class Writes(RuleBasedStateMachine):
    """Writes of one client that overlap, are answered in any order, are lost, or never answered."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Client()
        self.primary = (1, 1)
        self.sent: list[Write] = []
        self.committed: dict[Write, tuple[int, int]] = {}
        self.asked: dict[Write, tuple[int, int]] = {}
        self.latest = (0, 0)

    @rule()
    def send(self) -> None:
        self.sent.append(self.client.begin_write())

    @rule()
    def promote(self) -> None:
        self.primary = (self.primary[0] + 1, self.primary[1])

    @rule(index=st.integers(min_value=0), size=st.integers(1, 9))
    def commit(self, index: int, size: int) -> None:
        if self.sent:
            write = self.sent.pop(index % len(self.sent))
            self.primary = (self.primary[0], self.primary[1] + size)
            self.committed[write] = self.primary
            write.committed()
            self.asked[write] = self.primary

    @rule(index=st.integers(min_value=0))
    def refuse(self, index: int) -> None:
        if self.sent:
            self.sent.pop(index % len(self.sent)).did_not_happen()

    @rule(index=st.integers(min_value=0))
    def answer(self, index: int) -> None:
        if self.asked:
            write = list(self.asked)[index % len(self.asked)]
            position = self.asked.pop(write)
            write.known(token(position))
            for other in [one for one, where in self.committed.items() if where <= position]:
                del self.committed[other]

    @rule()
    def report_to(self) -> None:
        self.client.note_response()
        assert not self.client.wrote

    @invariant()
    def the_position_never_goes_back(self) -> None:
        known = self.client.token
        position = (0, 0) if known is None else (known.timeline, known.lsn)
        assert position >= self.latest
        self.latest = position

    @invariant()
    def what_may_be_committed_is_included_or_unknown(self) -> None:
        known = self.client.token
        position = (0, 0) if known is None else (known.timeline, known.lsn)
        may_be_missing = bool(self.sent) or any(where > position for where in self.committed.values())
        assert self.client.position_unknown or not may_be_missing
        assert self.client.is_in_doubt is bool(self.sent)


TestWrites = Writes.TestCase
TestWrites.settings = hypothesis.settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_two_commits_that_are_answered_in_the_other_order_leave_the_later_position() -> None:
    """The client wrote 601 and 602, and reads both."""
    client = Client()
    first, second = client.begin_write(), client.begin_write()
    first.committed()
    second.committed()
    second.known(token((1, 602)))
    first.known(token((1, 601)))

    assert client.token == token((1, 602))
    assert not client.position_unknown


def test_a_commit_without_an_answer_is_settled_by_a_later_position_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long-running job does not keep the unknown position forever; a request ends before that."""
    client, now = Client(), 0.0
    monkeypatch.setattr("modern_di_replicas.consistency.client.time.monotonic", lambda: now)
    client.begin_write()
    client.written(token((1, 5)))
    assert client.position_unknown

    now = DOUBT_SECONDS + 1
    client.written(token((1, 6)))
    assert not client.position_unknown


def test_a_reported_write_is_not_reported_again_with_its_position() -> None:
    """The response already required a read of the primary."""
    client = Client()
    write = client.begin_write()
    assert client.wrote
    client.note_response()
    write.committed()
    write.known(token((1, 5)))
    assert not client.wrote


def test_another_database_has_its_own_positions() -> None:
    """The cluster was replaced: the token of the old one would always be later."""
    client = Client(token=token((3, 900)))
    client.written(token((1, 5), database="1" * 16))
    assert client.token == token((1, 5), database="1" * 16)


class Session:
    """A session of a client."""

    def __init__(self, new: int = 0) -> None:
        self.new = [object()] * new
        self.dirty = self.deleted = ()


def test_sessions_that_have_ended_are_forgotten() -> None:
    """A long-running job opens many; one that is still open and may commit is not forgotten."""
    client = Client()
    still_open = Session(new=1)
    client.note_session(still_open, declares_write=False)
    for _ in range(2 * SESSIONS):
        client.note_session(Session(), declares_write=False)
    assert len(client._sessions) <= SESSIONS  # noqa: SLF001  # no behaviour shows it
    assert client.has_more_to_commit
    del still_open
    assert not client.has_more_to_commit
