"""Connection arguments of each server: by its own URL and arguments, whatever its role is now."""

import collections.abc
import typing

from modern_di_replicas.servers import DeclaredServer
from modern_di_replicas.settings import ReplicationSettings


Purpose = typing.Literal["primary", "replica", "monitor"]


def connect_args(settings: ReplicationSettings, server: DeclaredServer, purpose: Purpose) -> dict[str, typing.Any]:
    """Return `connect_args` for a server: its own, then those of the settings, then those of the library."""
    timeouts = {
        "primary": settings.connect_timeout,
        # After `probe_timeout` the monitor would declare the replica down: the primary serves the read instead.
        "replica": min(settings.connect_timeout, settings.probe_timeout),
        # The monitor itself times out after `probe_timeout`, which excludes time in which the event loop was late.
        "monitor": max(settings.connect_timeout, settings.probe_timeout * 4),
    }
    is_past_pooler = purpose == "monitor" and server.probe_url is not None
    return settings.driver.connect_args(
        _merged(settings.connect_args, server.connect_args),
        application_name=f"{settings.application_name}-{purpose}",
        timeout=timeouts[purpose],
        pooled=is_pooled(settings, server) and not is_past_pooler,
    )


def _merged(
    common: collections.abc.Mapping[str, typing.Any], own: collections.abc.Mapping[str, typing.Any]
) -> dict[str, typing.Any]:
    """Merge the arguments of a server into those of all servers; mappings in both are merged one level deep."""
    merged = {**common, **own}
    for name in common.keys() & own.keys():
        if isinstance(common[name], collections.abc.Mapping) and isinstance(own[name], collections.abc.Mapping):
            merged[name] = {**common[name], **own[name]}
    return merged


def is_pooled(settings: ReplicationSettings, server: DeclaredServer) -> bool:
    """Return whether a pooler in transaction mode is in front of a server."""
    return settings.pooled if server.pooled is None else server.pooled


def may_autocommit(settings: ReplicationSettings, server: DeclaredServer) -> bool:
    """Return whether statements can run in autocommit on a server."""
    return settings.driver.autocommits_behind_poolers or not is_pooled(settings, server)
