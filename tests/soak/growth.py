"""Whether one contender grows where the control does not."""

import collections.abc
import statistics
import typing


KINDS: typing.Final = ("memory", "tasks", "descriptors", "objects")

ALLOWED: typing.Final = {"memory": 8 * 2**20, "tasks": 5, "descriptors": 20, "objects": 3000}
"""Growth beyond the control's that counts as noise."""

LEFT: typing.Final = {"tasks": 0, "descriptors": 3}
"""Increase that is allowed at the end, compared with the start."""

Samples = collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]]


def evaluate(ours: Samples, control: Samples, *, warming_up: float) -> list[str]:
    """Return the problems: growth under load beyond the control's, or resources left at the end.

    Args:
        ours: one sample before, many under load, one after the end.
        control: the same samples of the control.
        warming_up: the share of the samples under load that is ignored.

    """
    complaints = []
    for kind in KINDS:
        grown, expected = (_growth([one[kind] for one in samples[1:-1]], warming_up) for samples in (ours, control))
        if grown > max(expected, 0) + ALLOWED[kind]:
            complaints.append(f"{kind}: grew by {grown:,.0f} under load, the control by {expected:,.0f}")
    for kind, allowed in LEFT.items():
        left = ours[-1][kind] - ours[0][kind]
        if left > allowed:
            complaints.append(f"{kind}: {left} are left at the end")
    return complaints


def _growth(values: collections.abc.Sequence[float], warming_up: float) -> float:
    """Return how far the median of the last third is above that of the first, after the warm-up."""
    settled = values[int(len(values) * warming_up) :]
    third = max(1, len(settled) // 3)
    return statistics.median(settled[-third:]) - statistics.median(settled[:third])
