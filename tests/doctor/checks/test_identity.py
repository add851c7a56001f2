"""Whether each server matches its declaration."""

import pytest

from modern_di_replicas.doctor.checks import identity
from modern_di_replicas.doctor.facts import Facts
from tests.doctor.made_up import examination, primary, replica


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ((primary(), replica()), []),
        ((primary(in_recovery=True), replica()), ["db-1"]),
        ((primary(), replica(in_recovery=False)), ["db-2"]),
        ((primary(in_recovery=None), replica(in_recovery=None)), []),
        ((primary(), replica(in_recovery=False, started="noon")), []),
    ],
    ids=["as declared", "a standby as primary", "a primary as replica", "not known", "one server by two names"],
)
def test_a_role_that_is_not_the_declared_one_is_found(servers: tuple[Facts, ...], found: list[str]) -> None:
    """For one server with two names, only the shared endpoint is reported."""
    assert [finding.server for finding in identity.check_role(examination(*servers))] == found


@pytest.mark.parametrize(("system", "found"), [(7, []), (8, ["db-2"]), (None, [])])
def test_a_replica_of_another_cluster_is_found(system: int | None, found: list[str]) -> None:
    """A server with an unknown identifier is not reported."""
    findings = identity.check_system(examination(primary(), replica(system=system)))
    assert [finding.server for finding in findings] == found


@pytest.mark.parametrize(
    ("of_primary", "of_replica", "found"),
    [
        ({"timeline": 2}, {"timeline": 1}, ["db-2"]),
        ({"timeline": 2}, {"timeline": 2}, []),
        ({"timeline": 2}, {"timeline": 1, "system": 8}, []),
        ({"timeline": 2}, {"timeline": None}, []),
        ({"timeline": None}, {"timeline": 1}, []),
        ({"timeline": 2, "in_recovery": True}, {"timeline": 1}, []),
    ],
)
def test_a_standby_on_an_older_timeline_is_found(
    of_primary: dict[str, object], of_replica: dict[str, object], found: list[str]
) -> None:
    """Timelines are compared within one cluster, and with its primary."""
    findings = identity.check_timeline(examination(primary(**of_primary), replica(**of_replica)))
    assert [finding.server for finding in findings] == found


def test_servers_that_started_at_the_same_moment_are_one() -> None:
    """All servers of a cluster share one identifier; with the start time they can be distinguished."""
    alike = [replica(name="db-2"), replica(name="db-3"), replica(name="db-4", started="night")]
    (finding,) = identity.check_shared_endpoint(examination(primary(), *alike))
    assert finding.server == "db-2, db-3"
    unknown = [replica(name="db-2", system=None), replica(name="db-3", system=None)]
    assert list(identity.check_shared_endpoint(examination(primary(), *unknown))) == []


@pytest.mark.parametrize(
    ("reported", "words"), [(None, []), (True, []), (False, ["in_hot_standby = off, and pg_is_in_recovery() is true"])]
)
def test_a_start_up_parameter_that_contradicts_the_server_is_found(reported: bool | None, words: list[str]) -> None:
    """A pooler repeats the parameter from before a promotion."""
    findings = identity.check_in_hot_standby(examination(primary(), replica(reports_standby=reported)))
    assert [finding.message.partition("with ")[2] for finding in findings] == words
