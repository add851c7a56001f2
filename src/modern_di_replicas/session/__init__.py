"""The session of a unit of work.

The life of a statement:

1. `dependencies.py` `choose_engine`: the intent of the unit of work chooses the primary or one replica.
2. `session/routed.py` `RoutedSession.__init__`: on a replica the session gets the routing, on the primary none.
3. `session/replica.py` `ReplicaSession._run`: every statement runs here, including those of the ORM's own loading.
4. `session/replica.py` `ReplicaSession._choose_engine`: a write that is known beforehand moves to the primary unsent.
5. `session/binds.py` `BoundSession.get_bind`: the first statement takes the replica's connection and keeps it.
6. `cluster/engines/read_connections.py` `SessionReads._check_statement`: the text is checked just before it is sent.
7. `cluster/failures.py` `classify`: if it fails, the class of its error decides what happens next.
8. `session/leaving.py` `LeavingSession._leave_after`: on a new connection, or elsewhere, it runs once more.
9. `session/stale_writes.py` `StaleWriteGuard.check_object`: a flush writes no object that was read from a replica only.
10. `session/leaving.py` `LeavingSession.end_reading`: the end of the transaction returns the connection.
"""
