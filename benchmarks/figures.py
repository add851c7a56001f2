"""The figures of a run as SVG, readable on light and on dark pages."""

import pathlib
import typing

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.contenders.catalogue import CONTENDERS, OURS, RIVALS, Entry
from benchmarks.faults import FAULTS
from benchmarks.plan import KEYED_READ
from benchmarks.results import Results


INK: typing.Final = "#7d8590"
"""A grey that is readable on a white and on a black background."""
OURS_COLOUR: typing.Final = "#2f81f7"
THEIRS_COLOUR: typing.Final = "#8b949e"
BAD_COLOUR: typing.Final = "#e5534b"

STYLE: typing.Final[dict[str, typing.Any]] = {
    "svg.hashsalt": "modern-di-replicas",  # the same results produce the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(results: Results, folder: pathlib.Path) -> None:
    """Draw all figures of a full run."""
    mpl.use("svg")
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        _keyed_read(results, folder / "keyed-read.svg")
        _faults(results, folder / "faults.svg")


def _keyed_read(results: Results, path: pathlib.Path) -> None:
    found = results.cells[KEYED_READ]
    entries = sorted(
        (entry for entry in CONTENDERS if entry.name in found), key=lambda entry: -found[entry.name].time.median
    )
    times = [found[entry.name].time for entry in entries]
    trips = [results.round_trips[KEYED_READ.operation][entry.name] for entry in entries]
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    _bars(
        axes,
        entries,
        [time.median for time in times],
        [
            f"{time.median:.0f} µs, {count} round trip{'s' * (count > 1)}"
            for time, count in zip(times, trips, strict=True)
        ],
        xerr=[[time.median - time.low for time in times], [time.high - time.median for time in times]],
    )
    axes.set_title("ORM read by key, one client: median and quartiles")
    axes.set_xlabel("µs")
    _save(figure, path)


def _faults(results: Results, path: pathlib.Path) -> None:
    """Draw two rows: the slowest read of each contender, and the share of its failed or stale reads."""
    figure, rows = plt.subplots(2, len(FAULTS), figsize=(11.5, 6), layout="constrained", sharey=True)
    entries = [*RIVALS[::-1], OURS]
    for column, fault in enumerate(FAULTS):
        slow, bad = rows[0][column], rows[1][column]
        outcomes = [results.faults[fault.name][entry.name] for entry in entries]
        _bars(slow, entries, [each.slowest for each in outcomes], [f"{each.slowest:.2f} s" for each in outcomes])
        slow.set_title(fault.title)
        slow.set_xlabel("slowest read, s")
        shares = [100 * (each.failed + each.stale) / max(each.reads, 1) for each in outcomes]
        _bars(bad, entries, shares, [f"{share:.0f} %" for share in shares], color=BAD_COLOUR)
        bad.set_xlim(0, 100)
        bad.set_xlabel("failed or stale reads, %" if fault.writes else "failed reads, %")
    _save(figure, path)


def _bars(
    axes: typing.Any, entries: list[Entry], lengths: list[float], labels: list[str], **options: typing.Any
) -> None:
    colours = [OURS_COLOUR if entry.target == OURS.target else THEIRS_COLOUR for entry in entries]
    bars = axes.barh([entry.title for entry in entries], lengths, **{"color": colours, "ecolor": INK, **options})
    axes.bar_label(bars, labels, padding=4, color=INK)
    axes.margins(x=0.35)


def _save(figure: typing.Any, path: pathlib.Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
