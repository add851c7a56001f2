import pathlib
import typing

import modern_di_replicas
from modern_di_replicas import errors


ROOT = pathlib.Path(__file__).parent.parent


def all_errors(error: type[errors.ReplicasError] = errors.ReplicasError) -> typing.Iterator[type[errors.ReplicasError]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from all_errors(subclass)


def test_every_error_has_a_troubleshooting_page_and_every_page_an_error() -> None:
    """A message ends with a link; the page it names exists, and no page is left behind."""
    slugs = {error.slug for error in all_errors()}

    assert {page.stem for page in (ROOT / "docs/troubleshooting").glob("*.md")} == slugs


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """The drawing is what a reader trusts."""
    assert errors.__doc__ is not None
    assert all(error.__name__ in errors.__doc__ for error in all_errors())


def test_a_message_ends_with_the_page_that_helps() -> None:
    """The link is where a reader of a traceback looks next."""
    error = errors.ConfigurationError(field="primary", value=1, remedy="x")

    assert str(error).endswith("/troubleshooting/configuration-error/")
    assert str(errors.ReplicasError()).startswith("modern-di-replicas failed")


def test_all_is_sorted_and_complete() -> None:
    """What the package exports is what it says it exports."""
    exported = {
        name
        for name, value in vars(modern_di_replicas).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("modern_di_replicas")
    }

    assert modern_di_replicas.__all__ == sorted(exported)
