"""Each real patient refitted under the population prior: how near the readings, and which grade.

The error of a reading is ln observed - ln fitted, in the readings that are not censored. A
censored one counts only where the fitted level is on the wrong side of its limit, with its
distance from it. The fitted course's worst grade is compared with the published one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from crs_sim import CrsSimError, Fit, FitProblem, patient_problem, worst_grade
from crs_sim.fitting import predicted
from crs_sim.model import GRADE
from crs_sim.simulation import days_above, parallel_map

from .cohort import Cohort, observed, real_patient
from .design import (
    COUNTED,
    GRADE_EXACT,
    GRADE_NEAR,
    RMS_MEDIAN,
    RMS_WORST,
    UNTIL,
    VARIANTS,
    Product,
    Variant,
    population,
)
from .draws import searched

STARTS = 3
"""Local optimisations of each patient."""


@dataclass(frozen=True)
class Job:
    """A patient to refit: the problem, and what was published of them."""

    problem: FitProblem
    variant: str
    grade: float


def jobs(cohort: Cohort, product: Product, variants: Sequence[Variant] = VARIANTS) -> list[Job]:
    """The untreated patients who have readings, in each variant."""
    people, found = population(product), []
    for variant in variants:
        for id in cohort.untreated():
            seen = observed(cohort, id, variant, people.model, cohort.last_day(id))
            if any(o.kind != "grade" for o in seen):
                problem = problem_of(cohort, id, product, seen)
                grade = float(cohort.patients.loc[id, "grade"])
                found.append(Job(problem, variant.name, grade))
    return found


def problem_of(cohort: Cohort, id: str, product: Product, seen: Any) -> FitProblem:
    """The problem of a patient's observations under the product's prior."""
    patient = real_patient(cohort, id, product, seen)
    people = population(product)
    made = patient_problem(patient, model=people.model, prior=product.prior, fewest=0)
    return replace(made, starts=STARTS)


def refit(job: Job) -> dict[str, Any]:
    """A row of ``patients.csv``: the errors of the fitted course, and its worst grade.

    Also ``fit`` and ``course``, for the figure: the fit, and its run every six hours.
    """
    row: dict[str, Any] = {"id": job.problem.name, "variant": job.variant, "grade": job.grade}
    try:
        best = searched(job.problem)
    except CrsSimError as error:
        return row | {"failed": str(error)}
    course = best.simulation(np.arange(0.0, UNTIL + 0.25, 0.25))
    row |= {"fitted_grade": float(worst_grade(course)),
            "crs_days": float(days_above(course, GRADE, COUNTED))}  # fmt: skip
    return row | errors(best) | {"cost": best.cost, "failed": "", "fit": best, "course": course}


def errors(best: Fit) -> dict[str, float]:
    """Root mean square of the errors, of all readings and by observable; and their numbers."""
    run, by_name = best.simulation(), dict[str, list[float]]()
    censored = wrong = 0
    for o in best.problem.patient.observations:
        if o.kind == "grade":
            continue
        error = math.log(o.value / max(predicted(o, run), 1e-12 * o.value))
        if o.kind != "value":
            censored += 1
            if (error > 0.0) != (o.kind == "above"):
                continue
            wrong += 1
        by_name.setdefault(o.observable, []).append(error)
    every = [error for errors in by_name.values() for error in errors]
    found = {"readings": float(len(every) - wrong), "censored": float(censored),
             "wrong_side": float(wrong), "rms": _rms(every)}  # fmt: skip
    return found | {f"rms_{name}": _rms(part) for name, part in by_name.items()}


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else math.nan


def refits(
    cohort: Cohort, product: Product, workers: int | None, variants: Sequence[Variant] = VARIANTS
) -> pd.DataFrame:
    """All refits: a row per patient and variant, with their ``fit`` and ``course``."""
    return pd.DataFrame(parallel_map(refit, jobs(cohort, product, variants), workers=workers))


def summary(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of each variant with their limits and whether they are met.

    Grades are counted over the patients with CRS, and apart over those without. A patient whose
    fit failed counts as missed.
    """
    rows: list[dict[str, Any]] = []
    for variant, part in found.groupby("variant", sort=False):
        rms = part["rms"] if "rms" in part else pd.Series(math.nan, part.index)
        rms = rms.fillna(math.inf)
        rows += [
            _figure(variant, "median rms error", float(rms.median()), RMS_MEDIAN, len(part)),
            _figure(variant, "worst rms error", float(rms.max()), RMS_WORST, len(part)),
        ]
        for who, some in (("with CRS", part[part["grade"] >= COUNTED]),
                          ("without CRS", part[part["grade"] < COUNTED])):  # fmt: skip
            if len(some):
                off = (some["fitted_grade"] - some["grade"]).abs()
                rows += [
                    _share(variant, f"worst grade exact, {who}", off == 0, GRADE_EXACT),
                    _share(variant, f"worst grade within one, {who}", off <= 1, GRADE_NEAR),
                ]
    return rows


def _figure(variant: Any, what: str, value: float, limit: float, n: int) -> dict[str, Any]:
    return {"variant": variant, "quantity": what, "value": value, "limit": limit, "unit": "ln",
            "n": n, "passed": value <= limit}  # fmt: skip


def _share(variant: Any, what: str, hit: pd.Series, limit: float) -> dict[str, Any]:
    value = 100.0 * float(hit.mean())
    return {"variant": variant, "quantity": what, "value": value, "limit": limit, "unit": "%",
            "n": len(hit), "passed": value >= limit}  # fmt: skip
