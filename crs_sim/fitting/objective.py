"""The residuals that a fit minimises, their slopes, and the structured secant correction.

Gauss-Newton approximates the Hessian of half a sum of squares by J'J and neglects S, the sum of
each residual times its own Hessian. Where residuals at the optimum are large and curved in a stiff
direction, as all are with the day a loop ignites, its steps overshoot and return, always in the
same proportion. S is approximated by secant updates from the change of the Jacobian along the
steps, as in NL2SOL (Dennis, Gay & Welsch 1981, doi:10.1145/355958.355965).

Any least-squares routine can use S as extra Jacobian rows under residuals that are always zero:
they leave cost and gradient unchanged and add S to J'J.

Everything is a function of the log parameters x, (n_free,), in the order of ``problem.names``.
Derivatives reuse the steps of the run itself (see `crs_sim.gradients`), so they are free of solver
noise. A run that fails is counted and does not stop the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..dosing import build_timeline
from ..errors import InputError, IntegrationError
from ..model import Array, pretty
from ..simulation import Dense, Simulation, raise_if_stopped, simulate
from ..solver import LOG_STEP, Course, Runs, compile_kernel, side_by_side
from .noise import days_needed, predicted, residual_vector, watched_states
from .problem import FitProblem

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
    """

    x: Array = field(default_factory=lambda: np.empty(0))
    residuals: Array = field(default_factory=lambda: np.empty(0))
    slopes: Array = field(default_factory=lambda: np.empty((0, 0)))
    secant: Array = field(default_factory=lambda: np.empty((0, 0)))
    reliable: bool = False

    def after(self, x: Array, residuals: Array, slopes: Array) -> SecantCorrection:
        """Update at the next point x, with its residuals and Jacobian ``slopes``."""
        step = x - self.x if len(self.x) else np.zeros_like(x)
        if not step.any():
            same = self.secant if len(self.x) else np.zeros((len(x), len(x)))
            return SecantCorrection(x, residuals, slopes, same, self.reliable)
        change = slopes.T @ residuals - self.slopes.T @ self.residuals
        target = (slopes - self.slopes).T @ residuals
        reliable = self._predicts(step, 0.5 * float(residuals @ residuals))
        secant = _secant_update(self.secant, step, change, target)
        return SecantCorrection(x, residuals, slopes, secant, reliable)

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


METHOD = "Rosenbrock"
RTOL = 1e-7
"""Relative tolerance of the final results: estimates, covariance, cost."""
ROUGH_RTOL = 3e-4
"""Of the iterations before: the error of a curve is then 1/100 of the smallest spread in use."""
RANKING_RTOL = 1e-3
"""For ranking starting points far from the optimum."""
MANY_RTOL = 1e-4
"""For averages over draws."""
CAP = 8.0
"""Cap on each residual, in standard deviations, when ranking starting points."""
FAILED = 1e3
"""Residual of every observation in a failed run: finite, constant, above any real misfit."""


def curves(problem: FitProblem, values: Mapping[str, float], days: Array) -> Simulation:
    """Simulate the patient's scenario with these parameter values, at the accuracy of a fit."""
    model = problem.model.with_values(**values)
    return simulate(model, problem.patient.scenario, days=days, method=METHOD, rtol=RTOL)


UNREACHABLE = 1e-5
"""A prediction below this share of the reading is below the range of any assay that gave it."""
TRIES = 16


