"""The operating system's state of a connection."""

import select
import socket

import pytest

from modern_di_replicas.cluster.pools.sockets import Idle, IdleSocket, leave_to_parent, limit_silence


def test_a_concurrent_read_of_the_received_bytes_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT: between the two calls another thread's event loop may read the received bytes."""

    class Poll:
        def register(self, *_: object) -> None:
            """Accept any descriptor."""

        def poll(self, _: int) -> list[tuple[int, int]]:
            return [(0, select.POLLIN)]

    monkeypatch.setattr("modern_di_replicas.cluster.pools.sockets.select.poll", Poll)
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        assert IdleSocket(here.fileno()).check() is Idle.QUIET


def test_options_missing_in_the_operating_system_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems have no TCP_USER_TIMEOUT; the other options are still set."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        limit_silence(here.fileno(), seconds=3.0)
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3


def test_an_inherited_socket_is_replaced_by_one_that_has_ended() -> None:
    """INVARIANT: nothing that a child sends reaches the server of its parent, and reads return at once."""
    here, there = socket.socketpair()
    with here, there:
        parents = here.dup()
        leave_to_parent([here.fileno()])
        assert here.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            here.send(b"ROLLBACK")
        with parents:
            parents.send(b"COMMIT")
            assert there.recv(16) == b"COMMIT"
