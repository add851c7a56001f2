"""A soak test with faults, compared with plain SQLAlchemy: `make soak`, or `python -m tests.soak --seconds 60`.

Compares memory, tasks, descriptors and objects; ours may not grow where the control does not.
"""

import argparse
import asyncio
import json
import random
import sys
import typing

from modern_di_replicas.testing import LocalCluster
from tests.soak.growth import KINDS, evaluate


WARMING_UP = 0.3
"""The share of the samples before pools, caches and the allocator are stable."""


async def contender(name: str, seconds: float, urls: list[str]) -> list[dict[str, typing.Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.worker", name, str(seconds), *urls, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return [json.loads(line) for line in output.splitlines()]


async def faults(cluster: LocalCluster) -> None:
    """Break one server after another, and undo it."""
    chosen = random.Random(7)  # noqa: S311  # for choosing
    while True:
        await asyncio.sleep(3)
        server = chosen.choice(cluster.servers)
        kind = chosen.choice(["restart", "crash", "freeze", "terminate"])
        if kind == "restart":
            await asyncio.to_thread(server.restart)
        elif kind == "crash":
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.to_thread(server.start)
        elif kind == "freeze":
            await asyncio.to_thread(server.freeze)
            await asyncio.sleep(2)
            await asyncio.to_thread(server.thaw)
        else:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'app%'"
            await asyncio.to_thread(server.execute, end)


async def main(seconds: float) -> int:
    with LocalCluster() as cluster:
        cluster.primary.execute("CREATE TABLE soaked (n bigserial)")
        cluster.catch_up()
        urls = [server.url for server in cluster.servers]
        breaking = asyncio.create_task(faults(cluster))
        routed, plain = await asyncio.gather(contender("routed", seconds, urls), contender("plain", seconds, urls))
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
    for name, samples in (("routed", routed), ("plain", plain)):
        last = samples[-2]
        sys.stdout.write(f"{name}: {last['reads']} reads, {last['writes']} writes\n")
        for kind in KINDS:
            values = [sample[kind] for sample in samples[1:-1]]
            settled = values[int(len(values) * WARMING_UP) :]
            sys.stdout.write(
                f"  {kind:12} before {samples[0][kind]:>12,} settled {settled[0]:>12,} at the end {settled[-1]:>12,} "
                f"after {samples[-1][kind]:>12,}\n"
            )
    complaints = evaluate(routed, plain, warming_up=WARMING_UP)
    sys.stdout.write("\n".join(complaints or ["Both hold alike."]) + "\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    sys.exit(asyncio.run(main(parser.parse_args().seconds)))
