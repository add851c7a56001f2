"""Typer with modern-di-typer, whose commands and finalizers are synchronous."""

import asyncio
import typing

import modern_di_typer
import typer
import typer.testing
from modern_di import Container, Scope
from modern_di_typer import FromDI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Intent, RoutedSession
from tests.packages.conftest import Word, Words


async def count(container: Container, intent: Intent) -> int:
    async with container.build_child_container(scope=Scope.REQUEST, context={Intent: intent}) as unit:
        session = unit.resolve(AsyncSession)
        return int(await session.scalar(select(func.count()).select_from(Word)) or 0)


def test_a_command_reads_and_writes(words: Words) -> None:
    """In a program with one event loop: units of work below the application's container, as in a job."""
    app = typer.Typer()

    @app.command()
    def counted(context: typer.Context) -> None:
        async def run() -> None:
            async with words.monitored():
                container = modern_di_typer.fetch_di_container(context)
                read = await count(container, Intent.read())
                assert words.servers() == {"a replica"}
                written = await count(container, Intent.write())
                assert words.servers() == {"the primary"}
                typer.echo(f"{read} {written}")

        asyncio.run(run())

    modern_di_typer.setup_di(app, words.container)
    result = typer.testing.CliRunner().invoke(app, [])
    assert (result.exception, result.stdout) == (None, "3 3\n")


def test_an_injected_session_is_closed_by_the_command(words: Words) -> None:
    """`modern-di-typer` closes synchronously; an already closed session does not raise an error there."""
    app = typer.Typer()

    @app.command()
    @modern_di_typer.inject
    def counted(session: typing.Annotated[RoutedSession, FromDI(RoutedSession)]) -> None:
        async def run() -> None:
            async with words.container, session:
                typer.echo(await session.scalar(select(func.count()).select_from(Word)))

        asyncio.run(run())

    modern_di_typer.setup_di(app, words.container)
    result = typer.testing.CliRunner().invoke(app, [])
    assert (result.exception, result.stdout) == (None, "3\n")
