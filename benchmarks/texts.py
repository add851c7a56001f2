"""What the report says between its tables."""

import typing


BUSY: typing.Final = """\
**The machine was busy before the run began ({load:.1f} processes for each core): the times below are not to be relied
on, and a figure that was missed may be the fault of the others.**"""
HOW: typing.Final = """\
The figures to reach are what this project asks of itself. A figure is the median of the rounds ({fewest} to {most} of
them), with the quartiles in brackets. In each round all contenders take turns, in another order each time, and a ratio
is one of both runs of the same round."""
WHERE: typing.Final = """\
The whole run took {seconds:.0f} s. The primary, its two replicas, the contender and the clients share this machine, so
a round trip costs next to nothing here; over a network each one adds its latency.
{placement}"""
DIVIDED: typing.Final = """\
The contenders run on one processor, and the servers and the clients on the others: a server that happens to run on its
client's processor answers in a third of the time, since nobody has to be woken, and where the system puts them changes
by chance."""
TOGETHER: typing.Final = """\
Everybody runs on all processors, since this system does not let a process choose: a server that happens to run on its
client's processor answers faster than from another one, so the ratios vary more than they would otherwise."""
TWO_REPLICAS: typing.Final = """\
For the first two figures all read from the same replica. In the tables below we take turns between two, as one does who
has two, and the raw asyncpg pool and the recipe go on with one: there our read by key takes {pool} of the pool's time
and {recipe} of the recipe's. Of two server processes on one processor, each finds its caches cold."""
ORM_SHARE: typing.Final = """\
On that one replica, SQLAlchemy's `Session` alone, in the barest form by its own means (a statement that is built
before, no `AsyncSession`, no container, no choice of a server), takes {share} of the raw asyncpg pool's time for the
read by key; the pool resets its connection in a round trip of its own."""
IN_SHORT: typing.Final = """\
Our time as a multiple of theirs / our processor time as a multiple of theirs: **below 1 we are faster**. The modern-di
recipe is what the documentation of modern-di shows for read replicas."""
REQUESTS: typing.Final = """\
Our time as a multiple of theirs / our processor time as a multiple of theirs: **below 1 we are faster**. Our own lines
are the time of one operation in µs / the processor time; with several clients, the time is the reciprocal of the
throughput. The processor time is that of the contender's process. Advanced Alchemy is compared with ours on
SQLAlchemy 2.0.

Everyone does the same statements, on {reading} connections for reads and {writing} for writes. Over HTTP the visitors
have no token yet: what one adds is told below. They share the machine with the servers and the contender, so there the
processor time tells more than the time."""
ROUND_TRIPS: typing.Final = """\
In an application that is busy: our first statement on a connection to the primary that was idle for a second is
preceded by a ping."""
COST: typing.Final = """\
What it adds to a plain `AsyncSession` in autocommit on one engine, from the same kind of container: measured with 1 and
with 11 Core reads for each request, both in one process on the same replica, in turns of a few requests. The monitor's
time falls on both alike; what a choice among more replicas adds is in the last table but one. Our session takes less
time than SQLAlchemy's for the same, so the sum may be below zero; the last line is what the choice and the routing add
to our session itself."""
TOKENS: typing.Final = """\
What consistency tokens add to a request through FastAPI by one client. Right after a write no replica is known to have
it, so a read asks the replicas first; later reads find that in memory."""
CONSISTENCY: typing.Final = """\
All replicas lag by {lag:g} ms (`recovery_min_apply_delay`). Each visitor sends a request every {thinking:g} ms on
average, of which {writes:.0%} write; a read is stale when its visitor has written something newer."""
VISITS: typing.Final = """\
{visitors} visitors of each contender read over HTTP, with their cookies, a request every {period:g} s as long as they
are answered in that time, all contenders at once. One replica, which everyone reads who reads from replicas, freezes or
crashes, and comes back; then all replicas stop replaying, and visitors write before they read. The slowest read counts
to its end, or to the end of the script. Each fault lasts {seconds:g} s and happens once, so there is no spread."""
