"""Session classes of the application with attributes of the routing's names."""

import typing

import pytest
from sqlalchemy.orm import Session

import modern_di_replicas.sync
from modern_di_replicas import ConfigurationError, RoutedSession
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import serving


class WithMethod(Session):
    def escalate(self) -> None: ...


class WithAttribute(Session):
    def __init__(self, *args: typing.Any, **options: typing.Any) -> None:
        super().__init__(*args, **options)
        self._primary = "of an accounting system"


@pytest.mark.parametrize(("own", "name"), [(WithMethod, "escalate"), (WithAttribute, "_primary")])
async def test_a_class_that_has_names_of_the_routing_is_refused_on_both_servers(
    shop_cluster: LocalCluster, own: type[Session], name: str
) -> None:
    """On a replica only, each would use the other's attribute."""
    async with serving(shop_cluster) as servers:
        for engine in (servers.primary, servers.replica):
            with pytest.raises(ConfigurationError, match=f"rename {name}:") as caught:
                RoutedSession(engine, sync_session_class=own)
            assert caught.value.field == "sync_session_class"


def test_such_a_class_is_refused_in_the_synchronous_half() -> None:
    """On a replica only, each would use the other's attribute."""

    class Own(Session):
        label = "of a product"

    with pytest.raises(ConfigurationError, match="rename label:"):
        type("Combined", (modern_di_replicas.sync.RoutedSession, Own), {})
