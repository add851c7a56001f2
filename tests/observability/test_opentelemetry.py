import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from modern_di_replicas import Cause, ConfigurationError, Decision
from modern_di_replicas.observability import (
    CaughtUp,
    Decided,
    Ejected,
    Escalated,
    OpenTelemetryHook,
    PrimaryChanged,
    ReadRefused,
    ReRun,
)


DECIDED = Decided(decision=Decision(server="a", cause=Cause.REPLICA, reason="GET"))


def test_the_current_span_says_where_a_unit_of_work_runs_and_why() -> None:
    """An escalation overwrites the attributes and adds an event."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hook = OpenTelemetryHook(tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("GET /users"):
        hook.on_event(DECIDED)
        hook.on_event(CaughtUp(server=None, seconds=0.1))
        hook.on_event(Escalated(server="a", cause=Cause.WROTE, reason="UPDATE"))
        hook.on_event(PrimaryChanged(former="b", primary="a"))
        hook.on_event(ReadRefused(by="primary_reads"))
        hook.on_event(Ejected(server="a", by="probe"))
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {
        "db.replicas.server": "primary",
        "db.replicas.cause": "wrote",
        "db.replicas.reason": "UPDATE",
    }
    assert [(one.name, dict(one.attributes or {})) for one in span.events] == [
        ("waited for a replica", {"db.replicas.server": "primary", "db.replicas.seconds": 0.1}),
        ("escalated", {"db.replicas.server": "a", "db.replicas.cause": "wrote", "db.replicas.reason": "UPDATE"}),
        ("primary changed", {"db.replicas.former": "b", "db.replicas.primary": "a"}),
        ("read refused", {"db.replicas.by": "primary_reads"}),
    ]


@pytest.mark.parametrize(("succeeded", "status"), [(True, StatusCode.UNSET), (False, StatusCode.ERROR)])
def test_a_rerun_is_a_separate_span(succeeded: bool, status: StatusCode) -> None:
    """It has the duration of the re-run, as a child of the request's span."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hook = OpenTelemetryHook(tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("GET /users"):
        hook.on_event(
            ReRun(
                server="a",
                again_on="primary",
                cause=Cause.REPLICA_FAILED,
                error="DBAPIError",
                seconds=2.0,
                succeeded=succeeded,
            )
        )
    rerun, request = exporter.get_finished_spans()
    assert rerun.parent is not None
    assert rerun.parent.span_id == request.context.span_id
    assert (rerun.end_time or 0) - (rerun.start_time or 0) == pytest.approx(2e9)
    assert rerun.status.status_code is status
    assert (rerun.attributes or {})["db.replicas.cause"] == "replica_failed"


def test_without_a_span_nothing_happens() -> None:
    """For example in a job without tracing."""
    OpenTelemetryHook().on_event(DECIDED)


def test_without_its_extra_the_hook_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its construction, not at the first event."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError) as caught:
        OpenTelemetryHook()
    assert "modern-di-replicas[opentelemetry]" in caught.value.remedy
