"""An outage of the primary, as seen by checkouts and the monitor."""

import asyncio
import time

import pytest
from sqlalchemy.exc import OperationalError

from modern_di_replicas.cluster.pools.outage import Outage
from modern_di_replicas.errors import PrimaryUnavailable


def test_a_primary_that_is_down_lets_one_attempt_through_at_a_time() -> None:
    """Further checkouts fail at once with the monitor's reason, until it is up again."""
    outage = Outage()
    assert not outage.attempt()
    outage.declare_down(timeout=60.0, reason="no answer within 1 s", is_silent=True)
    assert outage.is_down
    assert outage.attempt()
    with pytest.raises(PrimaryUnavailable, match="does not answer the monitor: no answer within 1 s"):
        outage.attempt()
    outage.declare_down(timeout=60.0, reason="connection refused", is_silent=False)
    with pytest.raises(PrimaryUnavailable, match="connection refused"):
        outage.attempt()

    outage.declare_up()
    assert not outage.is_down
    assert not outage.attempt()


async def test_a_checkout_that_has_waited_for_a_silent_primary_does_not_wait_again() -> None:
    """INVARIANT: a writer gets its error after one timeout; a refusal of connections is waited for."""
    outage = Outage()
    outage.timeout = 60.0
    long_ago = time.monotonic() - outage.timeout

    outage.declare_down(timeout=1.0, reason="no answer", is_silent=True)
    async with asyncio.timeout(30):
        assert not await outage.ended(since=long_ago)

    outage.declare_down(timeout=1.0, reason="connection refused", is_silent=False)
    waiting = asyncio.ensure_future(outage.ended(since=long_ago))
    await asyncio.sleep(0)
    assert not waiting.done()
    outage.declare_up()
    async with asyncio.timeout(30):
        assert await waiting


async def test_without_a_monitor_a_lost_primary_is_not_waited_for() -> None:
    """No monitor would report the end of the outage."""
    assert not await Outage().ended(since=time.monotonic())


def test_errors_of_another_engine_are_not_an_outage() -> None:
    """A listener of the application may use another database."""
    refused = ConnectionRefusedError()
    outage = Outage((EOFError,))
    assert outage.is_loss(refused)
    assert outage.is_loss(EOFError())
    assert not outage.is_loss(LookupError())
    assert not outage.is_loss(OperationalError("SELECT 1", {}, refused))
