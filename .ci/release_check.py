"""Check an installed wheel before a release: its metadata, its license, and the README's example on a local cluster.

Run by `make release-check` with the interpreter of an environment that has the wheel and nothing of this repository.
"""

import asyncio
import importlib.metadata
import re
import sys
import typing

import httpx
import trove_classifiers
from rich.console import Console
from sqlalchemy import Connection, Engine, event

import modern_di_replicas
from modern_di_replicas import ReplicationSettings
from modern_di_replicas.testing import LocalCluster


DISTRIBUTION: typing.Final = importlib.metadata.distribution("modern-di-replicas")
README: typing.Final = str(DISTRIBUTION.metadata.get_payload())  # type: ignore[attr-defined]  # it is a message
CODE: typing.Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RELATIVE_LINK: typing.Final = re.compile(r"\]\((?!https://)([^)]*)\)")
EXPECTED: typing.Final = {"GET /users": "a replica", "POST /users": "the primary"}


def check_metadata() -> list[str]:
    """Return the metadata that an index would refuse or display incorrectly."""
    metadata = DISTRIBUTION.metadata
    files = [str(file) for file in DISTRIBUTION.files or []]
    present = {
        "author": metadata["Author"],
        "keywords": metadata["Keywords"],
        "project URLs": metadata.get_all("Project-URL"),
        "license": [file for file in files if file.endswith("licenses/LICENSE")],
        "py.typed": [file for file in files if file.endswith("/py.typed")],
    }
    classifiers = metadata.get_all("Classifier") or []
    return [
        *(f"missing: {name}" for name, found in present.items() if not found),
        *(f"unknown classifier: {each}" for each in classifiers if each not in trove_classifiers.classifiers),
        *(f"relative link in the README: {link}" for link in RELATIVE_LINK.findall(README)),
        *([] if ".venv-release" in modern_di_replicas.__file__ else ["the wheel is not what is imported"]),
    ]


async def run_example() -> dict[str, str]:
    """Run the README's example on a local cluster, and return the server of each response."""
    example: dict[str, typing.Any] = {"__name__": "example"}
    for code in CODE.findall(README):
        exec(code, example)  # noqa: S102  # our own README
    app, container = example["app"], example["container"]
    answered: dict[str, str] = {}
    with LocalCluster(replicas=1) as cluster:
        cluster.primary.execute("CREATE TABLE users (id serial PRIMARY KEY)")
        cluster.catch_up()
        addresses = ReplicationSettings(primary=cluster.primary.url, replicas=[cluster.replicas[0].url])
        container.set_context(ReplicationSettings, addresses)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://example") as client,
        ):
            for request in EXPECTED:
                answered[request] = await _server_of(client, request)
    return answered


async def _server_of(client: httpx.AsyncClient, request: str) -> str:
    found: set[str] = set()

    def ask(connection: Connection, *_: object) -> None:
        cursor = connection.connection.cursor()
        cursor.execute("SELECT pg_is_in_recovery()")
        found.update("a replica" if row[0] else "the primary" for row in cursor.fetchall())
        cursor.close()

    event.listen(Engine, "after_cursor_execute", ask)
    try:
        (await client.request(*request.split())).raise_for_status()
    finally:
        event.remove(Engine, "after_cursor_execute", ask)
    return ", ".join(sorted(found))


def main() -> int:
    """Print each check, and return the number of failures."""
    console = Console()
    problems = check_metadata()
    answered = asyncio.run(run_example())
    problems += [
        f"README's example: {request} was answered by {server}"
        for request, server in answered.items()
        if server != EXPECTED[request]
    ]
    console.print(f"{DISTRIBUTION.name} {DISTRIBUTION.version}", style="bold")
    for request, server in answered.items():
        console.print(f"  README's example, {request}: {server}")
    for problem in problems:
        console.print(f"  {problem}", style="bold red")
    console.print("[green]ready for a release[/]" if not problems else "[red]not ready[/]")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
