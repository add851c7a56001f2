"""Get the settings from the command line: from URLs, or the name of the application's settings."""

import collections.abc
import importlib
import pathlib
import re
import sys
import typing

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.settings import ReplicationSettings


_NAME: typing.Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", re.ASCII)
_PLAIN: typing.Final = ("postgresql://", "postgres://")
_SCHEME: typing.Final = "postgresql+asyncpg://"


def settings_of(targets: collections.abc.Sequence[str]) -> ReplicationSettings:
    """Return the settings of the targets.

    Args:
        targets: URLs, the primary's first; or one `module:name` of settings, or of a callable that returns them.

    Raises:
        ConfigurationError: there are no settings of that name, or a URL is not usable.

    """
    if len(targets) == 1 and _NAME.fullmatch(targets[0]):
        return _load(targets[0])
    primary, *replicas = map(_with_driver, targets)
    return ReplicationSettings(primary=primary, replicas=replicas)


def _with_driver(url: str) -> str:
    scheme = next((scheme for scheme in _PLAIN if url.startswith(scheme)), None)
    return url if scheme is None else _SCHEME + url.removeprefix(scheme)


def _load(target: str) -> ReplicationSettings:
    module_name, _, attribute = target.partition(":")
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` and web servers do
    try:
        found: typing.Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            field="the settings", value=target, remedy=f"pass module:name of your ReplicationSettings ({error})"
        ) from error
    if callable(found):
        found = found()
    if not isinstance(found, ReplicationSettings):
        raise ConfigurationError(
            field="the settings", value=target, remedy=f"it is a {type(found).__name__}, not a ReplicationSettings"
        )
    return found
