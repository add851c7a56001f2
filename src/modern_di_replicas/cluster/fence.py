"""What keeps everybody from a former primary, until it is known who leads now."""

import asyncio
import time


class Fence:
    """Holds up who comes for a connection, and in the end refuses it.

    Args:
        patience: for how many seconds from now it holds anybody up.

    """

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        """Wait until it is open.

        Raises:
            ConnectionRefusedError: it did not open in time.

        """
        try:
            await asyncio.wait_for(self._opened.wait(), self._until - time.monotonic())
        except TimeoutError:
            msg = "the server that was the primary is on an older timeline than others, and no other primary is known"
            raise ConnectionRefusedError(msg) from None
