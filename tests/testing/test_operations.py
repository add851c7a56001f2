"""Operations of a test cluster's server, independent of where it runs: waits and errors; the server is a stand-in."""

import threading
import typing

import pytest

from modern_di_replicas.errors import ServerFailedError
from modern_di_replicas.testing import operations
from modern_di_replicas.testing.operations import RECOVERY_CONFLICT, Server, StopMode


class Stub(Server):
    """Returns prepared answers, and records its calls."""

    name, host, port, _password = "replica-1", "127.0.0.1", 5432, "s3cret"

    def __init__(self, **answers: str | ServerFailedError) -> None:
        self._lock = threading.RLock()
        self._answers = answers
        self.done: list[str] = []

    def is_running(self) -> bool:
        return True

    def is_frozen(self) -> bool:
        return False

    def start(self) -> None:
        self.done.append("start")

    def stop(self, mode: StopMode = "fast") -> None:
        self.done.append(f"stop {mode}")

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def log(self) -> str:
        return "the log"

    def _act(self, sql: str, action: str, *, timeout: float = 0) -> str:  # noqa: ARG002  # as the real ones have it
        self.done.append(sql)
        answer = next((given for part, given in self._answers.items() if part in sql), "")
        if isinstance(answer, ServerFailedError):
            raise answer
        return answer


def failure(output: str) -> ServerFailedError:
    return ServerFailedError(server="replica-1", action="execute the SQL", output=output)


def test_its_addresses_have_the_password() -> None:
    """One URL for SQLAlchemy, one for the driver and psql."""
    assert Stub().url == "postgresql+asyncpg://postgres:s3cret@127.0.0.1:5432/postgres"
    assert Stub().dsn == "postgresql://postgres:s3cret@127.0.0.1:5432/postgres"


def test_a_restart_is_a_stop_in_order_and_a_start() -> None:
    """On the same port."""
    server = Stub()
    server.restart()
    assert server.done == ["stop fast", "start"]


def test_a_pause_of_the_replay_waits_until_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL first only records the request; a timeout is an error with the server's log."""
    Stub(pg_get_wal_replay_pause_state="t").pause_replay()
    monkeypatch.setattr(operations, "REPLAY_SECONDS", 0.01)
    with pytest.raises(ServerFailedError, match="pause the replay within") as caught:
        Stub(pg_get_wal_replay_pause_state="f").pause_replay()
    assert caught.value.output == "the log"


@pytest.mark.parametrize(("output", "is_error"), [(f"canceling: {RECOVERY_CONFLICT}", False), ("not a standby", True)])
def test_a_resumed_replay_may_cancel_the_statement_that_resumed_it(output: str, is_error: bool) -> None:
    """The replay has been resumed then."""
    server = Stub(pg_wal_replay_resume=failure(output))
    if is_error:
        with pytest.raises(ServerFailedError):
            server.resume_replay()
    else:
        server.resume_replay()


def test_a_promotion_waits_until_the_server_accepts_writes() -> None:
    """A server that is already a primary is not promoted again."""
    primary = Stub(pg_is_in_recovery="f")
    primary.promote()
    assert primary.done == ["SELECT pg_is_in_recovery()"]

    class Promoted(Stub):
        def _act(self, sql: str, action: str, *, timeout: float = 0) -> str:
            super()._act(sql, action, timeout=timeout)
            return "f" if "SELECT pg_promote(false)" in self.done else "t"

    replica = Promoted()
    replica.promote()
    assert replica.done[1] == "SELECT pg_promote(false)"


@pytest.mark.parametrize(("names", "streams"), [(["a"], True), (["a", "b"], True), (["c"], False)])
def test_it_waits_for_the_given_standbys(names: list[str], streams: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other standbys may be streaming as well."""
    monkeypatch.setattr(operations, "STREAMING_SECONDS", 0.01)
    server = Stub(pg_stat_replication="a\nb")
    if streams:
        server.wait_for_streaming(names)
    else:
        with pytest.raises(ServerFailedError, match="stream to c"):
            server.wait_for_streaming(names)


def test_sql_is_given_to_the_server_as_it_is() -> None:
    """Its result is returned."""
    server = Stub(answer="42")
    assert typing.cast(Server, server).execute("SELECT answer", timeout=1) == "42"
