"""Synthetic patients with a grade every day, fitted with independent and with persistent errors.

True values are drawn from the prior of the fits, so that the intervals of a right likelihood cover
them as often as they say, whatever the prior is worth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from crs_sim.dosing.scenario import Scenario
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.grades import GradeScale
from crs_sim.fitting.noise import Noise
from crs_sim.fitting.objective import Objective, point_of
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import FitProblem
from crs_sim.model.model import Model, Parameter, Quantity, State
from crs_sim.population.virtual_patients import Design, synthetic_patient
from crs_sim.simulation.workers import process_map

Array = NDArray[np.float64]

CUTS = {"grade_1": 1.0, "grade_2": 2.0, "grade_3": 3.5, "grade_4": 5.0}
MADE_UP = "synthetic"
MODEL = Model(
    "grades",
    (State("A", "a0", "-k*A", "mg", "Amount", MADE_UP),),
    tuple(
        Parameter(name, value, "", "", MADE_UP)
        for name, value in {"k": 0.1, "a0": 6.0, **CUTS}.items()
    ),
    (Quantity("crs_grade", " + ".join(f"reached(A, {cut})" for cut in CUTS), "1", "", MADE_UP),),
)
PRIORS = (Free("k", 0.001, 10.0, 0.1, 0.5, MADE_UP), Free("a0", 0.06, 600.0, 6.0, 0.5, MADE_UP))
DESIGN = Design(Scenario("untreated"), {"crs_grade": tuple(float(day) for day in range(21))})
INDEPENDENT = GradeScale("A", tuple(CUTS), 0.5, MADE_UP)
PERSISTENT = replace(INDEPENDENT, persistence=0.8, memory=3.0)
SCALES = {"independent": INDEPENDENT, "persistent": PERSISTENT}
LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True)
class Found:
    """An estimate and its truth; ``off`` is their difference on the log scale, in standard errors.

    ``errors`` made the grades, ``likelihood`` was fitted: independent or persistent. The standard
    error is from the curvature of the posterior density at its mode (Laplace); ``reported`` is
    that of the fit, from the slopes of the residuals alone (Gauss-Newton).
    """

    patient: int
    errors: str
    likelihood: str
    parameter: str
    truth: float
    estimate: float
    standard_error: float
    reported: float
    off: float


def run(count: int, seed: int = 1, workers: int | None = None) -> pd.DataFrame:
    """Fit ``count`` patients of either kind of error with either likelihood: rows of `Found`."""
    found = process_map(partial(_one, seed), range(count), workers=workers)
    return pd.DataFrame([asdict(row) for rows in found for row in rows])


def _one(seed: int, number: int) -> list[Found]:
    rows = []
    for errors in SCALES:
        rng = np.random.default_rng([seed, number])
        truth = {f.name: float(f.at(rng.standard_normal())) for f in PRIORS}
        for likelihood in SCALES:
            # the same stream again: both likelihoods see the same grades
            problem = asked(truth, errors, likelihood, np.random.default_rng([seed, number, 1]))
            rows += _fitted(problem, number, errors, likelihood, truth)
    return rows


def asked(
    truth: dict[str, float], errors: str, likelihood: str, rng: np.random.Generator
) -> FitProblem:
    """The grades of a patient with these true values, and the likelihood to be fitted."""
    noise = Noise({}, SCALES[errors])
    patient = synthetic_patient(MODEL.with_values(**truth), DESIGN, noise, rng)
    return FitProblem("grades", MODEL, patient, PRIORS, Noise({}, SCALES[likelihood]))


def _fitted(
    problem: FitProblem, number: int, errors: str, likelihood: str, truth: dict[str, float]
) -> list[Found]:
    result = fit(problem, starts=1, workers=1)
    x = point_of(problem, result.values)
    off = x - point_of(problem, truth)
    reported = np.sqrt(np.diag(result.covariance))
    spread = np.sqrt(np.diag(np.linalg.inv(_curvature(Objective(problem), x))))
    return [
        Found(number, errors, likelihood, name, truth[name], result.values[name], float(se),
              float(own), float(one / se))
        for name, one, se, own in zip(problem.names, off, spread, reported, strict=True)
    ]  # fmt: skip


def _curvature(objective: Objective, x: Array, step: float = 0.01) -> Array:
    """Second derivatives (n, n) of the cost over two: of -ln posterior density."""
    moved = [x + side * step * one for one in np.eye(x.size) for side in (1.0, -1.0)]
    slopes = np.array([objective.jacobian(p).T @ objective.residuals(p) for p in moved])
    table = (slopes[::2] - slopes[1::2]) / (2.0 * step)
    return np.asarray(0.5 * (table + table.T))


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """For each kind of error, likelihood and parameter: coverage, errors in sd, their true size."""
    rows = []
    for (errors, likelihood, name), part in found.groupby(
        ["errors", "likelihood", "parameter"], sort=False
    ):
        inside = {f"within_{100 * level:g}": float(np.mean(part["off"].abs() < norm.ppf(
            0.5 + 0.5 * level))) for level in LEVELS}  # fmt: skip
        logs = np.log(part["estimate"] / part["truth"])
        rows.append({
            "errors": errors, "likelihood": likelihood, "parameter": name, **inside,
            "rms_off": float(np.sqrt(np.mean(part["off"] ** 2))),
            "rms_log_error": float(np.sqrt(np.mean(logs**2))),
            "rms_off_reported": float(np.sqrt(np.mean((logs / part["reported"]) ** 2))),
        })  # fmt: skip
    return pd.DataFrame(rows)
