import logging

import pytest

from modern_di_replicas import Cause, Decision
from modern_di_replicas.observability import Decided, Ejected, Escalated, LoggingHook, SnapshotPublished


DECIDED = Decided(decision=Decision(server="a", cause=Cause.REPLICA, reason="GET"), endpoint="shop.show")


def test_a_record_has_the_fields_of_its_event(caplog: pytest.LogCaptureFixture) -> None:
    """In its text, and as `record.replicas` for structured logs."""
    with caplog.at_level(logging.DEBUG, "modern_di_replicas.events"):
        LoggingHook().on_event(DECIDED)
    (record,) = caplog.records
    assert record.message == "Decided server=a cause=replica reason=GET endpoint=shop.show"
    assert vars(record)["replicas"] == {"server": "a", "cause": "replica", "reason": "GET", "endpoint": "shop.show"}


def test_changes_of_servers_are_warnings_and_units_of_work_are_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """At the default level the log contains what an operator acts on."""
    logger = logging.getLogger("somewhere")
    hook = LoggingHook(logger)
    with caplog.at_level(logging.INFO, "somewhere"):
        hook.on_event(DECIDED)
        hook.on_event(Ejected(server="a", by="probe"))
        hook.on_event(Escalated(server="a", cause=Cause.WROTE, reason="UPDATE", endpoint="shop.show"))
    assert [(record.levelname, record.message.split()[0]) for record in caplog.records] == [
        ("WARNING", "Ejected"),
        ("INFO", "Escalated"),
    ]


def test_snapshots_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There are several per second with few differences."""
    with caplog.at_level(logging.DEBUG, "modern_di_replicas.events"):
        LoggingHook().on_event(SnapshotPublished(snapshot=None))
    assert caplog.records == []
