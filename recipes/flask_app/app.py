"""A guest book on Flask: GET reads from a replica, POST writes to the primary, and exceptions have markers.

Run it:

    export DB_PRIMARY=postgresql+psycopg://app:secret@db-1/shop
    export DB_REPLICAS=postgresql+psycopg://app:secret@db-2/shop,postgresql+psycopg://app:secret@db-3/shop
    gunicorn --workers 4 --threads 8 --preload 'app:main()'

Each worker starts its monitor with its first request. `flask --app 'app:main()' clean` runs the command.
"""

from typing import Annotated

import click
import flask
from modern_di import Container, Scope, providers
from modern_di_flask import FromDI, inject
from sqlalchemy import delete, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from modern_di_replicas import STRONG, ReplicationSettings
from modern_di_replicas.flask import Dependencies, setup_replicas, with_replica


class Base(DeclarativeBase):
    pass


class Entry(Base):
    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[str]


class Entries:
    """Uses one session; contains no routing code."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def all(self) -> list[str]:
        return list(self.session.scalars(select(Entry.words).order_by(Entry.id)))

    def add(self, words: str) -> int:
        entry = Entry(words=words)
        self.session.add(entry)
        self.session.commit()
        return entry.id

    def find(self, words: str) -> list[str]:
        return list(self.session.scalars(select(Entry.words).where(Entry.words.contains(words))))


class AppDependencies(Dependencies):
    entries = providers.Factory(Entries, scope=Scope.REQUEST)


Injected = Annotated[Entries, FromDI(Entries)]
book = flask.Blueprint("book", __name__)


@book.get("/entries")
@inject
def list_entries(entries: Injected) -> list[str]:
    return entries.all()


@book.post("/entries")
@inject
def add_entry(entries: Injected) -> tuple[dict[str, int], int]:
    return {"id": entries.add(flask.request.get_json()["words"])}, 201


@book.post("/search")
@with_replica  # a POST that reads
@inject
def search(entries: Injected) -> list[str]:
    return entries.find(flask.request.get_json()["words"])


@book.get("/count")
@with_replica(consistency=STRONG)
@inject
def count(entries: Injected) -> dict[str, int]:
    return {"entries": len(entries.all())}


@book.get("/server")
@inject
def server(session: Annotated[Session, FromDI(Session)]) -> dict[str, object]:
    return {"standby": session.scalar(text("SELECT pg_is_in_recovery()"))}


@book.cli.command("clean")
@inject
def clean(session: Annotated[Session, FromDI(Session)]) -> None:
    """Delete all entries: a command is a unit of work that may write."""
    session.execute(delete(Entry))
    session.commit()
    click.echo("All entries are deleted.")


def create_app(settings: ReplicationSettings) -> flask.Flask:
    app = flask.Flask(__name__)
    container = Container(groups=[AppDependencies], context={ReplicationSettings: settings})
    setup_replicas(app, container)
    app.register_blueprint(book)

    @app.cli.command("report")
    @with_replica(container)  # a unit of work that reads
    def report(entries: Injected) -> None:
        click.echo(f"{len(entries.all())} entries")

    return app


def main() -> flask.Flask:
    return create_app(ReplicationSettings.from_env("DB_"))
