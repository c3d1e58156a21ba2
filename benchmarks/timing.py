"""Repeated timing: the minimum measures the cost of a job, the median the usual wait."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Timing:
    """Seconds of several repeats by `time.perf_counter`."""

    seconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The fastest repeat, the one least disturbed by other load."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle repeat."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{words(self.minimum)} (median {words(self.median)} of {len(self.seconds)})"


def words(seconds: float) -> str:
    """A time with its unit, to three digits.

    >>> [words(s) for s in (0.00123, 0.25, 12.345)]
    ['1.23 ms', '250 ms', '12.3 s']
    """
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def timed(job: Callable[[], Any], repeats: int, warm: int = 1) -> Timing:
    """Run a job ``warm`` times unmeasured, then ``repeats`` times."""
    for _ in range(warm):
        job()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - begun)
    return Timing(tuple(seconds))


@dataclass(frozen=True)
class Process:
    """A finished process: duration, output, and whether it was stopped for taking too long."""

    seconds: float
    output: str
    errors: str
    stopped: bool = False


def process(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, longest: float = 600.0
) -> Process:
    """Run ``python <arguments>`` in a new process, from start to exit.

    Parameters
    ----------
    environment : added to that of this process
    longest : seconds after which the process and its children are stopped

    Raises
    ------
    RuntimeError
        If it exits with an error; includes its error output.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], env=variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = child.communicate(timeout=longest)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        output, errors = child.communicate()
        return Process(time.perf_counter() - begun, output, errors, stopped=True)
    seconds = time.perf_counter() - begun
    if child.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {child.returncode}: {errors[-2000:]}")
    return Process(seconds, output, errors)
