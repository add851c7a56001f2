"""modern-di-replicas on psycopg, and behind a pgbouncer in front of each server."""

import typing

from sqlalchemy import make_url

from benchmarks.contenders.ours import Ours
from benchmarks.pooler import Pooler
from benchmarks.servers import Servers


def on_psycopg(servers: Servers) -> Servers:
    def changed(url: str) -> str:
        return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    return Servers(primary=changed(servers.primary), replicas=tuple(map(changed, servers.replicas)))


class OursOnPsycopg(Ours):
    def __init__(self, servers: Servers) -> None:
        super().__init__(on_psycopg(servers))


class OursBehindPooler(Ours):
    options: typing.ClassVar = {"pooled": True}

    def __init__(self, servers: Servers) -> None:
        self._poolers = [Pooler(url) for url in (servers.primary, *servers.replicas)]
        primary, *replicas = (pooler.url for pooler in self._poolers)
        super().__init__(Servers(primary=primary, replicas=tuple(replicas)))

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        for pooler in self._poolers:
            pooler.end()


class OursOnPsycopgBehindPooler(OursBehindPooler):
    def __init__(self, servers: Servers) -> None:
        super().__init__(on_psycopg(servers))
