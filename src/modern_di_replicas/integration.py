"""Shared code of the framework integrations, in both halves."""

from modern_di import Container, Group, Scope, providers

from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.intent import Intent


declared_intent = providers.ContextProvider(Intent, scope=Scope.REQUEST, bound_type=None, default=None)
"""The intent in the context of a unit of work, if any: the `intent` provider of a framework prefers it."""


def check_container(container: Container, group: type[Group]) -> None:
    """Check that a container holds the providers of a framework's group.

    Raises:
        ConfigurationError: it holds none, or framework-neutral ones, which would send everything to the primary.

    """
    *_, neutral = (vars(base)["intent"] for base in group.__mro__ if "intent" in vars(base))  # of the first base
    if container.find_provider(Intent) in (None, neutral):
        raise ConfigurationError(
            field="container",
            value=container,
            remedy=f"register {group.__module__}.Dependencies, or a subclass of it: Container(groups=[Dependencies])",
        )
