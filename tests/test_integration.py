"""Code shared by the integrations of frameworks."""

import types
import typing

import pytest
from modern_di import Container, Group, Scope, providers

import modern_di_replicas.fastapi
import modern_di_replicas.flask
import modern_di_replicas.litestar
import modern_di_replicas.sync
from modern_di_replicas import ConfigurationError, Intent
from modern_di_replicas.integration import check_container, declared_intent


FRAMEWORKS = [modern_di_replicas.fastapi, modern_di_replicas.litestar, modern_di_replicas.flask]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_container_has_to_hold_the_providers_of_the_framework(framework: types.ModuleType) -> None:
    """Or those of a subclass; the framework-neutral ones would send everything to the primary."""
    dependencies: typing.Any = framework.Dependencies

    class Own(dependencies):  # type: ignore[misc]  # of a module that is a parameter
        pass

    check_container(Container(groups=[dependencies]), dependencies)
    check_container(Container(groups=[Own]), dependencies)
    neutral = modern_di_replicas.sync if framework is modern_di_replicas.flask else modern_di_replicas
    for groups in ([], [neutral.Dependencies]):
        with pytest.raises(ConfigurationError, match=f"register {framework.__name__}.Dependencies"):
            check_container(Container(groups=typing.cast(list[type[Group]], groups)), dependencies)


def test_an_intent_is_none_unless_the_context_declares_it() -> None:
    """A framework then uses the request."""

    class Declared(Group):
        seen = providers.Factory(
            lambda declared: [declared], scope=Scope.REQUEST, bound_type=None, kwargs={"declared": declared_intent}
        )

    with Container(groups=[Declared]) as container:
        for context, seen in (({}, None), ({Intent: Intent.read()}, Intent.read())):
            with container.build_child_container(scope=Scope.REQUEST, context=context) as unit:
                assert unit.resolve_provider(Declared.seen) == [seen]
