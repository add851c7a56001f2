"""A token remains valid after a failover, and requires only writes that the new primary has."""

import asyncio
import dataclasses
import time

from modern_di_replicas import ConsistencyToken
from modern_di_replicas.testing import LocalCluster
from tests.asgi.application import BUILDERS, Application, settings_of
from tests.asgi.conftest import create_stock
from tests.waiting import until


async def test_after_a_failover_a_token_requires_only_surviving_writes(disposable_cluster: LocalCluster) -> None:
    """INVARIANT: no read waits for writes lost in the failover; each read sees those that survived."""
    create_stock(disposable_cluster)
    former, promoted, standby = disposable_cluster.servers
    # Signed, so that the test can construct a token for a lost write.
    settings = settings_of(disposable_cluster, probe_interval=0.1, token_secret="of the test")
    first, second = BUILDERS["fastapi"](settings, {}), BUILDERS["fastapi"](settings, {})
    async with first.running(), second.running(), first.client() as client:
        await client.post("/write/commit")
        kept = first.tokens.decode(client.cookies["consistency-token"])
        assert kept is not None
        lost = dataclasses.replace(kept, lsn=kept.lsn + (1 << 30))
        disposable_cluster.catch_up()
        await asyncio.to_thread(former.stop, "immediate")
        await asyncio.to_thread(promoted.promote)
        await asyncio.to_thread(standby.follow, promoted)
        await until_written(first)
        await until_written(second)

        for application in (first, second):
            for token in (kept, lost):
                await until_read_by(application, token, replica=True)
        # A worker that starts now sees the new timeline only.
        third = BUILDERS["fastapi"](settings, {})
        async with third.running():
            await until_read_by(third, lost, replica=True)

        standby.pause_replay()
        await client.post("/write/commit")
        renewed = first.tokens.decode(client.cookies["consistency-token"])
        assert renewed is not None
        assert renewed.timeline == 2
        assert not (await client.get("/read")).json()["replica"]
        standby.resume_replay()
        await until_read_by(first, renewed, replica=True)


async def test_a_token_of_an_unknown_timeline_asks_the_servers(
    disposable_cluster: LocalCluster,
) -> None:
    """INVARIANT: another worker may know a newer timeline; its token is valid, and its primary is found."""
    create_stock(disposable_cluster)
    former, promoted, standby = disposable_cluster.servers
    quick = BUILDERS["fastapi"](settings_of(disposable_cluster, probe_interval=0.1), {})
    slow = BUILDERS["fastapi"](settings_of(disposable_cluster, probe_interval=60.0), {})
    async with quick.running(), slow.running(), quick.client() as client:
        await asyncio.to_thread(former.stop, "immediate")
        await asyncio.to_thread(promoted.promote)
        await asyncio.to_thread(standby.follow, promoted)
        await until_written(quick)
        await client.post("/write/commit")
        token = ConsistencyToken.parse(client.cookies["consistency-token"])

        assert token.timeline == 2
        await until_read_by(slow, token, replica=True)
        assert slow.tokens.rejected.total() == 0


async def until_written(application: Application) -> None:
    async def is_written() -> bool:
        return (await client.post("/write/commit")).is_success

    async with application.client() as client:
        await until(is_written)


async def until_read_by(application: Application, token: ConsistencyToken, *, replica: bool) -> None:
    """Wait until a client with a token is served by a replica or by the primary, without letting the token expire."""

    async def is_read_there() -> bool:
        text = application.tokens.encode(dataclasses.replace(token, issued_at=int(time.time())))
        async with application.client(headers={"Cookie": f"consistency-token={text}"}) as client:
            response = await client.get("/read")
        return response.is_success and response.json()["replica"] is replica

    await until(is_read_there)
