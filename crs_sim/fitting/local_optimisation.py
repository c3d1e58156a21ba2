"""One local optimisation of a fit, from one point or from the best of several points.

Least squares on scaled parameters, with the structured secant correction. The only module that
imports lmfit.

Gauss-Newton approximates the Hessian of half a sum of squares by J'J and neglects S, the sum of
each residual times its own Hessian. Where residuals at the optimum are large and curved in a stiff
direction, as all are with the day a loop ignites, its steps overshoot and return, always in the
same proportion. S is approximated by secant updates from the change of the Jacobian along the
steps, as in NL2SOL (Dennis, Gay & Welsch 1981, doi:10.1145/355958.355965).

Any least-squares routine can use S as extra Jacobian rows under residuals that are always zero:
they leave cost and gradient unchanged and add S to J'J.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import lmfit
import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from ..errors import InputError, IntegrationError
from ..model import Array, pretty
from .noise import days_needed, predicted
from .objective import (
    ROUGH_RTOL,
    RTOL,
    Objective,
    curves,
    point_of,
    prior_vectors,
    values_by_name,
)
from .problem import FitProblem

TOLERANCE, ROUGH_TOLERANCE = 1e-9, 1e-5
"""Relative change of cost and parameters that ends the final optimisation, and earlier ones."""
MAX_STEPS, MAX_ROUNDS = 60, 10
"""Most trial steps of one round of an optimisation, and most rounds."""
FALL, ROUGH_FALL = 1e-4, 1e-2
"""An optimisation has converged if a Gauss-Newton step promises that the cost falls by less, the
squared distance to the optimum in standard errors: of the final optimisation, of earlier ones."""
ROBUST_STEPS = 15
"""Most trial steps of its first part, with a robust loss."""


TRIED = 3
"""Points beside the centre of the prior at which a parameter may show an effect."""
NEAR = 1e-6
"""Distance from a bound, in prior sds, at which a parameter is held by it."""


@dataclass(frozen=True)
class Start:
    """One local optimisation: starting point, result and status.

    Parameters
    ----------
    number : int, 0 is the prior centre
    initial, values : mapping of parameter to value, at the start and at the end
    cost : float, sum of squares at the end: -2 ln posterior up to a constant
    status : str, the optimiser's message on why it ended
    converged : bool
    runs, failed : int, simulations made, and those that failed
    first_failure : str, the message of the first failed simulation
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


MIN_CURVATURE = 1e-12
"""Relative curvature along a step below which the secant update is skipped."""


@dataclass(frozen=True, eq=False)
class SecantCorrection:
    """The secant approximation of S after some steps of an optimisation; empty before the first.

    Parameters
    ----------
    x : (n,) current point; empty before the first
    residuals : (m,) at x
    slopes : (m, n) Jacobian at x
    secant : (n, n) approximation of S
    reliable : bool, whether J'J + S predicted the last step better than J'J alone
    known : (n, n) the part of S that is computed; the secant updates approximate the rest
    """

    x: Array = field(default_factory=lambda: np.empty(0))
    residuals: Array = field(default_factory=lambda: np.empty(0))
    slopes: Array = field(default_factory=lambda: np.empty((0, 0)))
    secant: Array = field(default_factory=lambda: np.empty((0, 0)))
    reliable: bool = False
    known: Array | float = 0.0

    def after(
        self, x: Array, residuals: Array, slopes: Array, known: Array | float = 0.0
    ) -> SecantCorrection:
        """Update at the next point x, with its residuals, Jacobian and ``known`` part of S."""
        step = x - self.x if len(self.x) else np.zeros_like(x)
        if not step.any():
            same = self.secant if len(self.x) else np.zeros((len(x), len(x)))
            return SecantCorrection(x, residuals, slopes, same, self.reliable, known)
        change = slopes.T @ residuals - self.slopes.T @ self.residuals
        target = (slopes - self.slopes).T @ residuals
        target = target - known @ step if np.ndim(known) else target
        reliable = self._predicts(step, 0.5 * float(residuals @ residuals))
        secant = _secant_update(self.secant, step, change, target)
        return SecantCorrection(x, residuals, slopes, secant, reliable, known)

    @property
    def rows(self) -> Array:
        """Jacobian rows (n, n) for the zero residuals; all zero while S is not reliable.

        Directions in which S is negative are left to J'J, whose steps are then merely short.
        """
        sizes, directions = np.linalg.eigh(self.secant)
        kept = np.sqrt(np.maximum(sizes, 0.0)) if self.reliable else np.zeros_like(sizes)
        return np.asarray(kept[:, None] * directions.T)

    def _predicts(self, step: Array, cost: float) -> bool:
        """Whether J'J + S predicts half the sum of squares after a step better than J'J."""
        linear = self.residuals + self.slopes @ step
        without = 0.5 * (linear @ linear)
        without += 0.5 * (step @ self.known @ step) if np.ndim(self.known) else 0.0
        sizes, directions = np.linalg.eigh(self.secant)
        correction = 0.5 * float(np.maximum(sizes, 0.0) @ (directions.T @ step) ** 2)
        return bool(abs(cost - without - correction) <= abs(cost - without))


