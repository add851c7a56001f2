import datetime as dt

import pytest

from modern_di_replicas import ConfigurationError
from modern_di_replicas.checks import check_flag, check_max_lag, check_number, check_token_name


@pytest.mark.parametrize("value", [0, 1, 30])
def test_a_number_in_its_range_is_fine(value: int) -> None:
    """An integer is a valid number of seconds."""
    check_number("size", value, whole=True, minimum=0)
    check_number("seconds", value, whole=False, minimum=0)


@pytest.mark.parametrize("value", [-1, True, "3", 1.5, float("inf"), None])
def test_values_other_than_integers_in_the_range_are_refused(value: object) -> None:
    """In Python a bool is an int, and an environment variable is a text."""
    with pytest.raises(ConfigurationError, match="a whole number of at least 0"):
        check_number("size", value, whole=True, minimum=0)


def test_a_bound_may_be_excluded() -> None:
    """A timeout of zero is not a timeout."""
    with pytest.raises(ConfigurationError, match="a number of seconds above 0"):
        check_number("timeout", 0.0, whole=False, minimum=0, exclusive=True)


def test_a_text_is_not_a_flag() -> None:
    """INVARIANT: "false" would be true."""
    check_flag("enabled", value=False)
    with pytest.raises(ConfigurationError, match="not the text of an environment variable"):
        check_flag("enabled", "false")


@pytest.mark.parametrize("value", [dt.timedelta(0), dt.timedelta(seconds=-1), 1.0])
def test_a_lag_is_a_time_above_zero(value: object) -> None:
    """Or None, which allows any lag."""
    check_max_lag("max_lag", None)
    check_max_lag("max_lag", dt.timedelta(seconds=1))
    with pytest.raises(ConfigurationError, match="timedelta above zero"):
        check_max_lag("max_lag", value)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "naïve", None, "Cookie", "X-Forwarded-For", "Content-Type"])
def test_a_token_has_a_name_that_is_free(name: object) -> None:
    """Some names have a meaning in HTTP, and others are not valid syntax."""
    check_token_name("token_name", "__Host-consistency-token")
    with pytest.raises(ConfigurationError):
        check_token_name("token_name", name)
