"""The servers, and the connections to them.

The life of a server:

1. `cluster/engines/create.py` `create_replica_engine`: each declared server gets its own engine and pool.
2. `cluster/topology.py` `Topology.add`: the topology knows every server, the declared primary included.
3. `cluster/monitoring/probe.py` `Probe.ask`: the monitor asks each server for its role, on its own connection.
4. `routing/snapshot.py` `assemble`: all answers together give the role and the lag of each server.
5. `routing/eligibility.py` `eligible`: standbys that are up and fresh enough serve the reads of their groups.
6. `cluster/topology.py` `Topology.choose_server`: the balancer chooses one of them for a unit of work.
7. `cluster/health.py` `Health.failed`: a server that a session cannot reach is ejected for a while.
8. `cluster/health.py` `Health.declare_down`: a server that does not answer probes is down; its connections end.
9. `cluster/engines/primary.py` `PrimaryRole.follow`: after a promotion, writes follow the new primary.
10. `cluster/pools/open_connections.py` `OpenConnections.closed`: at the end its connections are closed.
"""
