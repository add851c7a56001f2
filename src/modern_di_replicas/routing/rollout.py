"""Which share of the reads may use replicas. Pure, but for the draw."""

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
    """How far replicas are rolled out in one application.

    Args:
        enabled: whether any read uses a replica.
        share: the share of the reads that may, from 0 to 1; a callable is asked at each choice.
        shadow: whether choices are only made and counted, while everything uses the primary.

    """

    enabled: bool = True
    share: Share = 1.0
    shadow: bool = False
    _reported: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every read may use a replica, for good."""
        return self.enabled and not self.shadow and not callable(self.share) and self.share >= 1

    def kept_on_primary(self, affinity: str | None) -> tuple[Cause, str] | None:
        """Return why a read does not use a replica, in two forms; None when it may.

        With a key, its reads are always on the same side of the same share, and a growing share only adds keys.

        Args:
            affinity: the key of the read; without one, the share is drawn.

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
                logger.exception("replica_share failed: reads use the primary while it does. Logged once.")
            return 0.0
        return share


def _place(key: str) -> float:
    """Return the place of a key between 0 and 1, the same in every process."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8, person=b"rollout").digest()
    return int.from_bytes(digest) / 2**64
