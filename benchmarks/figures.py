"""The pictures of a run, as SVG; readable on light and on dark pages."""

import pathlib
import typing

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.contenders.catalogue import CONTENDERS, FLOORS, FRESHNESS, OURS, Entry
from benchmarks.faults import FAULTS
from benchmarks.plan import BUSY_GET, KEYED_READ
from benchmarks.results import Cell, Results
from benchmarks.verdicts import rivals


INK: typing.Final = "#7d8590"
"""Grey enough for white and for black paper."""
OURS_COLOUR: typing.Final = "#2f81f7"
THEIRS_COLOUR: typing.Final = "#8b949e"
BAD_COLOUR: typing.Final = "#e5534b"
LITESTAR_GET: typing.Final = Cell(surface="litestar", operation=BUSY_GET.operation, clients=BUSY_GET.clients)

STYLE: typing.Final[dict[str, typing.Any]] = {
    "svg.hashsalt": "modern-di-replicas",  # the same figures give the same file
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def draw(results: Results, folder: pathlib.Path) -> None:
    """Draw all figures of a full run."""
    mpl.use("svg")
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        _keyed_read(results, folder / "keyed-read.svg")
        _requests(results, folder / "requests.svg")
        _faults(results, folder / "faults.svg")
        if results.freshness:
            _consistency(results, folder / "consistency.svg")


def _keyed_read(results: Results, path: pathlib.Path) -> None:
    entries = sorted((*CONTENDERS, *FLOORS), key=lambda entry: -results.time(KEYED_READ, entry.name).median)
    times = [results.time(KEYED_READ, entry.name) for entry in entries]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    low_high = [
        [(time.median - time.low) * 1e6 for time in times],
        [(time.high - time.median) * 1e6 for time in times],
    ]
    bars = axes.barh(
        [entry.title for entry in entries],
        [time.median * 1e6 for time in times],
        xerr=low_high,
        color=[_colour(entry) for entry in entries],
        ecolor=INK,
    )
    trips = [results.round_trips[KEYED_READ.operation, entry.name] for entry in entries]
    axes.bar_label(bars, [f"{count} round trip{'s' if count > 1 else ''}" for count in trips], padding=8, color=INK)
    axes.set_xlabel("µs for one ORM read by key, one client (quartiles)")
    axes.margins(x=0.2)
    _save(figure, path)


def _requests(results: Results, path: pathlib.Path) -> None:
    figure, both = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
    entries = sorted(CONTENDERS, key=lambda entry: -results.time(BUSY_GET, entry.name).median)
    for axes, cell, title in zip(both, (BUSY_GET, LITESTAR_GET), ("FastAPI", "Litestar"), strict=True):
        rates = [1 / results.time(cell, entry.name).median for entry in entries]
        bars = axes.barh([entry.title for entry in entries], rates, color=[_colour(entry) for entry in entries])
        axes.bar_label(bars, [f"{rate:.0f}" for rate in rates], padding=4, color=INK)
        axes.set_title(title)
        axes.set_xlabel("GET requests per second, 100 clients")
        axes.margins(x=0.15)
    _save(figure, path)


def _faults(results: Results, path: pathlib.Path) -> None:
    figure, columns = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained", sharey=True)
    entries = [OURS, *rivals()][::-1]
    for axes, fault in zip(columns, FAULTS, strict=True):
        outcomes = [results.faults[fault.name][entry.name] for entry in entries]
        bad = [outcome.failed + outcome.stale for outcome in outcomes]
        what = "failed or stale" if fault.writes else "failed"
        bars = axes.barh(
            [entry.title for entry in entries],
            [outcome.worst for outcome in outcomes],
            color=[BAD_COLOUR if count else _colour(entry) for entry, count in zip(entries, bad, strict=True)],
        )
        axes.bar_label(bars, [f"{count} {what}" for count in bad], padding=4, color=INK)
        axes.set_title(f"while {fault.title}")
        axes.set_xlabel("slowest read, s")
        axes.margins(x=0.45)
    _save(figure, path)


def _consistency(results: Results, path: pathlib.Path) -> None:
    figure, (served, stale) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained", sharey=True)
    entries = FRESHNESS[::-1]
    outcomes = [results.freshness[entry.name] for entry in entries]
    titles = [entry.title for entry in entries]
    shares = [100 * outcome.on_replica / max(outcome.reads, 1) for outcome in outcomes]
    bars = served.barh(titles, shares, color=[_colour(entry) for entry in entries])
    served.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4, color=INK)
    served.set_xlabel("reads on a replica, %")
    bars = stale.barh(titles, [outcome.stale for outcome in outcomes], color=BAD_COLOUR)
    stale.bar_label(bars, padding=4, color=INK)
    stale.set_xlabel("stale reads")
    for axes in (served, stale):
        axes.margins(x=0.2)
    _save(figure, path)


def _colour(entry: Entry) -> str:
    return OURS_COLOUR if entry.target == OURS.target else THEIRS_COLOUR


def _save(figure: typing.Any, path: pathlib.Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
