import pathlib
import types
import typing

import modern_di_replicas
from modern_di_replicas import errors


ROOT = pathlib.Path(__file__).parent.parent

ERRORS_OF_OTHERS = {"missing-greenlet", "read-only-transaction", "scope-not-initialized-error"}
"""Pages about errors of SQLAlchemy, PostgreSQL and modern-di that users of this library see."""


def all_errors(error: type[errors.ReplicasError] = errors.ReplicasError) -> typing.Iterator[type[errors.ReplicasError]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from all_errors(subclass)


def test_every_error_has_a_troubleshooting_page_and_every_page_an_error() -> None:
    """A message ends with a link; its page exists, and no page is obsolete."""
    slugs = {error.slug for error in all_errors()} | ERRORS_OF_OTHERS

    assert {page.stem for page in (ROOT / "docs/troubleshooting").glob("*.md")} == slugs


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """Readers rely on the tree."""
    assert errors.__doc__ is not None
    assert all(error.__name__ in errors.__doc__ for error in all_errors())


def test_a_message_ends_with_the_page_that_helps() -> None:
    """Readers of a traceback find the link at its end."""
    error = errors.ConfigurationError(field="primary", value=1, remedy="x")

    assert str(error).endswith("/troubleshooting/configuration-error/")
    assert str(errors.ReplicasError()).startswith("modern-di-replicas failed")


def test_all_is_sorted_and_complete() -> None:
    """The exports match `__all__`; constants come first, as the linter sorts them."""
    exported = {
        name
        for name, value in vars(modern_di_replicas).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert modern_di_replicas.__all__ == sorted(exported, key=lambda name: (not name.isupper(), name))


def test_every_message_contains_a_remedy() -> None:
    """It contains the facts of the raise site, and a remedy."""
    unknown = errors.UnknownGroupError(group="analytics", known=("default",))
    assert "'analytics'" in str(unknown)
    assert "default" in str(unknown)
    assert "Replica(url, groups={'analytics'})" in str(unknown)
    assert "none" in str(errors.UnknownGroupError(group="analytics", known=()))
    assert "primary_reads=False" in str(errors.NoReplicaAvailable(group=None))
    assert "'analytics'" in str(errors.NoReplicaAvailable(group="analytics"))
    assert "modern-di-replicas[testing]" in str(errors.BinaryNotFoundError(searched=("/usr",)))
    assert "@write_intent" in str(errors.WriteOnReplicaError(endpoint="", statement="UPDATE"))
    busy = str(errors.SharedConnectionBusyError(waiting="GET /a", holding="POST /b", timeout=5))
    assert "GET /a waited 5 s for POST /b" in busy
    assert "SessionFactory" in busy
    docker = str(errors.DockerNotAvailableError(image="postgres:16", reason="no engine"))
    assert "'postgres:16' could be started: no engine" in docker
    assert "LocalCluster" in docker
