"""Events of the library for hooks: `ReplicationSettings(hooks=[...])`."""

from modern_di_replicas.observability.events import (
    CaughtUp,
    Decided,
    Ejected,
    Escalated,
    PoolUse,
    PrimaryChanged,
    ReadRefused,
    ReRun,
    Returned,
    Shadowed,
    ShadowWrote,
    SnapshotPublished,
    TokenReceived,
    TokenSent,
)
from modern_di_replicas.observability.hook import Event, Hook
from modern_di_replicas.observability.logging import LoggingHook
from modern_di_replicas.observability.opentelemetry import OpenTelemetryHook
from modern_di_replicas.observability.prometheus import PrometheusHook


__all__ = [
    "CaughtUp",
    "Decided",
    "Ejected",
    "Escalated",
    "Event",
    "Hook",
    "LoggingHook",
    "OpenTelemetryHook",
    "PoolUse",
    "PrimaryChanged",
    "PrometheusHook",
    "ReRun",
    "ReadRefused",
    "Returned",
    "ShadowWrote",
    "Shadowed",
    "SnapshotPublished",
    "TokenReceived",
    "TokenSent",
]
