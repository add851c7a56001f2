"""The report on the server of a request, which the application writes into the response."""

import collections.abc
import dataclasses
import typing
from typing import Annotated

import fastapi
from fastapi.routing import APIRoute
from modern_di_fastapi import FromDI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modern_di_replicas import Intent, RoutedSession, current_token
from modern_di_replicas.intent import marked_intent


SERVER_QUERY: typing.Final = text("SELECT inet_server_port(), pg_is_in_recovery()")


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Report:
    """Where one request was answered, and why there."""

    port: int
    """From the server: `inet_server_port()`."""
    in_recovery: bool
    """From the server: `pg_is_in_recovery()`, true on a standby."""
    server: str
    """The name of the server that the session chose."""
    intent: str
    """`read` or `write`."""
    group: str
    """The requested group of replicas; empty for the default one."""
    marker: str
    """The marker of the endpoint; empty when it has none."""
    level: str
    """The consistency level of the marker; empty without one."""
    has_token: bool
    """Whether the client sent the token of an earlier write."""
    reason: str
    """Why the session chose this server."""

    def as_headers(self) -> dict[str, str]:
        return {
            "X-Server-Port": str(self.port),
            "X-In-Recovery": str(self.in_recovery).lower(),
            "X-Server": self.server,
            "X-Intent": self.intent,
            "X-Group": self.group,
            "X-Marker": self.marker,
            "X-Level": self.level,
            "X-Has-Token": str(self.has_token).lower(),
            "X-Reason": self.reason,
        }

    @classmethod
    def from_headers(cls, headers: typing.Mapping[str, str]) -> typing.Self:
        """Return the report in a response."""
        return cls(
            port=int(headers["X-Server-Port"]),
            in_recovery=headers["X-In-Recovery"] == "true",
            server=headers["X-Server"],
            intent=headers["X-Intent"],
            group=headers["X-Group"],
            marker=headers["X-Marker"],
            level=headers["X-Level"],
            has_token=headers["X-Has-Token"] == "true",
            reason=headers["X-Reason"],
        )


async def remember_unit_of_work(
    request: fastapi.Request,
    session: Annotated[RoutedSession, FromDI(AsyncSession)],
    intent: Annotated[Intent, FromDI(Intent)],
) -> None:
    """Store the session of the handler, to ask it afterwards."""
    request.state.session = session
    request.state.intent = intent
    # Before the handler runs: afterwards it includes the handler's own writes.
    request.state.has_token = current_token() is not None


async def report_of(request: fastapi.Request) -> Report:
    """Ask the server for its identity, in the session of the handler."""
    session: RoutedSession = request.state.session
    intent: Intent = request.state.intent
    marked = marked_intent(request.scope["endpoint"])
    port, in_recovery = (await session.execute(SERVER_QUERY)).one()
    # Some versions of FastAPI have closed the session by now, and it has just opened again.
    await session.close()
    return Report(
        port=port,
        in_recovery=in_recovery,
        server=session.decision.server,
        intent=intent.access.value,
        group=intent.group or "",
        marker=marked.reason if marked else "",
        level=repr(marked.consistency) if marked and marked.consistency else "",
        has_token=request.state.has_token,
        reason=session.decision.reason,
    )


class ReportingRoute(APIRoute):
    """Adds a report to each response, after the handler: by then its statements may have moved to the primary."""

    def get_route_handler(
        self,
    ) -> collections.abc.Callable[
        [fastapi.Request], collections.abc.Coroutine[typing.Any, typing.Any, fastapi.Response]
    ]:
        answer = super().get_route_handler()

        async def answer_and_report(request: fastapi.Request) -> fastapi.Response:
            response = await answer(request)
            response.headers.update((await report_of(request)).as_headers())
            return response

        return answer_and_report
