import itertools
import sys
import types
import typing

import hypothesis
from hypothesis import strategies as st

from modern_di_replicas.routing.lag import LsnHistory


def test_lag_is_how_long_ago_the_primary_was_there() -> None:
    """In seconds of one clock, from the samples of the primary."""
    history = LsnHistory()
    for second, lsn in enumerate([100, 200, 300, 400]):
        history.add(float(second), lsn)

    assert history.lag_seconds(3.5, 400) == 0.0
    assert history.lag_seconds(3.5, 350) == 1.5
    assert history.lag_seconds(3.5, 100) == 3.5
    assert history.lag_seconds(3.5, 99) is None
    assert history.lag_seconds(1.5, 200) == 0.0, "what the primary did later is no lag of then"


def test_an_idle_primary_makes_no_lag() -> None:
    """INVARIANT: without writes nothing is missing; a lag that grows with silence would empty the rotation at night."""
    history = LsnHistory()
    for second in range(1000):
        history.add(float(second), 100)

    assert history.lag_seconds(999.0, 100) == 0.0
    history.add(1000.0, 200)
    assert history.lag_seconds(1000.5, 100) == 1.5, "the silence before does not count"


def test_a_history_forgets_precision_before_it_forgets_time() -> None:
    """Its size is limited; a lag of an hour is still reported, with a precision of a few seconds."""
    history = LsnHistory(capacity=16)
    for second in range(1000):
        history.add(float(second), second)

    lag = history.lag_seconds(999.0, 0)
    assert lag == 999.0
    assert history.last == (999.0, 999)
    history.clear()
    assert history.last is None
    assert history.lag_seconds(1.0, 1) is None


def test_a_history_may_be_cleared_at_any_moment_of_a_read() -> None:
    """INVARIANT: the monitor's thread clears it when the primary changes; a bounded read in a thread must not fail."""
    for moment in itertools.count():
        history = LsnHistory()
        for second in range(4):
            history.add(float(second), second)
        found, has_cleared = run_with(history.clear, moment, lambda history=history: history.first_since(2.5))

        assert found in (3, None)
        if not has_cleared:
            break
    assert found == 3


def run_with(interruption: typing.Any, moment: int, function: typing.Any) -> tuple[typing.Any, bool]:
    """Call a function, and another one after a number of its steps; return whether that many steps were reached."""
    left = moment

    def trace(frame: types.FrameType, event: str, _: object) -> typing.Any:
        nonlocal left
        if frame.f_code is not LsnHistory.first_since.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                interruption()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return function(), left < 0
    finally:
        sys.settrace(before)


@hypothesis.given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(0, 2000), st.integers(4, 64))
def test_lag_is_never_understated(steps: list[int], position: int, capacity: int) -> None:
    """INVARIANT: the reported lag is at least the time since the primary passed that position, by its own samples."""
    history, samples, lsn = LsnHistory(capacity=capacity), [], 0
    for at, step in enumerate(steps):
        lsn += step
        samples.append((float(at), lsn))
        history.add(float(at), lsn)
    now = float(len(steps))

    lag = history.lag_seconds(now, position)

    passed = [at for at, reached in samples if reached > position]
    if lag is not None:
        assert lag >= (now - passed[0] if passed else 0.0)
