"""Further sessions of one unit of work: one per thread."""

import concurrent.futures

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from modern_di_replicas import ConfigurationError, Intent, ReplicationSettings, current_token
from modern_di_replicas.sync import RoutedSession, SessionFactory, unit_of_work
from tests.sync.test_dependencies import IN_RECOVERY, container_of


def test_the_sessions_of_a_unit_of_work_share_its_server(shop: ReplicationSettings) -> None:
    """Those in other threads read from the same replica, and start on the primary after an escalation."""
    with container_of(shop) as container, unit_of_work(container, intent=Intent.read()) as unit:
        sessions = unit.resolve(SessionFactory)
        first = unit.resolve(RoutedSession)
        first.scalar(IN_RECOVERY)
        client = current_token()

        def in_thread(end: str) -> tuple[str, bool | None]:
            with sessions.in_thread() as session:
                if end:
                    session.execute(text("UPDATE account SET balance = balance"))
                    getattr(session, end)()
                return session.decision.server, session.scalar(IN_RECOVERY)

        with concurrent.futures.ThreadPoolExecutor(4) as executor:
            assert set(executor.map(in_thread, [""] * 8)) == {(first.decision.server, True)}
            assert executor.submit(in_thread, "rollback").result() == ("primary", False)
            assert executor.submit(in_thread, "").result() == ("primary", False)
            assert first.scalar(IN_RECOVERY), "one that is open stays where it is"
            executor.submit(in_thread, "commit").result()
        assert not first.scalar(IN_RECOVERY), "without a monitor, only the primary is known to have what was committed"
        assert current_token() != client, "what was committed in the thread is known to this unit of work"
        left_open = sessions(autoflush=False)
        assert not left_open.autoflush
        assert sessions.has_open
    assert not sessions.has_open


def test_without_a_routed_session_it_is_refused() -> None:
    """Further sessions of an unrouted class could not be routed."""
    with pytest.raises(ConfigurationError, match="RoutedSession"):
        SessionFactory(Session())
