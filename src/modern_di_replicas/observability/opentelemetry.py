"""Traces for OpenTelemetry. The extra `opentelemetry` brings its API, which is imported when the hook is made."""

import time
import typing

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.observability.events import CaughtUp, Decided, Escalated, PrimaryChanged, ReadRefused, ReRun
from modern_di_replicas.observability.hook import Event


if typing.TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


PREFIX: typing.Final = "db.replicas"
"""The prefix of attribute names."""


class OpenTelemetryHook:
    """Adds the server of a unit of work, and the reason, to traces.

    The current span when a server is chosen, usually that of the request, gets `db.replicas.server`,
    `db.replicas.cause` and `db.replicas.reason`, and an event when the unit of work leaves its replica. A statement
    that is run again has its own span, beside the driver's.

    Args:
        tracer_provider: creates the spans; default: the global one.

    Raises:
        ConfigurationError: `opentelemetry-api` is not installed.

    """

    def __init__(self, *, tracer_provider: "TracerProvider | None" = None) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415  # an optional part
        except ModuleNotFoundError:
            raise ConfigurationError(
                field="hooks", value="OpenTelemetryHook", remedy="pip install 'modern-di-replicas[opentelemetry]'"
            ) from None
        self._trace = trace
        self._tracer = trace.get_tracer("modern_di_replicas", tracer_provider=tracer_provider)

    def on_event(self, event: Event, /) -> None:
        """Add an event to the trace."""
        if isinstance(event, Decided):
            decision = event.decision
            self._note(server=decision.server, cause=decision.cause.value, reason=decision.reason)
        elif isinstance(event, Escalated):
            self._note(server="primary", cause=event.cause.value, reason=event.reason)
            self._add("escalated", server=event.server, cause=event.cause.value, reason=event.reason)
        elif isinstance(event, ReadRefused):
            self._add("read refused", by=event.by)
        elif isinstance(event, CaughtUp):
            self._add("waited for a replica", server=event.server or "primary", seconds=event.seconds)
        elif isinstance(event, PrimaryChanged):
            self._add("primary changed", former=event.former, primary=event.primary)
        elif isinstance(event, ReRun):
            self._re_run(event)

    def _note(self, **values: str) -> None:
        span = self._trace.get_current_span()
        if span.is_recording():
            span.set_attributes(_named(values))

    def _add(self, name: str, **values: str | float) -> None:
        self._trace.get_current_span().add_event(name, _named(values))

    def _re_run(self, event: ReRun) -> None:
        ended_at = time.time_ns()
        span = self._tracer.start_span(
            "statement run again",
            start_time=ended_at - int(event.seconds * 1e9),
            attributes=_named(
                {
                    "failed_on": event.server,
                    "server": event.again_on,
                    "cause": event.cause.value,
                    "error": event.error,
                }
            ),
        )
        if not event.succeeded:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(ended_at)


def _named(values: dict[str, typing.Any]) -> dict[str, typing.Any]:
    return {f"{PREFIX}.{name}": value for name, value in values.items()}