def _secant_update(secant: Array, step: Array, change: Array, target: Array) -> Array:
    """The S nearest to ``secant`` (weighted by ``change``) that satisfies S step = target.

    ``change`` is that of the gradient over the step. The old S is first scaled down (sizing of
    NL2SOL) where it is too large along the step: it belongs to residuals that were larger.
    """
    predicted, actual = float(step @ secant @ step), float(step @ target)
    secant = secant * (min(1.0, abs(actual / predicted)) if predicted else 1.0)
    along = float(change @ step)
    if abs(along) <= MIN_CURVATURE * float(np.linalg.norm(change) * np.linalg.norm(step)):
        return secant
    missing = target - secant @ step
    both = np.outer(missing, change) / along
    rank_one = np.outer(change, change) * (missing @ step) / along**2
    return np.asarray(both + both.T + secant - rank_one)


UNREACHABLE = 1e-5
"""A prediction below this share of the reading is below the range of any assay that gave it."""
PRIOR_POINTS = 16


def check_reachable(problem: FitProblem) -> None:
    """Refuse readings that the model stays below by orders of magnitude under its whole prior.

    A level at the moment of the first dose, say: the fit would take absorption or another rate to
    any height for it. Looked at are the prior's centre and, only if a reading is far above it,
    ``PRIOR_POINTS`` draws of the prior, and lags at their lower bounds.

    Raises
    ------
    InputError
        Naming each reading.
    """
    kinds = ("value", "peak", "sometime", "above")
    far = [o for o in problem.patient.observations if o.kind in kinds]
    days = days_needed(problem.patient.observations)
    for number, values in enumerate(_prior_points(problem)):
        if not far:
            return
        try:
            run = curves(problem, values, days)
        except IntegrationError:  # at the centre: the fit will say why
            if number == 0:
                return
            continue
        far = [o for o in far if not predicted(o, run) >= UNREACHABLE * o.value]
    if far:
        readings = ", ".join(
            f"{o.id} (day {round(o.day, 6):g}): {o.value:g} {pretty(o.value_unit)}" for o in far
        )
        raise InputError(
            f"{problem.where('data')}: the model has next to nothing where this was read: "
            f"{readings}. No parameter values of the prior come near it, and a fit would be drawn "
            "to extremes; correct the time of the reading or of the dose before it, or leave the "
            "reading out (in a data set: MDV = 1), or mark it as below its limit (CENS = 1)"
        )


def _prior_points(problem: FitProblem) -> Iterator[dict[str, float]]:
    """The centre of the prior, draws within its bounds, and the centre with lags at their least."""
    centre, sd, lower, upper = prior_vectors(problem)
    normal = np.random.default_rng(problem.seed).standard_normal((PRIOR_POINTS, len(centre)))
    lags = np.isin(problem.names, [drug.lag for drug in problem.model.drugs])
    points = [centre, *np.clip(centre + sd * normal, lower, upper), np.where(lags, lower, centre)]
    for point in points:
        yield values_by_name(problem, point)


def start_points(problem: FitProblem, count: int, seed: int) -> Array:
    """Scaled parameters to start from: (count, n_free), the prior centre first.

    The others are a Latin hypercube sample of the priors truncated at the bounds.
    """
    centre, sds, lower, upper = prior_vectors(problem)
    if count == 1:
        return centre[np.newaxis, :]
    rng = np.random.default_rng(seed)
    unit = qmc.LatinHypercube(len(centre), rng=rng).random(count - 1)
    low, high = ndtr((lower - centre) / sds), ndtr((upper - centre) / sds)
    drawn = centre + sds * ndtri(low + unit * (high - low))
    return np.vstack([centre, np.clip(drawn, lower, upper)])


def informed(problem: FitProblem) -> tuple[FitProblem, tuple[str, ...]]:
    """The problem without the free parameters that nothing measured depends on, and their names.

    Such are a switch whose drug is not given, or the rates of a marker that is not read. Their
    slopes are 0 to the last bit, at the centre of the prior and at `TRIED` other points.
    """
    objective, n_free = Objective(problem, ROUGH_RTOL), len(problem.free)
    moves = np.zeros(n_free, dtype=bool)
    for x in start_points(problem, 1 + TRIED, problem.seed) if n_free else ():
        moves |= (objective.jacobian(x)[:-n_free] != 0.0).any(axis=0)
    idle = tuple(name for name, moved in zip(problem.names, moves, strict=True) if not moved)
    if len(idle) == n_free:  # every run failed, or nothing can be learnt at all: the fit says so
        return problem, ()
    for name in idle:
        problem = problem.without(name)
    return problem, idle


