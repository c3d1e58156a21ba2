"""The machine and the versions behind the measured times."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = {
    "numpy": "numpy",
    "numba": "numba",
    "scipy": "scipy",
    "libroadrunner": "libroadrunner",
    "copasi": "python-copasi",
}


def describe() -> dict[str, str]:
    """Date, processor, cores, memory, and the versions the times depend on."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_GB": f"{memory():.0f}",
        "crs_sim": found_version("crs-sim"),
        "python": platform.python_version(),
        **{name: found_version(package) for name, package in LIBRARIES.items()},
    }


def found_version(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> float:
    """Memory of the machine in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
