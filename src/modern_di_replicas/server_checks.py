"""Checks of the declared servers; each raises `ConfigurationError`."""

import collections.abc
import typing

import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from modern_di_replicas.checks import check, check_flag, check_max_lag, check_number
from modern_di_replicas.drivers.driver import Driver
from modern_di_replicas.drivers.known import SCHEMES, driver_of
from modern_di_replicas.errors import ConfigurationError
from modern_di_replicas.servers import DEFAULT_GROUP, Primary, Replica, address_remedy, database, redacted


# URLs hold passwords, so a test's report leaves the frames of this module out.
__tracebackhide__ = True

_FORM: typing.Final = f"use a URL of the form {SCHEMES[0]}://user:password@host:5432/database"


def check_url(field: str, value: object) -> URL:
    """Return the parsed URL. Errors contain no text that could hold a password."""
    if value in (None, ""):
        raise ConfigurationError(
            field=field, value=value, remedy=f"{_FORM}; is an environment variable unset that should hold it?"
        )
    try:
        url = make_url(typing.cast(str, value))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        url = None
    if url is None:
        # Outside the handler, so that the parser's error, which quotes the URL, is not chained to ours.
        raise ConfigurationError(
            field=field,
            value=f"<{type(value).__name__}, not shown: it may hold a password>",
            remedy=_FORM,
        )
    if url.drivername not in SCHEMES:
        like = [scheme for scheme in SCHEMES if url.drivername.startswith(scheme)]  # psycopg2 is like psycopg
        corrected = redacted(url.set(drivername=[*like, *SCHEMES][0]))
        raise ConfigurationError(
            field=field,
            value=redacted(url),
            remedy=f"write {corrected}: the driver has to be named, {' or '.join(SCHEMES)}",
        )
    check(
        field,
        redacted(url),
        usable="@" not in (url.host or ""),
        remedy="percent-encode what separates the parts of a URL in the user and the password: %40 for @, %3A for :, "
        "%2F for /",
    )
    _check_driver(field, url)
    # Otherwise each attempt to connect would fail, as with a server that is down.
    for name, given in url.query.items():
        remedy = driver_of(url).parameter_remedy(name, given)
        check(field, redacted(url), usable=remedy is None, remedy=remedy or "")
    remedy = address_remedy(url)
    check(field, redacted(url), usable=remedy is None, remedy=remedy or "")
    return url


def _check_driver(field: str, url: URL) -> None:
    try:
        driver_of(url)
    except ImportError as error:
        remedy = f"install it: pip install 'modern-di-replicas[{url.get_driver_name()}]' ({error})"
        raise ConfigurationError(field=field, value=redacted(url), remedy=remedy) from None


def check_connect_args(field: str, value: object, driver: Driver) -> None:
    """Check arguments of the driver's `connect`. Errors do not contain their values, which may be secret."""
    check(
        field,
        f"<{type(value).__name__}, not shown>",
        usable=isinstance(value, collections.abc.Mapping),
        remedy="use a mapping of the arguments of the driver's connect()",
    )
    for name, given in typing.cast(collections.abc.Mapping[str, typing.Any], value).items():
        remedy = driver.argument_remedy(name, given)
        shown = f"<{type(given).__name__}, not shown>"
        check(f"{field}[{name!r}]", shown, usable=remedy is None, remedy=remedy or "")


def check_primary(server: Primary) -> URL:
    """Check the declaration of the primary, and return its URL."""
    url = check_url("primary", server.url)
    check_server("primary", server, url=url)
    return url


def check_server(field: str, server: Primary | Replica, *, url: URL) -> None:
    """Check the fields that both kinds of server have."""
    check(f"{field}.name", server.name, usable=isinstance(server.name, str), remedy="use a string")
    check_connect_args(f"{field}.connect_args", server.connect_args, driver_of(url))
    if server.pooled is not None:
        check_flag(f"{field}.pooled", server.pooled)
    if server.probe_url is not None:
        _check_scheme(f"{field}.probe_url", check_url(f"{field}.probe_url", server.probe_url), url)


def check_replicas(replicas: object, *, primary: Primary, pooled: bool) -> None:
    """Check all replicas."""
    check(
        "replicas",
        type(replicas).__name__,
        usable=isinstance(replicas, collections.abc.Sequence) and not isinstance(replicas, str | bytes),
        remedy="use a list of URLs or Replica(...), also for a single replica",
    )
    seen: dict[str, str] = {}
    of_primary = make_url(primary.url)
    for index, given in enumerate(typing.cast(collections.abc.Sequence[str | Replica], replicas)):
        field = f"replicas[{index}]"
        replica = given if isinstance(given, Replica) else Replica(given)
        url = check_url(f"{field}.url", replica.url)
        _check_scheme(f"{field}.url", url, of_primary)
        any_pooled = pooled if replica.pooled is primary.pooled is None else (replica.pooled or primary.pooled)
        check(
            f"{field}.url",
            redacted(url),
            usable=database(url) == database(of_primary) or bool(any_pooled),  # a pooler has its own names
            remedy=f"a replica holds the database of its primary, which is {database(of_primary)!r}",
        )
        check(
            f"{field}.name",
            replica.name,
            usable=isinstance(replica.name, str) and replica.label not in seen,
            remedy=f"{replica.label!r} already names {seen.get(replica.label, 'nothing')}; declare each server once, "
            "and each name for one server",
        )
        seen[replica.label] = field
        check_server(field, replica, url=url)
        check_number(f"{field}.weight", replica.weight, whole=True, minimum=1)
        check_max_lag(f"{field}.max_lag", replica.max_lag)
        check_flag(f"{field}.promotable", replica.promotable)
        check(
            f"{field}.groups",
            replica.groups,
            usable=isinstance(replica.groups, collections.abc.Set)
            and len(replica.groups) > 0
            and all(isinstance(group, str) and group for group in replica.groups),
            remedy=f"use a set of names, such as {{{DEFAULT_GROUP!r}}}",
        )


def _check_scheme(field: str, url: URL, of_primary: URL) -> None:
    remedy = f"use one driver for all servers: {of_primary.drivername}, as the primary does"
    check(field, redacted(url), usable=url.drivername == of_primary.drivername, remedy=remedy)
