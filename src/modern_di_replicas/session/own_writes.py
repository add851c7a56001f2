"""Reads on a replica include the commits of their client since the unit of work began, in any session."""

from modern_di_replicas.cluster.waiting import wait_for
from modern_di_replicas.consistency.client import Client, client_of_request
from modern_di_replicas.consistency.levels import SESSION
from modern_di_replicas.consistency.token import ConsistencyToken
from modern_di_replicas.routing.decision import Cause
from modern_di_replicas.session.unsent_writes import UnsentWritesSession


class OwnWritesSession(UnsentWritesSession):
    """A session that stays on its replica as long as that has all writes of the request's client.

    Another session of the request, or Core on `PrimaryEngine`, may commit after this one was injected.
    """

    _client: Client | None = None
    """The client whose writes it includes; None if it does not have to."""
    _included: ConsistencyToken | None = None
    """The client's latest position that the replica is known to have reached."""

    def watch_client(self) -> None:
        """Include the later writes of the current request's client, if the reads declare that."""
        level = self._intent.consistency or self._replica.settings.consistency
        client = client_of_request() if level is SESSION else None
        if client is not None:
            self._client, self._included = client, client.received

    @property
    def lacks_own_writes(self) -> bool:
        """Whether the client has written since, and the next statement may see it."""
        client = self._client
        if client is None or (client.token is self._included and not client.position_unknown):
            return False
        # In a transaction its statements belong together, as do the statements of one load.
        return self.escalation is None and self._executing is None and (self._autocommit or not self._reading)

    def include_own_writes(self) -> None:
        """Wait until the replica has the writes of the client; move to the primary if it has not in time.

        Raises:
            NoReplicaAvailable: it has not in time, and the settings say `primary_reads=False`.

        """
        client, replica = self._client, self._replica
        if client is None or client.position_unknown:
            self.escalate(Cause.POSITION_UNKNOWN, "the position of its client's last write is unknown")
            return
        token = client.token
        with self.provisioning():
            read = wait_for(replica.sync_engine.dialect, replica.following(self._intent, token))
        if read is None:
            replica.topology.without_replica(self._intent.group)
            self.escalate(Cause.NOT_FRESH, f"{self.label} does not have its client's last write")
            return
        self._included = token
        if replica.topology.leads_to_several(self.label):
            self._must_have = read
            self._leave_connections(*self._reading.values())
            self._reading.clear()
