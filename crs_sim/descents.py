"""One descent to an optimum of a fit, from one point or from the best of some points.

Least squares on log parameters. The only file that knows lmfit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lmfit
import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from .curvature import Curvature
from .objective import ROUGH_RTOL, RTOL, Array, Objective, logs, named, prior_vectors
from .problem import FitProblem

TOLERANCE, ROUGH_TOLERANCE = 1e-9, 1e-5
"""Relative change of cost and parameters at which the last descent ends, and each one before it."""
MAX_STEPS = 60
"""Trial steps of one descent."""
ROBUST_STEPS = 15
"""Trial steps of the first, robust part of a descent."""


@dataclass(frozen=True)
class Start:
    """One descent: where it began and how it ended.

    Parameters
    ----------
    number : int, 0 is the prior centre
    initial, values : mapping of parameter to value, first and last
    cost : float, sum of squares at the end: -2 ln posterior up to a constant
    status : str, why it ended, in the optimiser's words
    converged : bool
    runs, failed : int, simulations made, and those that failed
    first_failure : str, the message of the first that did
    """

    number: int
    initial: Mapping[str, float]
    values: Mapping[str, float]
    cost: float
    status: str
    converged: bool
    runs: int
    failed: int
    first_failure: str = ""


def start_points(problem: FitProblem, count: int, seed: int) -> Array:
    """Log parameters to start from: (count, n_free), the prior centre first.

    The others fill the priors evenly (Latin hypercube), cut off at the bounds.
    """
    centre, sds, lower, upper = prior_vectors(problem)
    if count == 1:
        return centre[np.newaxis, :]
    rng = np.random.default_rng(seed)
    unit = qmc.LatinHypercube(len(centre), rng=rng).random(count - 1)
    low, high = ndtr((lower - centre) / sds), ndtr((upper - centre) / sds)
    drawn = centre + sds * ndtri(low + unit * (high - low))
    return np.vstack([centre, np.clip(drawn, lower, upper)])


def descend(problem: FitProblem, job: tuple[int, Array]) -> Start:
    """One descent from the best of some log parameters (n, n_free), at the rough tolerances.

    Far from the answer the worst residual must not steer alone: the first part is robust.
    """
    number, points = job
    objective = Objective(problem, ROUGH_RTOL)
    x = points[int(np.argmin(objective.rough_costs(points)))]
    near = minimize(objective, x, TOLERANCE, ROBUST_STEPS, loss="soft_l1", f_scale=2.0)
    result = minimize(objective, _logs(near.params), ROUGH_TOLERANCE, MAX_STEPS)
    return _start(number, named(problem, x), objective, result)


def polish(problem: FitProblem, start: Start) -> Start:
    """One more descent, from the end of another, at the tight tolerances."""
    objective = Objective(problem)
    result = minimize(objective, logs(problem, start.values), TOLERANCE, MAX_STEPS)
    return _start(start.number, start.values, objective, result)


def minimize(
    objective: Objective, x: Array, tolerance: float, steps: int, **how: float | str
) -> lmfit.minimizer.MinimizerResult:
    """lmfit's ``least_squares`` from log parameters x (n_free,) inside their bounds.

    With `Curvature` for the plain sum of squares; a robust loss has a curvature of its own.
    """
    problem, parameters = objective.problem, lmfit.Parameters()
    limits = zip(problem.names, x, objective.lower, objective.upper, strict=True)
    for name, value, low, high in limits:
        parameters.add(f"log_{name}", value=float(value), min=float(low), max=float(high))
    known, none = Curvature(), np.zeros(x.size)

    def residuals(current: lmfit.Parameters) -> Array:
        return np.concatenate([objective.residuals(_logs(current)), none])

    def slopes(current: lmfit.Parameters) -> Array:
        nonlocal known
        here, sds = _logs(current), objective.sds
        scaled = objective.jacobian(here) * sds
        known = known.after(here / sds, objective.residuals(here), scaled)
        rows = np.zeros((x.size, x.size)) if "loss" in how else known.rows
        return np.vstack([scaled, rows]) / sds

    return lmfit.minimize(
        residuals,
        parameters,
        method="least_squares",
        scale_covar=False,
        Dfun=slopes,
        x_scale=objective.sds,
        max_nfev=steps,
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        **how,
    )


def _logs(parameters: lmfit.Parameters) -> Array:
    return np.array([p.value for p in parameters.values()])


def _start(
    number: int, initial: Mapping[str, float], objective: Objective,
    result: lmfit.minimizer.MinimizerResult,
) -> Start:  # fmt: skip
    return Start(
        number,
        initial=dict(initial),
        values=named(objective.problem, objective.best),
        cost=_exact_cost(objective),
        status=str(result.message),
        converged=bool(result.success) and not result.aborted,
        runs=objective.runs,
        failed=objective.failed,
        first_failure=objective.first_failure,
    )


def _exact_cost(objective: Objective) -> float:
    """The cost of the best point, as exact for every descent, rough or not."""
    if objective.rtol == RTOL:
        return objective.best_cost
    residuals = Objective(objective.problem).residuals(objective.best)
    return float(residuals @ residuals)