def optimise(problem: FitProblem, job: tuple[int, Array]) -> Start:
    """Optimise from the best of some scaled parameters (n, n_free), at the rough tolerances.

    The first part has a robust loss, so that far from the optimum no single residual dominates.
    """
    number, points = job
    objective = Objective(problem, ROUGH_RTOL)
    x = points[int(np.argmin(objective.rough_costs(points)))]
    robust = minimize(objective, x, TOLERANCE, ROBUST_STEPS, loss="soft_l1", f_scale=2.0)
    end = descend(objective, _point(robust.params), ROUGH_TOLERANCE, ROUGH_FALL)
    return _start(number, values_by_name(problem, x), objective, end)


def polish(problem: FitProblem, start: Start) -> Start:
    """Optimise once more from the result of another optimisation, at the tight tolerances."""
    objective = Objective(problem)
    end = descend(objective, point_of(problem, start.values), TOLERANCE, FALL)
    return _start(start.number, start.values, objective, end)


def descend(objective: Objective, x: Array, tolerance: float, fall: float) -> tuple[str, bool]:
    """Optimise, and again from where that ended, until the cost has no further to fall.

    An optimiser that ends because its steps are small may be anywhere, in a narrow curved valley
    above all; so `promised_fall` decides. Returns why it ended, and whether it has converged.
    """
    for _ in range(MAX_ROUNDS):
        before = objective.best_cost
        result = minimize(objective, x, tolerance, MAX_STEPS)
        x, promised = objective.best, promised_fall(objective, objective.best)
        if promised <= fall:
            return str(result.message), True
        if before - objective.best_cost < 0.01 * fall:
            break
    return f"{result.message} A step still promises that the cost falls by {promised:.2g}.", False


def promised_fall(objective: Objective, x: Array) -> float:
    """By how much a Gauss-Newton step from scaled parameters x (n_free,) would lower the cost.

    The squared length of the residuals' projection on their slopes; without parameters that the
    step would take out of their bounds.
    """
    slopes, residuals = objective.jacobian(x), objective.residuals(x)
    gradient, near = slopes.T @ residuals, NEAR * objective.sds
    out = (x <= objective.lower + near) & (gradient > 0)
    out |= (x >= objective.upper - near) & (gradient < 0)
    step = np.linalg.lstsq(slopes[:, ~out], residuals)[0]
    return float(residuals @ (slopes[:, ~out] @ step))


def minimize(
    objective: Objective, x: Array, tolerance: float, steps: int, **options: float | str
) -> lmfit.minimizer.MinimizerResult:
    """Run lmfit's ``least_squares`` from scaled parameters x (n_free,) within their bounds.

    With the correction of `SecantCorrection`, except for a robust loss, whose Hessian is different.
    """
    problem, parameters = objective.problem, lmfit.Parameters()
    limits = zip(problem.names, x, objective.lower, objective.upper, strict=True)
    for name, value, low, high in limits:
        parameters.add(f"x_{name}", value=float(value), min=float(low), max=float(high))
    curvature, zeros = SecantCorrection(), np.zeros(x.size + objective.terms)

    def residuals(current: lmfit.Parameters) -> Array:
        return np.concatenate([objective.residuals(_point(current)), zeros])

    def jacobian(current: lmfit.Parameters) -> Array:
        nonlocal curvature
        here, sds = _point(current), objective.sds
        scaled = objective.jacobian(here) * sds
        more = objective.information(here, scaled)
        known = more.T @ more if objective.terms else 0.0
        curvature = curvature.after(here / sds, objective.residuals(here), scaled, known)
        rows = np.zeros((x.size, x.size)) if "loss" in options else curvature.rows
        return np.vstack([scaled, rows, more]) / sds

    return lmfit.minimize(
        residuals,
        parameters,
        method="least_squares",
        scale_covar=False,
        Dfun=jacobian,
        x_scale=objective.sds,
        max_nfev=steps,
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        **options,
    )


def _point(parameters: lmfit.Parameters) -> Array:
    return np.array([p.value for p in parameters.values()])


def _start(
    number: int, initial: Mapping[str, float], objective: Objective, end: tuple[str, bool]
) -> Start:
    return Start(
        number,
        initial=dict(initial),
        values=values_by_name(objective.problem, objective.best),
        cost=_exact_cost(objective),
        status=end[0],
        converged=end[1],
        runs=objective.runs,
        failed=objective.failed,
        first_failure=objective.first_failure,
    )


def _exact_cost(objective: Objective) -> float:
    """The cost of the best point at `RTOL`, for rough optimisations as well."""
    if objective.rtol == RTOL:
        return objective.best_cost
    residuals = Objective(objective.problem).residuals(objective.best)
    return float(residuals @ residuals)
