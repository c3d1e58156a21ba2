"""Virtual patients: the case with its free parameters drawn at random, run on two cores.

They are synthetic: each free parameter of the case's fit is multiplied by exp(0.2 z), z standard
normal.
"""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np

from crs_sim import Sampling, endpoint, load_problem, simulate_batches, simulate_many

from .case import GOOD, HOURS, LADDER, REFERENCE_RTOL, Array, Case, Reference, load

SPREAD = 0.2
SEED = 1
CORES = 2
CHECKED = 20
"""Number of patients whose accuracy is checked."""

ENDPOINTS = ("vasopressor_days", "peak_ifng", "peak_ferritin", "auc_vcn", "psa_d30")

Values = dict[str, Array]


def drawn(case: Case, count: int) -> Values:
    """Parameters of virtual patients, each (count,)."""
    free = [f.name for f in load_problem("ruemmele2025").free]
    factors = np.exp(SPREAD * np.random.default_rng(SEED).standard_normal((len(free), count)))
    return {name: case.model.values[name] * f for name, f in zip(free, factors, strict=True)}


def courses(case: Case, values: Values, rtol: float) -> Array:
    """All curves of all patients, in memory: (n_names, n_patients, n_days).

    Raises
    ------
    RuntimeError
        If a patient's run fails.
    """
    sampling = Sampling(days=tuple(case.days), rtol=rtol)
    many = simulate_many(case.model, case.scenario, values, sampling=sampling, workers=CORES)
    if many.failures:
        raise RuntimeError(str(many.failures[0]))
    return np.asarray(many.courses[:, 0])


def endpoints(case: Case, values: Values, rtol: float, *, exact: bool) -> int:
    """Run all patients for `ENDPOINTS`, or for the courses every 6 hours that these are read from.

    Returns how many finished.
    """
    ends = tuple(endpoint(case.model, name) for name in ENDPOINTS)
    sampling = Sampling(until=float(case.days[-1]), every_hours=6, rtol=rtol,
                        outputs=tuple(dict.fromkeys(end.needs for end in ends)))  # fmt: skip
    if exact:
        sampling = replace(sampling, days=(0.0, sampling.until), outputs=(), endpoints=ends)
    many = simulate_many(case.model, case.scenario, values, sampling=sampling, workers=1)
    return len(many.members)


def streamed(case: Case, values: Values, rtol: float) -> int:
    """Run all patients without keeping curves; returns how many finished."""
    sampling = Sampling(days=tuple(case.days), rtol=rtol)
    batches = simulate_batches(case.model, case.scenario, values, sampling=sampling, workers=CORES)
    return sum(len(batch.members) for batch in batches)


def by_patient(case: Case, values: Values, rtol: float) -> Array:
    """All curves by patient, (n_patients, n_days, n_names)."""
    return courses(case, values, rtol).transpose(1, 2, 0)


def references_of(case: Case, values: Values) -> list[Reference]:
    """References of the patients by Rosenbrock at rtol 1e-10, within 2e-7 of Radau on the case."""
    hourly_curves = by_patient(case.hourly, values, REFERENCE_RTOL)
    return [Reference(curves[::HOURS], np.abs(curves).max(axis=0)) for curves in hourly_curves]


def errors(case: Case, values: Values, references: list[Reference], rtol: float) -> Array:
    """The error of each patient, (n_patients,)."""
    curves = by_patient(case, values, rtol)
    return np.array([r.error(c) for r, c in zip(references, curves, strict=True)])


def loosest(case: Case, values: Values, references: list[Reference]) -> float:
    """The loosest rtol at which, and at all tighter ones, every patient's error is within GOOD."""
    loosest_good = REFERENCE_RTOL
    for rtol in sorted(LADDER)[1:]:
        if errors(case, values, references, rtol).max() > GOOD:
            break
        loosest_good = rtol
    return loosest_good


def alone(case: Case, values: Values, which: int) -> Case:
    """One of these patients as a case of its own."""
    own = {name: float(column[which]) for name, column in values.items()}
    return replace(case, model=case.model.with_values(**own))


def memory_of(count: int, rtol: float) -> float:
    """Increase of this process's peak memory, MB, while ``count`` patients are run."""
    before = peak()
    case = load()
    curves = courses(case, drawn(case, count), rtol)
    assert curves.shape[1] == count
    return peak() - before


def peak() -> float:
    """Peak memory of this process so far, MB.

    From /proc where available: getrusage reports the peak of the parent process for a child.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    import sys

    print(json.dumps({"MB": memory_of(int(sys.argv[1]), float(sys.argv[2]))}))
