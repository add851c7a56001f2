import datetime as dt
import pickle
import typing

import pytest

from modern_di_replicas import EVENTUAL, SESSION, STRONG, Bounded, ConfigurationError, Intent, read_intent
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.intent import marked_intent


@pytest.mark.parametrize("lag", [dt.timedelta(0), dt.timedelta(seconds=-1), 5, None])
def test_a_bound_is_a_time_above_zero(lag: typing.Any) -> None:
    """The error names STRONG, which means no lag at all."""
    with pytest.raises(ConfigurationError, match="STRONG") as caught:
        Bounded(lag)
    assert caught.value.field == "Bounded.lag"


def test_levels_are_values() -> None:
    """They can be compared, printed and pickled."""
    levels = [EVENTUAL, SESSION, STRONG, Bounded(lag=dt.timedelta(seconds=1))]

    assert pickle.loads(pickle.dumps(levels)) == levels  # noqa: S301  # our own
    assert repr(levels[:3]) == "[EVENTUAL, SESSION, STRONG]"
    assert Bounded(dt.timedelta(seconds=1)) == levels[3]


@pytest.mark.parametrize("level", ["strong", 5, Bounded])
def test_an_invalid_level_is_an_error_where_it_is_declared(level: typing.Any) -> None:
    """Not at the first request."""
    with pytest.raises(ConfigurationError, match="EVENTUAL, SESSION"):
        Intent.read(consistency=level)
    with pytest.raises(ConfigurationError):
        read_intent(consistency=level)


def test_a_marker_carries_the_level() -> None:
    """With the group."""

    @read_intent(group="reports", consistency=EVENTUAL)
    def handler() -> None: ...

    assert marked_intent(handler) == Intent.read(group="reports", consistency=EVENTUAL)


def test_an_intent_takes_a_token_or_its_text() -> None:
    """A job receives the text."""
    token = ConsistencyToken(lsn=5, timeline=1, database="0" * 16, issued_at=1)

    assert Intent.read(after=token) == Intent.read(after=str(token))
    with pytest.raises(ConfigurationError, match="token"):
        Intent.read(after="nonsense")
