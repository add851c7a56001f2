"""What the sessions of one unit of work share."""

import typing

import pytest

from modern_di_replicas import Cause
from modern_di_replicas.cluster.engines.one_replica import OneReplicaRole
from modern_di_replicas.routing.decision import on_primary
from modern_di_replicas.session.unit_of_work import UnitOfWork
from tests.unconnected import engines


@pytest.mark.parametrize("settles", ["nothing", "replica", "escalation"])
def test_it_is_settled_with_the_first_session_that_knows_where_it_reads(settles: str) -> None:
    """From a replica, or from the primary that one of them has moved to."""
    unit = UnitOfWork()
    if settles == "replica":
        unit.replica = typing.cast(OneReplicaRole, engines("db-2")[1].engines["db-2"])
    elif settles == "escalation":
        unit.escalation = on_primary(Cause.WROTE, "INSERT")
    assert unit.is_settled is (settles != "nothing")
