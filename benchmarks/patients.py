"""Virtual patients: the case with its free parameters drawn at random, run on two threads.

They are synthetic: each free parameter of the case's fit times exp(0.2 z), z standard normal.
"""

from __future__ import annotations

import json
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from crs_sim import load_problem
from crs_sim.kernel import Kernel, Runs, compile_kernel

from .case import GOOD, HOURS, LADDER, REFERENCE_RTOL, Array, Case, Reference, load

SPREAD = 0.2
SEED = 1
BLOCK = 100
"""Patients handed to a thread at a time."""
CHECKED = 20
"""Patients whose accuracy is looked at."""


def drawn(case: Case, count: int, rng: np.random.Generator) -> Array:
    """Parameters of virtual patients, (count, n_parameters)."""
    free = [f.name for f in load_problem("ruemmele2025").free]
    columns = [case.model.parameter_ids.index(name) for name in free]
    values = np.tile(case.values, (count, 1))
    values[:, columns] *= np.exp(SPREAD * rng.standard_normal((count, len(columns))))
    return values


def run_all(kernel: Kernel, case: Case, values: Array, rtol: float, threads: int = 2) -> list[Runs]:
    """Every patient, in blocks over threads; all results kept."""
    blocks = [values[k : k + BLOCK] for k in range(0, len(values), BLOCK)]
    if threads == 1:
        return [kernel.run(case.line, block, rtol=rtol) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda block: kernel.run(case.line, block, rtol=rtol), blocks))


def curves_of(runs: list[Runs]) -> Array:
    """(n_patients, n_days, n_names)."""
    return np.concatenate([np.concatenate([r.states, r.quantities], axis=2) for r in runs])


def loosest(kernel: Kernel, case: Case, values: Array) -> tuple[float, float]:
    """The loosest rtol, and its error, good for all these patients and at all tighter ones.

    The truth is our own method at rtol 1e-10: on the case it is within 1e-7 of Radau.
    """
    truth = curves_of(run_all(kernel, case.hourly, values, REFERENCE_RTOL))
    references = [Reference(curves[::HOURS], np.abs(curves).max(axis=0)) for curves in truth]
    found = (REFERENCE_RTOL, 0.0)
    for rtol in sorted(LADDER)[1:]:
        curves = curves_of(run_all(kernel, case, values, rtol))
        error = max(r.error(c) for r, c in zip(references, curves, strict=True))
        if error > GOOD:
            break
        found = (rtol, error)
    return found


def memory_of(count: int, rtol: float) -> float:
    """MB by which the peak of this process rises while ``count`` patients are loaded and run."""
    before = peak()
    case = load()
    kernel = compile_kernel(case.model)
    runs = run_all(kernel, case, drawn(case, count, np.random.default_rng(SEED)), rtol)
    assert all((r.status == 0).all() for r in runs)
    return peak() - before


def peak() -> float:
    """The largest memory of this process so far, MB.

    From the system's own book-keeping where there is one: getrusage gives a child the peak of the
    process that started it.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    import sys

    print(json.dumps({"MB": memory_of(int(sys.argv[1]), float(sys.argv[2]))}))
