"""Objects that cannot be sent to another process raise a specific error, not that of one of their parts."""

import collections.abc
import copy
import multiprocessing
import pickle
import typing

import pytest
from modern_di import Container

import modern_di_replicas as asynchronous
from modern_di_replicas import Intent, NotPicklableError, ReplicationSettings, sync
from tests.sync.children import use_until_killed


SETTINGS = ReplicationSettings(primary="postgresql+psycopg://a@h/d", replicas=["postgresql+psycopg://a@i/d"])


def container_of(half: typing.Any) -> Container:
    container = Container(groups=[half.Dependencies], context={ReplicationSettings: SETTINGS})
    container.open()
    return container


THINGS: dict[str, collections.abc.Callable[[Container, typing.Any], object]] = {
    "PrimaryEngine": lambda container, half: container.resolve(half.PrimaryEngine),
    "ReplicaEngine": lambda container, half: container.resolve(half.ReplicaEngine),
    "ReplicaEngine with options": lambda container, half: container.resolve(half.ReplicaEngine).execution_options(
        stream_results=True
    ),
    "OneReplicaEngine": lambda container, half: container.resolve(half.ReplicaEngine).choose_for(Intent.read()),
    "RoutedSession of a write": lambda container, half: half.RoutedSession(container.resolve(half.PrimaryEngine)),
    "RoutedSession": lambda container, half: half.RoutedSession(
        container.resolve(half.ReplicaEngine), intent=Intent.read()
    ),
    "SessionFactory": lambda container, half: half.SessionFactory(
        half.RoutedSession(container.resolve(half.PrimaryEngine))
    ),
    "Container": lambda container, half: (container.resolve(half.ReplicaEngine), container)[1],
    "Monitor": lambda container, half: half.Monitor(container.resolve(half.ReplicaEngine)),
}


@pytest.mark.parametrize("half", [asynchronous, sync])
@pytest.mark.parametrize("thing", THINGS)
def test_objects_of_a_process_cannot_be_pickled(half: typing.Any, thing: str) -> None:
    """The error names the object, or what cannot be pickled, and what to send instead."""
    found = THINGS[thing](container_of(half), half)
    with pytest.raises(NotPicklableError, match="Send the settings") as caught:
        pickle.dumps(found)
    assert isinstance(caught.value, pickle.PicklingError)
    assert caught.value.kind == thing.partition(" ")[0] or thing in ("Container", "Monitor")


def test_a_process_that_is_to_be_spawned_with_a_container_does_not_start() -> None:
    """`start()` raises the error."""
    container = container_of(sync)
    container.resolve(sync.ReplicaEngine)
    process = multiprocessing.get_context("spawn").Process(target=use_until_killed, args=(container,))
    with pytest.raises(NotPicklableError):
        process.start()


@pytest.mark.parametrize("half", [asynchronous, sync])
def test_within_its_process_an_engine_can_be_copied(half: typing.Any) -> None:
    """Like SQLAlchemy's engines; the copy has the same pool."""
    engine = container_of(half).resolve(half.PrimaryEngine)
    copied = copy.copy(engine)
    assert copied is not engine
    assert copied.pool is engine.pool
    assert vars(copied) == vars(engine)