def check_reachable(problem: FitProblem) -> None:
    """Refuse readings that the model stays below by orders of magnitude under its whole prior.

    A level at the moment of the first dose, say: the fit would take absorption or another rate to
    any height for it. Looked at are the prior's centre and, only if a reading is far above it,
    ``TRIES`` draws of the prior, and lags at their lower bounds.

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
    normal = np.random.default_rng(problem.seed).standard_normal((TRIES, len(centre)))
    lags = np.isin(problem.names, [drug.lag for drug in problem.model.drugs])
    points = [centre, *np.clip(centre + sd * normal, lower, upper), np.where(lags, lower, centre)]
    for point in points:
        yield dict(zip(problem.names, np.exp(point).tolist(), strict=True))


def prior_vectors(problem: FitProblem) -> tuple[Array, Array, Array, Array]:
    """Centre, sd, lower and upper bound of the log parameters, each (n_free,)."""
    table = np.array([(f.median, f.sd, f.lower, f.upper) for f in problem.free]).reshape(-1, 4)
    return np.log(table[:, 0]), table[:, 1], np.log(table[:, 2]), np.log(table[:, 3])


def values_by_name(problem: FitProblem, x: Array) -> dict[str, float]:
    """Parameter values by name."""
    return {name: math.exp(value) for name, value in zip(problem.names, x, strict=True)}


def logs(problem: FitProblem, values: Mapping[str, float]) -> Array:
    """Logarithms of the free parameters, (n_free,)."""
    return np.log(np.array([values[name] for name in problem.names], dtype=np.float64))


@dataclass(frozen=True)
class Courses:
    """Many runs on the same days, as `crs_sim.fitting.Curves`: curves are (n_runs, n_days)."""

    days: Array
    values: Mapping[str, Array]
    columns: Mapping[str, Array]
    dense: Callable[[str], Course] | None = None

    def __getitem__(self, name: str) -> Array:
        """The time courses of a state or quantity, (n_runs, n_days)."""
        return self.columns[name]


class Objective:
    """Residuals of a problem at log parameters x, (n_free,); counts runs and failures.

    The vector has the residuals of the observations, then one per free parameter for its prior.
    """

    def __init__(self, problem: FitProblem, rtol: float = RTOL) -> None:
        """Compile the model; nothing runs yet."""
        self.problem, self.rtol = problem, rtol
        self.days = days_needed(problem.patient.observations)
        self.centre, self.sds, self.lower, self.upper = prior_vectors(problem)
        self.model = problem.model.with_values(**problem.patient.scenario.values)
        self.kernel = compile_kernel(self.model)
        self.line, _ = build_timeline(self.model, problem.patient.scenario, self.days)
        observed, noise = problem.patient.observations, problem.noise
        self.watched = watched_states(self.model, observed, noise)
        self.free = [self.model.parameter_ids.index(name) for name in problem.names]
        self.runs = self.failed = 0
        self.first_failure = ""
        self.best, self.best_cost = self.centre, math.inf
        self._last: tuple[bytes | None, Array | None, Array] = (None, None, np.empty(0))

    def residuals(self, x: Array) -> Array:
        """The residual vector; a failed run gives `FAILED` for each observation."""
        observed, _ = self._observed(x)
        if observed is None:
            observed = np.full(self._size, FAILED)
        both = np.concatenate([observed, (x - self.centre) / self.sds])
        cost = float(both @ both)
        if cost < self.best_cost:
            self.best, self.best_cost = x.copy(), cost
        return both

    def rough_costs(self, points: Array) -> Array:
        """Approximate sums of squares, (n,), at log parameters (n, n_free), each residual capped.

        For ranking starting points far from the optimum.
        """
        runs = self._run_points(points, RANKING_RTOL)
        self.failed += int(np.sum(runs.status != 0))
        both = np.hstack([self._residuals(runs, points), (points - self.centre) / self.sds])
        return np.asarray(np.sum(np.minimum(both**2, CAP**2), axis=1))

    def log_posteriors(self, points: Array) -> Array:
        """Log posterior densities, (n,), at log parameters (n, n_free), up to a constant.

        Minus infinity outside the bounds and where the run fails.
        """
        inside = ((points >= self.lower) & (points <= self.upper)).all(axis=1)
        logs = np.full(len(points), -math.inf)
        chosen = points[inside]
        if len(chosen):
            runs = self._run_points(chosen, self.rtol)
            both = np.hstack([
                self._residuals(runs, chosen, otherwise=math.inf),
                (chosen - self.centre) / self.sds,
            ])  # fmt: skip
            logs[inside] = -0.5 * np.sum(both**2, axis=1)
            self.failed += int(np.isneginf(logs[inside]).sum())
        return logs

    def courses(self, points: Array) -> Courses:
        """The runs at log parameters (n, n_free), without those that fail.

        As `crs_sim.fitting.noise` takes them.
        """
        runs = self._run_points(points, self.rtol)
        return self._courses(runs, self._values(points), runs.status == 0)

    def observed(self, points: Array) -> Array:
        """The observations' residuals at log parameters (n, n_free): (n, n_residuals).

        At the tolerance `MANY_RTOL`; a failed run gives `FAILED` for each observation.
        """
        return self._residuals(self._run_points(points, MANY_RTOL), points)

    def jacobian(self, x: Array) -> Array:
        """Derivatives (n, n_free) of `residuals`.

        Where a perturbed run fails, the step to the other side is used; where both fail, or the
        run itself, only the prior contributes.
        """
        here, steps = self._observed(x)
        derivatives = np.zeros((self._size, len(self.free)))
        if here is not None:
            derivatives = self._differences(x, here, steps, LOG_STEP)
            broken = ~np.isfinite(derivatives).all(axis=0)
            if broken.any():
                derivatives[:, broken] = self._differences(x, here, steps, -LOG_STEP)[:, broken]
                derivatives[:, ~np.isfinite(derivatives).all(axis=0)] = 0.0
        return np.vstack([derivatives, np.diag(1.0 / self.sds)])

    def attempt(self, x: Array) -> Array:
        """The observations' residuals; a failure of the run is raised, not counted.

        Raises
        ------
        IntegrationError
            If the run fails, or ends with values that are not finite.
        """
        run = curves(self.problem, values_by_name(self.problem, x), self.days)
        observed = residual_vector(self.problem.patient.observations, run, self.problem.noise)
        if not np.all(np.isfinite(observed)):
            raise IntegrationError("the run reached its end, but with values that are not finite")
        return observed

    def _differences(self, x: Array, here: Array, steps: Array, log_step: float) -> Array:
        """Derivatives (n_observed, n_free), NaN in the columns whose runs failed."""
        raise_if_stopped()
        self.runs += x.size
        values = self._values(x[None])[0]
        line = self.line.at(values)
        runs = side_by_side(self.kernel, line, values, self.free, steps, log_step, self.watched)
        perturbed = self._residuals(runs, x + log_step * np.eye(x.size), otherwise=np.nan)
        self.failed += int(np.sum(runs.status != 0))
        return np.asarray((perturbed - here).T / log_step)

    def _observed(self, x: Array) -> tuple[Array | None, Array]:
        """The observations' residuals and the steps of the run; None if it failed."""
        if self._last[0] != x.tobytes():
            self._last = (x.tobytes(), *self._run(x))
        return self._last[1], self._last[2]

    def _run(self, x: Array) -> tuple[Array | None, Array]:
        runs = self._run_points(x[None], self.rtol)
        observed = self._residuals(runs, x[None], otherwise=np.nan)[0]
        if np.isfinite(observed).all():
            return observed, runs.steps
        self.failed += 1
        self.first_failure = self.first_failure or self._reason(x)
        return None, runs.steps

    def _run_points(self, points: Array, rtol: float) -> Runs:
        """Run and count the log parameters (n, n_free); the only runs with step-size control."""
        raise_if_stopped()
        self.runs += len(points)
        values = self._values(points)
        return self.kernel.run(self.line, values, rtol=rtol, watched=self.watched)

    def _residuals(self, runs: Runs, points: Array, otherwise: float = FAILED) -> Array:
        """Residuals of each run (n_runs, n_observed); ``otherwise`` for failed runs."""
        ended = runs.status == 0
        table = np.full((len(points), self._size), otherwise)
        if ended.any():
            table[ended] = residual_vector(
                self.problem.patient.observations,
                self._courses(runs, self._values(points), ended), self.problem.noise,
            )  # fmt: skip
        return np.where(np.isfinite(table), table, otherwise)

    def _courses(self, runs: Runs, values: Array, chosen: NDArray[np.bool_]) -> Courses:
        rows = slice(None) if chosen.all() else chosen  # a slice avoids a copy in the usual case
        by_state = np.moveaxis(runs.states[rows], 2, 0)
        by_quantity = np.moveaxis(runs.quantities[rows], 2, 0)
        states = dict(zip(self.model.state_ids, by_state, strict=True))
        quantities = dict(zip(self.model.quantity_ids, by_quantity, strict=True))
        parameters = dict(zip(self.model.parameter_ids, values[rows].T, strict=True))
        dense = None
        if self.watched:
            dense = self._between(runs.of(np.flatnonzero(chosen)), values[rows])
        return Courses(self.days, parameters, {**states, **quantities}, dense)

    def _between(self, runs: Runs, values: Array) -> Callable[[str], Course]:
        """The courses between samples by name; one by one where values move doses."""
        names = [self.model.state_ids[k] for k in self.watched]
        if not len(self.line.moving):
            return Dense.compiled(self.model, names, self.line, runs, values).dense
        each = [
            Dense.compiled(self.model, names, self.line.at(own), runs.of(np.array([i])), own[None])
            for i, own in enumerate(values)
        ]
        return lambda name: Course.joined([one.dense(name) for one in each])

    def _values(self, points: Array) -> Array:
        """The parameter vectors (n, n_parameters) of log parameters (n, n_free)."""
        nominal = np.array([p.value for p in self.model.parameters])
        values = np.tile(nominal, (len(points), 1))
        values[:, self.free] = np.exp(points)
        return values

    def _reason(self, x: Array) -> str:
        try:
            self.attempt(x)
        except ArithmeticError as error:
            return str(error)
        return "the run failed, but not when repeated"

    @property
    def _size(self) -> int:
        return sum(1 + (o.kind == "sometime") for o in self.problem.patient.observations)
