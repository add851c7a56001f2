"""The doctor's facts about the servers."""

from tests.doctor.made_up import examination, primary, replica


def test_a_setting_that_the_server_does_not_have_counts_as_zero() -> None:
    """Older versions do not have all settings."""
    server = primary(settings={"max_connections": "100"})
    assert server.number("max_connections") == 100
    assert server.number("reserved_connections") == 0


def test_servers_are_distinguished_by_their_declaration() -> None:
    """Not by their facts, which the checks compare."""
    standby, other = primary(in_recovery=True), replica(in_recovery=False)
    examined = examination(other, standby)
    assert examined.primary is standby
    assert examined.replicas == (other,)
