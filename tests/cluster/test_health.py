import typing

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modern_di_replicas.cluster.health import FIRST_EJECTION, LONGEST_EJECTION, SUCCESSES_NEEDED, Health
from modern_di_replicas.cluster.pools.open_connections import OpenConnections


class NoConnections:
    """Stands in for the open connections of a server: counts their terminations."""

    terminated = 0

    def end_silent(self) -> None:
        self.terminated += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def build() -> tuple[Health, Clock, NoConnections]:
    clock, connections = Clock(), NoConnections()
    return Health(typing.cast(OpenConnections, connections), clock=clock), clock, connections


def test_a_failure_ejects_a_server_and_each_in_a_row_for_longer() -> None:
    """Without a monitor, only time can end an ejection."""
    health, clock, connections = build()
    ejected = []
    for _ in range(8):
        health.failed()
        began = clock.now
        while health.is_down:
            clock.now += 0.25
        ejected.append(clock.now - began)

    assert ejected == [1, 2, 4, 8, 16, 30, 30, 30]
    assert connections.terminated == 0, "one lost connection is no reason to end the others"


def test_a_server_that_served_well_meanwhile_starts_over() -> None:
    """After a failure-free time, the next failure counts as the first."""
    health, clock, _ = build()
    for _ in range(2):
        health.failed()
        clock.now += LONGEST_EJECTION * 10
    health.failed()
    clock.now += FIRST_EJECTION
    assert not health.is_down


def test_simultaneous_failures_count_once() -> None:
    """Forty failed statements on one crashed server are one failure."""
    health, clock, _ = build()
    for _ in range(40):
        health.failed()
    clock.now += FIRST_EJECTION
    assert not health.is_down


def test_without_probes_a_server_that_was_down_is_ejected_for_a_while() -> None:
    """Otherwise it would never be used again."""
    health, clock, _ = build()
    health.declare_down()
    clock.now += 1000
    assert health.is_down
    health.stop_watching()
    assert health.is_down
    clock.now += FIRST_EJECTION
    assert not health.is_down
    health.stop_watching()
    assert not health.is_down


class Probed(RuleBasedStateMachine):
    """A monitored server: any order of observations by sessions and probes."""

    def __init__(self) -> None:
        super().__init__()
        self.health, self.clock, self.connections = build()
        self.successes = SUCCESSES_NEEDED
        self.out = False

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def session_fails(self) -> None:
        self.health.failed()

    @rule()
    def probe_fails(self) -> None:
        before = self.connections.terminated
        self.health.declare_down()
        self.successes, self.out = 0, True
        assert self.connections.terminated == before + 1

    @rule()
    def probe_succeeds(self) -> None:
        self.health.probe_succeeded()
        self.successes += 1
        if self.successes >= SUCCESSES_NEEDED:
            self.out = False

    @precondition(lambda self: self.out)
    @invariant()
    def a_server_that_a_probe_took_out_stays_out_until_probes_bring_it_back(self) -> None:
        assert self.health.is_down

    @rule()
    def enough_successes_bring_it_back_at_once(self) -> None:
        for _ in range(SUCCESSES_NEEDED):
            self.probe_succeeds()
        assert not self.health.is_down


test_a_probed_server_follows_its_probes = Probed.TestCase
test_a_probed_server_follows_its_probes.settings = hypothesis.settings(max_examples=50, stateful_step_count=20)
