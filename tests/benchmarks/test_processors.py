"""The contenders have a processor of their own, where the system lets a process choose."""

import psutil
import pytest

from benchmarks import processors


class Process:
    """A process of a system that lets it choose its processors."""

    chosen: list[int]

    def cpu_affinity(self, chosen: list[int] | None = None) -> list[int]:
        if chosen is not None:
            type(self).chosen = chosen
        return type(self).chosen


@pytest.mark.parametrize(("available", "apart", "others"), [([3, 0, 2], [0], [2, 3]), ([1], [], [1])])
def test_one_processor_is_left_to_the_contenders(
    monkeypatch: pytest.MonkeyPatch, available: list[int], apart: list[int], others: list[int]
) -> None:
    """Where there is but one, everybody shares it; and afterwards all is as it was."""
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(Process, "chosen", available, raising=False)
    with processors.divided() as found:
        assert found == apart
        assert sorted(Process.chosen) == others
        processors.keep_to(found)
        assert sorted(Process.chosen) == (apart or others)
    assert sorted(Process.chosen) == sorted(available)


def test_a_system_that_does_not_let_a_process_choose_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as macOS."""
    monkeypatch.setattr(psutil, "Process", object)
    with processors.divided() as found:
        assert found == []
        processors.keep_to(found)
