"""The endpoints that the demo adds to its application: a page, its events, and its buttons. On 127.0.0.1 only."""

import asyncio
import collections.abc
import functools
import importlib.resources
import json
import typing

import fastapi
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from modern_di_fastapi import fetch_di_container

from modern_di_replicas import PrimaryEngine, ReplicaEngine
from modern_di_replicas.demo.faults import Faults, NotPossibleError
from modern_di_replicas.demo.live.picture import Picture
from modern_di_replicas.demo.live.requests import CountRequests, Requests
from modern_di_replicas.errors import ReplicasError


INTERVAL: typing.Final = 0.25
"""Seconds between two events."""

PAGE_HEADERS: typing.Final = {
    # The page needs no external resources, and may load none.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
    ),
    "Cache-Control": "no-store",
}


class Live:
    """The live page of an application.

    Args:
        app: the application, set up and not started yet.
        faults: breaks and repairs its servers.

    """

    def __init__(self, app: fastapi.FastAPI, faults: Faults) -> None:
        self._app = app
        self.faults = faults
        self._requests = Requests({server.port: server.name for server in faults.servers})
        self._is_over = asyncio.Event()
        app.add_middleware(CountRequests, requests=self._requests)
        app.add_api_route("/", self._page, include_in_schema=False)
        app.add_api_route("/live/events", self._events, include_in_schema=False)
        app.add_api_route("/live/{server}/{fault}", self._commit, methods=["POST"], include_in_schema=False)

    @functools.cached_property
    def picture(self) -> Picture:
        """The data of the page; available once the application has started."""
        container = fetch_di_container(self._app)
        return Picture(
            faults=self.faults,
            requests=self._requests,
            primary=container.resolve(PrimaryEngine),
            replicas=container.resolve(ReplicaEngine),
        )

    def close(self) -> None:
        """End the streams; otherwise a server would wait for them before it stops."""
        self._is_over.set()

    async def _page(self) -> HTMLResponse:
        page = importlib.resources.files(__package__) / "page.html"
        return HTMLResponse(page.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    async def _events(self) -> StreamingResponse:
        return StreamingResponse(
            self._pictures(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _pictures(self) -> collections.abc.AsyncIterator[str]:
        yield "retry: 500\n\n"
        while not self._is_over.is_set():
            yield f"data: {json.dumps(self.picture.as_json())}\n\n"
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._is_over.wait()
            except TimeoutError:
                continue

    async def _commit(self, server: str, fault: str, request: fastapi.Request) -> fastapi.Response:
        # Browsers send the origin of a request; a page of another site must not break anything.
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return JSONResponse({"detail": "Only the page of the demo may do this."}, status_code=403)
        try:
            await self.faults.commit(fault, server)
        except (NotPossibleError, ReplicasError) as error:
            return JSONResponse({"detail": str(error)}, status_code=409)
        return fastapi.Response(status_code=204)
