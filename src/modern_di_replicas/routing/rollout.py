"""The share of the reads that may use replicas. Pure, except for the random draw."""

import collections.abc
import dataclasses
import hashlib
import logging
import random

from modern_di_replicas.routing.decision import Cause


logger = logging.getLogger("modern_di_replicas")

Share = float | collections.abc.Callable[[], float]


@dataclasses.dataclass(kw_only=True, slots=True)
class Rollout:
    """The rollout of replicas in one application.

    Args:
        enabled: whether any read uses a replica.
        share: the share of the reads that may use a replica, from 0 to 1; a callable is called for each choice.
        shadow: whether choices are only made and counted, while everything uses the primary.

    """

    enabled: bool = True
    share: Share = 1.0
    shadow: bool = False
    _reported: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every read may use a replica, permanently."""
        return self.enabled and not self.shadow and not callable(self.share) and self.share >= 1

    def kept_on_primary(self, affinity: str | None) -> tuple[Cause, str] | None:
        """Return the cause why a read may not use a replica, and the reason in words; None when it may.

        For one share, all reads of a key get the same result, and a growing share only adds keys.

        Args:
            affinity: the key of the read; without one, the result is random.

        """
        if not self.enabled:
            return Cause.DISABLED, "replicas are disabled"
        share = self._current_share()
        if share >= 1:
            return None
        place = random.random() if affinity is None else _place(affinity)  # noqa: S311  # for spreading
        return None if place < share else (Cause.NOT_SHARED, f"the share of reads that use replicas is {share:g}")

    def _current_share(self) -> float:
        if not callable(self.share):
            return self.share
        try:
            share = float(self.share())
        except Exception:
            if not self._reported:
                self._reported = True
                logger.exception("replica_share failed: reads use the primary while it fails. Logged once.")
            return 0.0
        return share


def _place(key: str) -> float:
    """Map a key to a number between 0 and 1, the same in every process."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8, person=b"rollout").digest()
    return int.from_bytes(digest) / 2**64
