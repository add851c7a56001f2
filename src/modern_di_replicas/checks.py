"""Checks of plain values that the operator declares; each raises `ConfigurationError`."""

import datetime as dt

from modern_di_replicas.errors import ConfigurationError


# A test's report ends where the settings are made; what is wrong there is in the error.
__tracebackhide__ = True


def check(field: str, value: object, *, usable: bool, remedy: str) -> None:
    """Check one value."""
    if not usable:
        raise ConfigurationError(field=field, value=value, remedy=remedy)


def check_number(field: str, value: object, *, whole: bool, minimum: int, exclusive: bool = False) -> None:
    """Check a size or a number of seconds."""
    types = int if whole else int | float
    check(
        field,
        value,
        usable=isinstance(value, types)
        and not isinstance(value, bool)
        and (value > minimum if exclusive else value >= minimum)
        and value != float("inf"),
        remedy=f"give a {'whole number' if whole else 'number of seconds'} {'above' if exclusive else 'of at least'} "
        f"{minimum}",
    )


def check_flag(field: str, value: object) -> None:
    """Check a flag, which the text of an environment variable is not."""
    remedy = "give True or False, not the text of an environment variable"
    check(field, value, usable=isinstance(value, bool), remedy=remedy)


def check_max_lag(field: str, value: object) -> None:
    """Check how far a replica may be behind."""
    check(
        field,
        value,
        usable=value is None or (isinstance(value, dt.timedelta) and value > dt.timedelta(0)),
        remedy="give a timedelta above zero, or None",
    )
