"""The residuals that a fit minimises, and their slopes.

Everything is a function of x, (n_free,): the free parameters on their scales (`to_scale`), in the
order of ``problem.names``.
Derivatives reuse the steps of the run itself (see `crs_sim.gradients`), so they are free of solver
noise. A run that fails is counted and does not stop the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dosing import build_timeline
from ..errors import IntegrationError
from ..model import Array, Model
from ..patients import Observation
from ..simulation import Dense, Simulation, raise_if_stopped, simulate, states_of
from ..solver import LOG_STEP, Course, Runs, compile_kernel, side_by_side
from .noise import (
    NORMAL_95,
    Noise,
    Spread,
    days_needed,
    residual_vector,
    residuals,
)
from .priors import from_scale, to_scale
from .problem import FitProblem

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


def prior_vectors(problem: FitProblem) -> tuple[Array, Array, Array, Array]:
    """Centre, sd, lower and upper bound of the scaled parameters, each (n_free,)."""
    table = np.array([(f.median, f.sd, f.lower, f.upper) for f in problem.free]).reshape(-1, 4)
    centre, lower, upper = (to_scale(table[:, k], problem.scales) for k in (0, 2, 3))
    return centre, table[:, 1], lower, upper


def values_by_name(problem: FitProblem, x: Array) -> dict[str, float]:
    """Parameter values by name at a point (n_free,)."""
    return dict(zip(problem.names, from_scale(x, problem.scales).tolist(), strict=True))


def point_of(problem: FitProblem, values: Mapping[str, float]) -> Array:
    """The point (n_free,) of parameter values: the free ones on their scales."""
    free = np.array([values[name] for name in problem.names], dtype=np.float64)
    return to_scale(free, problem.scales)


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


def watched_states(model: Model, observations: Iterable[Observation], noise: Noise) -> list[int]:
    """Indices of the states whose courses between samples the observed peaks and grades need."""
    latent = {"grade": noise.grade.latent} if noise.grade else {}
    wanted = [
        latent.get(o.kind, o.observable)
        for o in observations
        if o.kind in ("peak", "grade") and o.until > o.day
    ]
    names = states_of(model, wanted) if wanted else ()
    return [model.state_ids.index(name) for name in names]


def noise_record(noise: Noise) -> dict[str, Any]:
    """The noise as a dictionary, without what has its default, so that stored hashes hold.

    >>> noise_record(Noise({"crp": Spread(0.1)}))
    {'spreads': {'crp': {'sd': 0.1, 'source': ''}}, 'grade': None}
    """
    content, usual = asdict(noise), asdict(Spread(0.0))
    spreads = {
        name: {k: v for k, v in spread.items() if k in ("sd", "source") or v != usual[k]}
        for name, spread in content["spreads"].items()
    }
    return {"spreads": spreads, "grade": None if noise.grade is None else noise.grade.record}


def level_at(spread: Spread, reading: float, z: float | Array) -> Array:
    """The level from which a reading is z standard deviations away; infinite if there is none.

    >>> level_at(Spread(0.5, error="additive"), 5.0, np.array([2.0, -2.0])).tolist()
    [4.0, 6.0]
    """
    if spread.error == "log-normal":
        return np.asarray(reading * np.exp(-spread.sd * z))
    additive = spread.error == "additive"
    share, fixed = (0.0, spread.sd) if additive else (spread.sd, spread.additive)
    rest, square = 1.0 - (z * share) ** 2, reading**2 - (z * fixed) ** 2
    root = reading + np.sqrt(np.maximum(0.0, reading**2 - rest * square))
    with np.errstate(divide="ignore"):
        above = np.where(rest > 0.0, root / rest, np.inf)
    return np.where(np.asarray(z) > 0.0, square / root, above)


def levels_within(spread: Spread, reading: float) -> tuple[float, float]:
    """The levels whose 95 % error interval ends at a reading."""
    return float(level_at(spread, reading, NORMAL_95)), float(level_at(spread, reading, -NORMAL_95))


def residual(observation: Observation, sim: Simulation, noise: Noise) -> float:
    """One number for tables: its square is the observation's -2 log-likelihood, up to a constant.

    Positive where the reading is above the prediction (grades: always positive). Fitting uses
    `residuals`; this is their norm with a sign.
    """
    parts = [float(part) for part in residuals(observation, sim, noise)]
    return math.copysign(math.sqrt(sum(part * part for part in parts)), parts[0])


class Objective:
    """Residuals of a problem at scaled parameters x, (n_free,); counts runs and failures.

    The vector has the residuals of the observations, then one per free parameter for its prior.
    """

    def __init__(self, problem: FitProblem, rtol: float = RTOL) -> None:
        """Compile the model; nothing runs yet."""
        self.problem, self.rtol = problem, rtol
        self.days = days_needed(problem.patient.observations)
        self.centre, self.sds, self.lower, self.upper = prior_vectors(problem)
        self.scales, self.logit = problem.scales, np.array(problem.scales) == "logit"
        self.model = problem.model.with_values(**problem.patient.scenario.values)
        self.kernel = compile_kernel(self.model)
        self.line, _ = build_timeline(self.model, problem.patient.scenario, self.days)
        observed, noise = problem.patient.observations, problem.noise
        self.watched = watched_states(self.model, observed, noise)
        self.free = [self.model.parameter_ids.index(name) for name in problem.names]
        self.runs = self.failed = 0
        self.first_failure = ""
        self.best, self.best_cost = self.centre, math.inf
        self.terms = len(noise.with_term(observed))
        self._last: tuple[bytes | None, Array | None, Array] = (None, None, np.empty(0))
        self._many: tuple[object, Runs] | None = None

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
        """Rough sums of squares, (n,), at scaled parameters (n, n_free), each residual capped.

        For ranking starting points far from the optimum.
        """
        runs = self._run_points(points, RANKING_RTOL)
        self.failed += int(np.sum(runs.status != 0))
        observed = self._residuals(runs, self._values(points))
        both = np.hstack([observed, (points - self.centre) / self.sds])
        return np.asarray(np.sum(np.minimum(both**2, CAP**2), axis=1))

    def log_posteriors(self, points: Array) -> Array:
        """Log posterior densities, (n,), at scaled parameters (n, n_free), up to a constant.

        Minus infinity outside the bounds and where the run fails.
        """
        inside = ((points >= self.lower) & (points <= self.upper)).all(axis=1)
        logs = np.full(len(points), -math.inf)
        chosen = points[inside]
        if len(chosen):
            runs = self._run_points(chosen, self.rtol)
            both = np.hstack([
                self._residuals(runs, self._values(chosen), otherwise=math.inf),
                (chosen - self.centre) / self.sds,
            ])  # fmt: skip
            logs[inside] = -0.5 * np.sum(both**2, axis=1)
            self.failed += int(np.isneginf(logs[inside]).sum())
        return logs

    def courses(self, points: Array) -> Courses:
        """The runs at scaled parameters (n, n_free), without those that fail.

        As `crs_sim.fitting.noise` takes them.
        """
        runs = self._run_points(points, self.rtol)
        return self._courses(runs, self._values(points), runs.status == 0)

    def observed(self, points: Array, fixed: Mapping[str, float] | None = None) -> Array:
        """The observations' residuals at scaled parameters (n, n_free): (n, n_residuals).

        At the tolerance `MANY_RTOL`; a failed run gives `FAILED` for each observation. ``fixed``
        are values of parameters that are not free; runs do not depend on residual errors, so that
        those of the same points serve again.
        """
        values = self._values(points, fixed)
        moves = {
            name: x for name, x in (fixed or {}).items() if name not in self.problem.noise.estimated
        }
        key = points.tobytes(), tuple(moves.items())
        if self._many is None or self._many[0] != key:
            self._many = key, self._run_values(values, MANY_RTOL)
        return self._residuals(self._many[1], values)

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

    def information(self, x: Array, jacobian: Array) -> Array:
        """Rows (n_terms, n_free) below the Jacobian, which make J'J the expected information.

        Of a log term g of s (`residual_vector`) Gauss-Newton keeps the 1/g^2 of the curvature in
        ln s, whose expectation with that of the reading's own residual is 2.
        """
        last = self._size
        term = self.residuals(x)[last - self.terms : last]
        missing = np.sqrt(np.maximum(term**2 - 1.0, 0.0))
        return np.asarray(missing[:, None] * jacobian[last - self.terms : last])

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

    def _differences(self, x: Array, here: Array, steps: Array, step: float) -> Array:
        """Derivatives (n_observed, n_free), NaN in the columns whose runs failed.

        The kernel varies ln(value), which of a share changes 1 - value times as much as x.
        """
        raise_if_stopped()
        self.runs += x.size
        values = self._values(x[None])[0]
        line = self.line.at(values)
        log_steps = step * np.where(self.logit, 1.0 - values[self.free], 1.0)
        runs = side_by_side(self.kernel, line, values, self.free, steps, log_steps, self.watched)
        moved = self._values(x + step * np.eye(x.size))
        perturbed = self._residuals(runs, moved, otherwise=np.nan)
        self.failed += int(np.sum(runs.status != 0))
        return np.asarray((perturbed - here).T / step)

    def _observed(self, x: Array) -> tuple[Array | None, Array]:
        """The observations' residuals and the steps of the run; None if it failed."""
        if self._last[0] != x.tobytes():
            self._last = (x.tobytes(), *self._run(x))
        return self._last[1], self._last[2]

    def _run(self, x: Array) -> tuple[Array | None, Array]:
        runs = self._run_points(x[None], self.rtol)
        observed = self._residuals(runs, self._values(x[None]), otherwise=np.nan)[0]
        if np.isfinite(observed).all():
            return observed, runs.steps
        self.failed += 1
        self.first_failure = self.first_failure or self._reason(x)
        return None, runs.steps

    def _run_points(self, points: Array, rtol: float) -> Runs:
        return self._run_values(self._values(points), rtol)

    def _run_values(self, values: Array, rtol: float) -> Runs:
        """Run and count parameter vectors (n, n_parameters), the only ones with step control."""
        raise_if_stopped()
        self.runs += len(values)
        return self.kernel.run(self.line, values, rtol=rtol, watched=self.watched)

    def _residuals(self, runs: Runs, values: Array, otherwise: float = FAILED) -> Array:
        """Residuals of each run (n_runs, n_observed); ``otherwise`` for failed runs."""
        ended = runs.status == 0
        table = np.full((len(values), self._size), otherwise)
        if ended.any():
            table[ended] = residual_vector(
                self.problem.patient.observations, self._courses(runs, values, ended),
                self.problem.noise,
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

    def _values(self, points: Array, fixed: Mapping[str, float] | None = None) -> Array:
        """The parameter vectors (n, n_parameters) of scaled parameters (n, n_free)."""
        nominal = np.array([p.value for p in self.model.parameters])
        values = np.tile(nominal, (len(points), 1))
        values[:, self.free] = from_scale(points, self.scales)
        for name, value in (fixed or {}).items():
            values[:, self.model.parameter_ids.index(name)] = value
        return values

    def _reason(self, x: Array) -> str:
        try:
            self.attempt(x)
        except ArithmeticError as error:
            return str(error)
        return "the run failed, but not when repeated"

    @property
    def _size(self) -> int:
        observed = self.problem.patient.observations
        return sum(1 + (o.kind == "sometime") for o in observed) + self.terms
