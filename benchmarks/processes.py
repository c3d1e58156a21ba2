"""Times of whole commands, from start to exit of their processes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from .timing import Process, Timing, process

LONGEST_FIT = 90.0
"""Seconds; a longer fit is stopped and counts as not met."""


def simulate_command(out: Path) -> list[str]:
    """Arguments of ``crs-sim simulate ruemmele2025 --out x.csv``."""
    return ["-m", "crs_sim", "simulate", "ruemmele2025", "--out", str(out)]


def first_ever() -> Process:
    """Run the command with an empty cache folder: everything is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        empty = {"CRS_SIM_CACHE": str(Path(folder) / "cache")}
        return process(simulate_command(Path(folder) / "x.csv"), empty)


def cached(repeats: int = 5) -> Timing:
    """Time the command once everything is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        command = simulate_command(Path(folder) / "x.csv")
        process(command)
        return Timing(tuple(process(command).seconds for _ in range(repeats)))


def shown_help(repeats: int = 10) -> Timing:
    """Time ``crs-sim --help``."""
    process(["-m", "crs_sim", "--help"])
    return Timing(tuple(process(["-m", "crs_sim", "--help"]).seconds for _ in range(repeats)))


def fitted(starts: int, workers: int = 2) -> dict[str, float] | None:
    """Time and cost of the case's fit, without imports; None if it took too long."""
    done = process(["-m", "benchmarks.fitted", str(starts), str(workers)], longest=LONGEST_FIT)
    return None if done.stopped else dict(json.loads(done.output.splitlines()[-1]))


def memory(patients: int, rtol: float) -> float:
    """Peak memory of patients above imports, MB, in a new process."""
    done = process(["-m", "benchmarks.patients", str(patients), repr(rtol)])
    return float(json.loads(done.output.splitlines()[-1])["MB"])
