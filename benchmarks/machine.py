"""Where a run took place."""

import datetime as dt
import os
import pathlib
import platform

import psutil


def describe(postgresql: str, versions: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return what a reader has to know to judge the figures.

    Args:
        postgresql: the version of the servers.
        versions: of the packages, by environment.

    """
    memory = psutil.virtual_memory().total / 2**30
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "PostgreSQL": postgresql,
        **{
            f"packages, {environment}": ", ".join(f"{name} {version}" for name, version in found.items())
            for environment, found in versions.items()
        },
    }


def load() -> float:
    """Return how many processes want a core, for each core, over the last minute."""
    return psutil.getloadavg()[0] / (os.cpu_count() or 1)


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
