"""`python -m modern_di_replicas demo`."""

import asyncio
import contextlib
import signal
import sys
import typing

import httpx
from rich.console import Console

from modern_di_replicas.demo.answers import Answers
from modern_di_replicas.demo.application import create_application
from modern_di_replicas.demo.breaking import break_servers
from modern_di_replicas.demo.commands import Commands
from modern_di_replicas.demo.faults import Faults
from modern_di_replicas.demo.flask_application import visit_flask
from modern_di_replicas.demo.interruption import Interruption, interruption_of
from modern_di_replicas.demo.live.endpoints import Live
from modern_di_replicas.demo.log import shown_log
from modern_di_replicas.demo.scenario import Visitor, curl_lines, visit
from modern_di_replicas.demo.screen import Screen
from modern_di_replicas.demo.server import serving
from modern_di_replicas.demo.terminal import typed_lines
from modern_di_replicas.demo.topology import describe, settings_for
from modern_di_replicas.demo.traffic import Traffic
from modern_di_replicas.errors import ReplicasError
from modern_di_replicas.testing import LocalCluster


FAILED: typing.Final = 1
INTERRUPTED: typing.Final = 128
"""Exit status base of a signal; https://www.gnu.org/software/bash/manual/html_node/Exit-Status.html."""

CLIENT: typing.Final = {"name": "Katherine Johnson", "email": "katherine@example.com"}
"""The user of the clients that send requests while the demo serves."""

CLIENT_PAUSE: typing.Final = 0.2
"""Seconds between two requests of one of them."""


def run(*, serve: bool = False, tour: bool = False, port: int = 0) -> int:
    """Run the demo and return its exit status: 0, 1 when it cannot run, 128 + the signal that interrupted it.

    Args:
        tour: whether to end after the tour, without breaking the servers.
        serve: whether to keep it running afterwards, until a signal ends it; that is its normal end.
        port: the port of the application; 0 for a free one.

    """
    console = Console()
    screen = Screen(console=console, errors=Console(stderr=True))
    try:
        return asyncio.run(_run(console, screen, serve=serve, tour=tour, port=port))
    except ReplicasError as error:
        screen.show_failure(error)
        return FAILED


async def _run(console: Console, screen: Screen, *, serve: bool, tour: bool, port: int) -> int:
    task = typing.cast("asyncio.Task[typing.Any]", asyncio.current_task())
    with interruption_of(task) as interruption:
        try:
            await _show(console, screen, interruption, serve=serve, tour=tour, port=port)
        except asyncio.CancelledError:
            screen.show_interruption()
            return INTERRUPTED + (interruption.signal or signal.SIGINT)
    screen.show_end()
    return 0


async def _show(  # noqa: PLR0913  # each is one thing it works with
    console: Console, screen: Screen, interruption: Interruption, *, serve: bool, tour: bool, port: int
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(shown_log(screen.show_log))
        with screen.start_of_cluster() as show_step:
            cluster = await stack.enter_async_context(LocalCluster(progress=show_step))
        settings = settings_for(cluster)
        screen.show_topology(await describe(cluster, settings))
        app = create_application(settings)
        live = Live(app, Faults(cluster)) if serve else None
        url = await stack.enter_async_context(serving(app, port=port))
        if live is not None:
            stack.callback(live.close)
        screen.show_application(url)
        # Without the proxy of the environment: the application is on this machine.
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            visitor = Visitor(client=client, view=screen)
            user_id = await visit(visitor)
        screen.show_flask()
        on_flask = await asyncio.to_thread(visit_flask, settings, screen)
        screen.show_summary([*visitor.exchanges, *on_flask])
        if live is not None:
            screen.show_invitation(url, curl_lines(url, user_id))
            await _serve(console, interruption, live, url)
        else:
            if not tour:
                await _break(screen, cluster, url, user_id)
            screen.show_next_steps()


async def _serve(console: Console, interruption: Interruption, live: Live, url: str) -> None:
    """Let clients send requests, and run typed commands, until a signal arrives."""
    answers = Answers(console)
    commands = Commands(live.faults, answers, servers=live.picture.servers)
    async with (
        Traffic(url=url, user_id=await _create_client(url), user=CLIENT, pause=CLIENT_PAUSE),
        typed_lines(sys.stdin, commands.execute),
    ):
        answers.show_invitation(url)
        await interruption.wait()


async def _create_client(url: str) -> int:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        response = await client.post("/users", json=CLIENT)
    user_id: int = response.raise_for_status().json()["id"]
    return user_id


async def _break(screen: Screen, cluster: LocalCluster, url: str, user_id: int) -> None:
    screen.show_traffic(cluster)
    async with Traffic(url=url, user_id=user_id, show=screen.show_answer) as traffic:
        experiments = await break_servers(cluster, traffic, screen)
    screen.show_result(experiments)
