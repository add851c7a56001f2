"""Functions whose calls are units of work."""

import asyncio
import collections.abc
import typing

import pytest
from modern_di_flask import FromDI, inject
from sqlalchemy.orm import Session

from modern_di_replicas import STRONG, ConfigurationError, Intent, ReplicationSettings
from modern_di_replicas.sync import Dependencies, ReplicaEngine
from modern_di_replicas.sync.functions import in_units_of_work
from tests.sync.test_dependencies import IN_RECOVERY, container_of


Injected = typing.Annotated[Session, FromDI(Session)]


def test_a_function_may_be_called_with_its_dependencies(shop: ReplicationSettings) -> None:
    """For example by its test."""
    with container_of(shop) as container:

        @in_units_of_work(container, Intent.read(consistency=STRONG))
        def strong(factor: int, session: Injected) -> tuple[int, object]:
            return factor, session.scalar(IN_RECOVERY)

        assert strong(2) == (2, False)
        own = container.build_child_container(scope=Dependencies.session.scope, context={Intent: Intent.read()})
        with own:
            assert strong(3, session=own.resolve(Session)) == (3, True)


def test_a_function_reads_until_it_has_run(shop: ReplicationSettings) -> None:
    """The unit of work of a generator or a coroutine function lasts until it has run, beyond its creation."""
    with container_of(shop) as container:

        @in_units_of_work(container, Intent.read())
        def parts(count: int, session: Injected) -> collections.abc.Iterator[object]:
            for _ in range(count):
                yield session.scalar(IN_RECOVERY)

        @in_units_of_work(container, Intent.read())
        async def coroutine(session: Injected) -> object:
            await asyncio.sleep(0)
            return session.scalar(IN_RECOVERY)

        assert list(parts(2)) == [True, True]
        abandoned = parts(2)
        next(iter(abandoned))
        typing.cast(typing.Any, abandoned).close()
        assert asyncio.run(coroutine()) is True
        for engine in container.resolve(ReplicaEngine).engines.values():
            assert typing.cast(typing.Any, engine.pool).checkedout() == 0


def test_a_function_that_cannot_be_wrapped_is_refused(shop: ReplicationSettings) -> None:
    """An asynchronous generator runs in several contexts, and a dependency injected twice fails at its first call."""
    container = container_of(shop)

    async def parts(session: Injected) -> collections.abc.AsyncIterator[object]:
        yield session

    def injected(session: Injected) -> Session:
        return session

    with pytest.raises(ConfigurationError, match="asynchronous generator"):
        in_units_of_work(container, Intent.read())(parts)
    with pytest.raises(ConfigurationError, match="leave out @inject"):
        in_units_of_work(container, Intent.read())(inject(injected))
