"""Invalid tokens never raise an error, never force a read on the primary, and are always counted."""

import asyncio
import dataclasses
import time
import typing

import httpx
import pytest

from modern_di_replicas import ConsistencyToken
from modern_di_replicas.cluster.monitoring.probe import Probe
from modern_di_replicas.consistency.serializer import Rejection
from modern_di_replicas.routing.snapshot import Observation
from modern_di_replicas.testing import LocalCluster
from modern_di_replicas.tokens.validation import MAX_TEXTS
from tests.asgi.application import BUILDERS, Application, paused, settings_of


FAR = 1 << 40
NAME = "consistency-token"
ALPHABET = "0123456789abcdefABCDEF.-_=;, \x00\x7fé٣"


@pytest.fixture(params=list(BUILDERS))
def application(request: pytest.FixtureRequest, stock_cluster: LocalCluster) -> Application:
    return BUILDERS[request.param](settings_of(stock_cluster, probe_interval=0.2), {})


async def test_every_kind_of_bad_token_is_ignored_and_counted(
    application: Application, stock_cluster: LocalCluster
) -> None:
    """The replicas are paused, so an accepted token would send the read to the primary; these do not."""
    async with application.running(), application.client() as writer, application.client() as client:
        with paused(stock_cluster):
            await writer.post("/write/commit")
            text = writer.cookies[NAME]
            genuine = ConsistencyToken.parse(text)
            bad: dict[Rejection, str] = {
                "ahead": f"{NAME}={dataclasses.replace(genuine, lsn=genuine.lsn + FAR)}",
                "duplicated": "; ".join(f"{NAME}={text[:-n]}" for n in range(1, MAX_TEXTS + 2)),
                "expired": f"{NAME}={dataclasses.replace(genuine, issued_at=genuine.issued_at - 3600)}",
                "foreign": f"{NAME}={dataclasses.replace(genuine, database='0' * 16)}",
                "malformed": f"{NAME}={text[:-9]}",
                "oversized": f"{NAME}={'1' * 200}",
            }
            for kind, cookie in bad.items():
                response = await client.get("/read", headers={"Cookie": cookie})
                assert response.json()["replica"], kind
                assert application.tokens.rejected == {kind: 1}, kind
                application.tokens.rejected.clear()
            later = str(dataclasses.replace(genuine, timeline=genuine.timeline + 1, lsn=1))
            assert (await client.get("/read", headers={"Cookie": f"{NAME}={later}"})).json()["replica"]
            assert application.tokens.rejected == {"ahead": 1}

            empty = await client.get("/read", headers={"Cookie": f'; ;=; {NAME}; other="; x=y; {NAME}x=1'})
            assert empty.json()["replica"]
            believed = await client.get("/read", headers={"Cookie": f"a=b; {NAME}={text} ;c=d"})
            assert not believed.json()["replica"]


@pytest.mark.parametrize("secret", [None, "secret"])
async def test_of_several_tokens_the_latest_valid_one_counts(stock_cluster: LocalCluster, secret: str | None) -> None:
    """INVARIANT: a cookie of the same name from another subdomain does not hide the client's own writes."""
    application = BUILDERS["fastapi"](settings_of(stock_cluster, token_secret=secret), {})
    async with application.running(), application.client() as writer, application.client() as client:
        await writer.post("/write/commit")
        older = writer.cookies[NAME]
        with paused(stock_cluster):
            await writer.post("/write/commit")
            latest = writer.cookies[NAME]
            made_up = str(
                dataclasses.replace(
                    ConsistencyToken.parse(latest.rpartition(".")[0] if secret else latest), lsn=FAR * 9
                )
            )
            for texts in ([older, latest], [latest, older], [made_up, latest], [latest, "x"], [latest, latest]):
                cookie = "; ".join(f"{NAME}={text}" for text in texts)
                assert not (await client.get("/read", headers={"Cookie": cookie})).json()["replica"], texts
            assert (await client.get("/read", headers={"Cookie": f"{NAME}={made_up}; {NAME}=x"})).json()["replica"]


async def test_forged_tokens_ask_the_primary_at_most_once_per_probe_interval(
    stock_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INVARIANT: a thousand forged tokens cost the primary no more than one."""
    asked: list[str] = []
    ask = Probe.ask

    async def counted(probe: Probe, **options: typing.Any) -> Observation:
        asked.append(probe.url)
        return await ask(probe, **options)

    application = BUILDERS["fastapi"](settings_of(stock_cluster, probe_interval=0.5), {})
    async with application.running(), application.client() as client:
        genuine = await written(client)
        client.cookies.clear()
        monkeypatch.setattr(Probe, "ask", counted)
        began = time.monotonic()
        for _ in range(3):
            forged = [str(dataclasses.replace(genuine, lsn=genuine.lsn + FAR + n)) for n in range(20)]
            with paused(stock_cluster):
                answers = await asyncio.gather(
                    *(client.get("/read", headers={"Cookie": f"{NAME}={text}"}) for text in forged)
                )
            assert all(answer.json()["replica"] for answer in answers)
        intervals = (time.monotonic() - began) / 0.5
        assert application.tokens.rejected == {"ahead": 60}
    # Once for all clients, and once by the monitor as usual; its probe may start up to 10 % early.
    assert asked.count(stock_cluster.primary.url) <= 2 * (intervals / 0.9 + 1)


async def test_a_token_that_cannot_be_checked_is_believed(disposable_cluster: LocalCluster) -> None:
    """The primary is frozen: a read that may depend on a write must not be served without it."""
    disposable_cluster.primary.execute("CREATE TABLE stock (id int PRIMARY KEY, amount int)")
    disposable_cluster.catch_up()
    application = BUILDERS["fastapi"](settings_of(disposable_cluster, probe_interval=0.1, probe_timeout=0.3), {})
    async with application.running() as running:
        topology = running.tokens
        genuine = await running_token(running)
        disposable_cluster.primary.freeze()
        ahead = dataclasses.replace(genuine, lsn=genuine.lsn + FAR)
        assert await topology.admit([str(ahead)]) == ahead
        assert await topology.admit([str(genuine)]) == genuine
        disposable_cluster.primary.thaw()


async def test_requests_that_wait_for_the_same_answer_are_cancelled_alone(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: a client that disconnects while the primary is asked for a position cancels no other response."""
    application = BUILDERS["fastapi"](settings_of(disposable_cluster, probe_interval=60, probe_timeout=20), {})
    async with application.running() as running:
        disposable_cluster.primary.freeze()
        patient, impatient = (asyncio.ensure_future(running.tokens.now()) for _ in range(2))
        await asyncio.wait({patient, impatient}, timeout=0.1)
        impatient.cancel()
        await asyncio.wait({impatient})
        disposable_cluster.primary.thaw()
        assert impatient.cancelled()
        assert await asyncio.wait_for(patient, 20) is not None


async def running_token(application: Application) -> ConsistencyToken:
    """Return a token for the primary's current position."""
    found = await application.tokens.now()
    assert found is not None
    return found


async def written(client: httpx.AsyncClient) -> ConsistencyToken:
    await client.post("/write/commit")
    return ConsistencyToken.parse(client.cookies[NAME])
