"""The options of `create_async_engine` that an operator may set."""

import inspect

import pytest
from sqlalchemy import create_engine, make_url

from modern_di_replicas import ConfigurationError
from modern_di_replicas.engine_options import OWNED_OPTIONS, POOL_OPTIONS, check_engine_options


URL = make_url("postgresql+asyncpg://app@db-1/shop")


@pytest.mark.parametrize("name", sorted(OWNED_OPTIONS))
def test_options_of_the_library_are_refused_with_an_alternative(name: str) -> None:
    """INVARIANT: no option applies on the primary and is dropped on a replica."""
    with pytest.raises(ConfigurationError) as caught:
        check_engine_options("engine_options", {name: "s3cret"}, URL)
    assert caught.value.field == f"engine_options[{name!r}]"
    assert "{0}" not in caught.value.remedy
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["echo", "json_serializer", "query_cache_size", "plugins", *sorted(POOL_OPTIONS)])
def test_other_options_of_the_engine_the_dialect_and_the_pool_are_accepted(name: str) -> None:
    """SQLAlchemy checks their values."""
    check_engine_options("engine_options", {name: None}, URL)


def test_an_unknown_option_is_refused_unless_there_is_a_plugin() -> None:
    """Otherwise a typing error would be ignored."""
    with pytest.raises(ConfigurationError, match="no such option"):
        check_engine_options("engine_options", {"ecoh": True}, URL)
    check_engine_options("engine_options", {"ecoh": True, "plugins": ["geo"]}, URL)
    with pytest.raises(ConfigurationError, match="mapping"):
        check_engine_options("engine_options", ["echo"], URL)


def test_an_option_that_the_library_owns_is_one_of_sqlalchemys() -> None:
    """SQLAlchemy's documentation explains them; only `create_async_engine` has `async_creator`."""
    documented = inspect.getdoc(create_engine) or ""
    of_the_engine = set(OWNED_OPTIONS) - {"async_creator", "dialect", "dbapi", "url"}
    assert {name for name in of_the_engine if name not in documented} == set()
