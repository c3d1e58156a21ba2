"""Errors of each method over draws of the prior: ``python -m studies.methods [DRAWS]``.

The published case is run with parameters drawn from the prior of its fit, by each method at the
tolerance of ``simulate``, and by Radau at 1e-10 (a minute a run). The error of a course is its
largest difference from that reference at any sample, every 6 hours, as a share of the reference's
peak. Writes ``errors.csv`` beside this file: a row for each method, over the draws and over all
states and quantities.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from crs_sim import load_problem, peak, simulate
from crs_sim.errors import IntegrationError
from crs_sim.fitting import RTOL, FitProblem
from crs_sim.model import Array, Model
from crs_sim.simulation import Simulation
from crs_sim.solver.integration import METHODS

HOME = Path(__file__).parent
REFERENCE, STRICT = "Radau", 1e-10
DRAWS = 8
COLUMNS = ("method", "draws", "failed", "median error", "largest error", "in", "on the case")


def models(problem: FitProblem, draws: int) -> Iterator[Model]:
    """The model at the medians of the prior, then at draws of it."""
    yield problem.model.with_values(**{f.name: f.median for f in problem.free})
    generator = np.random.default_rng(1)
    for _ in range(draws):
        z = generator.standard_normal(len(problem.free))
        values = {f.name: f.median * np.exp(f.sd * x) for f, x in zip(problem.free, z, strict=True)}
        yield problem.model.with_values(**values)


def run(problem: FitProblem, model: Model, method: str, rtol: float = RTOL) -> Simulation:
    """The case to its last observation."""
    last = max(o.day for o in problem.patient.observations if np.isfinite(o.day))
    return simulate(model, problem.patient.scenario, until=last, method=method, rtol=rtol)


def courses(one: Simulation) -> Array:
    """States and quantities, (n_days, n_courses)."""
    return np.column_stack([one.states, one.quantities])


def errors_of(model: Model) -> list[Array]:
    """The errors of each method, (n_courses,) each; NaN where the run fails."""
    problem = load_problem("ruemmele2025")
    reference = run(problem, model, REFERENCE, STRICT)
    right = courses(reference)
    largest = np.array([abs(peak(reference, name)) for name in model.course_ids])
    scale = np.where(largest > 0, largest, 1.0)
    found = []
    for method in METHODS:
        try:
            off = np.abs(courses(run(problem, model, method)) - right).max(axis=0) / scale
        except IntegrationError:
            off = np.full(len(scale), np.nan)
        found.append(off)
    return found


def main(draws: int) -> None:
    """Measure, print and write."""
    problem = load_problem("ruemmele2025")
    with ProcessPoolExecutor(2) as workers:
        errors = np.array(list(workers.map(errors_of, models(problem, draws))))
    names = problem.model.course_ids
    rows = [_row(method, errors[:, k], names) for k, method in enumerate(METHODS)]
    with (HOME / "errors.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for row in rows:
        print(*row)


def _row(method: str, errors: Array, names: tuple[str, ...]) -> list[str]:
    """One row from errors (1 + n_draws, n_courses), of which the first is the case."""
    worst = errors[1:].max(axis=1)
    done = np.isfinite(worst)
    place = names[int(np.nanmax(errors[1:], axis=0).argmax())]
    shown = (np.median(worst[done]), worst[done].max(), errors[0].max())
    median, largest, case = (f"{x:.1e}" for x in shown)
    return [method, str(len(worst)), str(int((~done).sum())), median, largest, place, case]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS)
