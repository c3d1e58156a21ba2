"""`fit`: the values that make the observations and the priors most likely together, and how sure.

Least squares on log parameters: the residuals of `crs_sim.noise` and, for each free parameter,
(ln value - ln prior median)/sd. Half the sum of squares is the negative log posterior up to a
constant, so estimate (MAP), standard errors and covariance come from one vector. The only file
that knows lmfit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import lmfit
import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from .errors import InputError
from .model import Model
from .noise import days_needed
from .objective import (
    METHOD,
    ROUGH_RTOL,
    RTOL,
    Array,
    Objective,
    curves,
    logs,
    named,
    prior_vectors,
)
from .problem import FitProblem
from .simulation import Simulation
from .workers import each

TOLERANCE, ROUGH_TOLERANCE = 1e-9, 1e-5
"""Relative change of cost and parameters at which the last descent ends, and each one before it."""
MAX_STEPS = 60
"""Trial steps of one descent."""
ROBUST_STEPS = 15
"""Trial steps of the first, robust part of a descent."""
DRAWS = 100
"""Points tried for each start: in most draws of the priors the loop never ignites, or always."""
AT_BOUND = 0.01
"""An estimate closer to a bound than this fraction of the log range is at the bound."""
PRIOR_ONLY = 0.95
NORMAL_95 = 1.959963984540054


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


@dataclass(frozen=True)
class Estimate:
    """What the fit says of one parameter; `standard_error` and `prior_sd` are on the log scale."""

    parameter: str
    label: str
    unit: str
    estimate: float
    prior_median: float
    prior_sd: float
    shift: float
    standard_error: float
    low: float
    high: float
    at_bound: bool
    carried_by_prior: bool


@dataclass(frozen=True)
class Dropped:
    """What fixing one parameter at its prior median costs; see `drop_one`."""

    parameter: str
    cost: float
    delta_aic: float
    failed: int


@dataclass(frozen=True, eq=False)
class Fit:
    """The answer to a `FitProblem`.

    Parameters
    ----------
    problem : FitProblem
    values : mapping of free parameter to its estimate
    covariance : (n_free, n_free), of the log parameters, in the order of `problem.names`
    residuals : (n,), of the observations at the estimate, without the priors
    starts : tuple of Start, as begun
    polish : Start, the last descent, from the best of them, at the tight tolerances
    seed : int
    options : mapping, what else decided the numbers
    """

    problem: FitProblem
    values: Mapping[str, float]
    covariance: Array = field(repr=False)
    residuals: Array = field(repr=False)
    starts: tuple[Start, ...] = field(repr=False)
    polish: Start = field(repr=False)
    seed: int = 1
    options: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """The problem's model with the estimates; the problem's own stays as it was."""
        return self.problem.model.with_values(**self.values)

    @property
    def deviance(self) -> float:
        """-2 ln likelihood of the observations, up to a constant."""
        return float(self.residuals @ self.residuals)

    @property
    def prior_penalty(self) -> float:
        """-2 ln prior of the estimates, up to a constant: the sum of squared shifts."""
        return sum(e.shift**2 for e in self.estimates)

    @property
    def cost(self) -> float:
        """-2 ln posterior, up to a constant: `deviance` plus `prior_penalty`."""
        return self.deviance + self.prior_penalty

    @property
    def aic(self) -> float:
        """`cost` + 2 n_free: each prior counts as one more observation, of that parameter.

        So fixing a parameter at its prior median can lower it by 2 at most. Only differences
        between fits of the same observations mean anything.
        """
        return self.cost + 2 * len(self.problem.free)

    @property
    def effective_parameters(self) -> float:
        """How many parameters the observations determine: n_free less what the priors carry."""
        sds = np.array([f.sd for f in self.problem.free])
        return float(len(sds) - np.sum(np.diag(self.covariance) / sds**2))

    @property
    def failed_runs(self) -> int:
        """Simulations that failed, in all descents."""
        return sum(s.failed for s in (*self.starts, self.polish))

    @property
    def runs(self) -> int:
        """Simulations made, in all descents."""
        return sum(s.runs for s in (*self.starts, self.polish))

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """One for each free parameter."""
        errors = np.sqrt(np.diag(self.covariance))
        return tuple(_estimate(self, i, float(se)) for i, se in enumerate(errors))

    def simulation(self, days: Array | None = None) -> Simulation:
        """The run at the estimates; on the days the observations need if none are given."""
        wanted = days_needed(self.problem.patient.observations) if days is None else days
        return curves(self.problem, self.values, wanted)

    def starts_table(self) -> pd.DataFrame:
        """One row a descent, the last one being the polish: cost, status, runs, values."""
        rows = [
            {
                "start": "polish" if s is self.polish else str(s.number),
                "cost": s.cost,
                "converged": s.converged,
                "status": s.status,
                "runs": s.runs,
                "failed": s.failed,
                "first_failure": s.first_failure,
                **{f"initial_{name}": value for name, value in s.initial.items()},
                **s.values,
            }
            for s in (*self.starts, self.polish)
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """The fit in one line."""
        return (
            f"Fit({self.problem.name!r}: {len(self.values)} parameters, "
            f"{len(self.problem.patient.observations)} observations, cost {self.cost:.4g}, "
            f"{len(self.starts)} starts, {self.failed_runs} of {self.runs} runs failed)"
        )


def fit(
    problem: FitProblem,
    *,
    starts: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int, Start], None] | None = None,
) -> Fit:
    """Fit a problem from several starts; the best is polished at tight tolerances.

    Parameters
    ----------
    problem : FitProblem
    starts : int, descents (default: the problem's); the first begins at the prior centre, each
        other at the best of `DRAWS` points of a Latin hypercube drawn from the priors
    seed : int, of that draw (default: the problem's)
    workers : int, processes (default: one for each core); the numbers do not depend on it
    progress : called as (finished, of how many, Start) after each descent

    Raises
    ------
    InputError
        If nothing is free, or starts or workers is below 1.
    IntegrationError
        If the model cannot be run even at the best values found.
    """
    count = problem.starts if starts is None else starts
    chosen = problem.seed if seed is None else seed
    if count < 1 or not problem.free:
        raise InputError(f"{problem.name}: a fit needs at least one start and one free parameter")
    points = start_points(problem, 1 + (count - 1) * DRAWS, chosen)
    jobs = list(enumerate([points[:1], *points[1:].reshape(count - 1, DRAWS, points.shape[1])]))
    done: list[Start] = []

    def report(start: Start) -> None:
        done.append(start)
        if progress is not None:
            progress(len(done), count, start)

    found = each(partial(descend, problem), jobs, workers=workers, finished=report)
    best = min(found, key=lambda start: start.cost)
    return _answer(problem, tuple(found), polish(problem, best), chosen)


def _answer(problem: FitProblem, starts: tuple[Start, ...], last: Start, seed: int) -> Fit:
    objective = Objective(problem)
    x = logs(problem, last.values)
    observed = objective.attempt(x)
    jacobian = objective.jacobian(x)
    options: dict[str, float | str] = {
        "method": METHOD,
        "rtol": RTOL,
        "rough_rtol": ROUGH_RTOL,
        "tolerance": TOLERANCE,
        "max_steps": MAX_STEPS,
    }
    return Fit(
        problem,
        dict(last.values),
        np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64),
        observed,
        starts,
        last,
        seed,
        options,
    )


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
    near = _minimize(objective, x, TOLERANCE, ROBUST_STEPS, loss="soft_l1", f_scale=2.0)
    result = _minimize(objective, _logs(near.params), ROUGH_TOLERANCE, MAX_STEPS)
    return _start(number, named(problem, x), objective, result)


def polish(problem: FitProblem, start: Start) -> Start:
    """One more descent, from the end of another, at the tight tolerances."""
    objective = Objective(problem)
    result = _minimize(objective, logs(problem, start.values), TOLERANCE, MAX_STEPS)
    return _start(start.number, start.values, objective, result)


def _minimize(
    objective: Objective, x: Array, tolerance: float, steps: int, **how: float | str
) -> lmfit.minimizer.MinimizerResult:
    """lmfit's ``least_squares`` from log parameters x (n_free,) inside their bounds."""
    problem, parameters = objective.problem, lmfit.Parameters()
    limits = zip(problem.names, x, objective.lower, objective.upper, strict=True)
    for name, value, low, high in limits:
        parameters.add(f"log_{name}", value=float(value), min=float(low), max=float(high))
    return lmfit.minimize(
        lambda current: objective.residuals(_logs(current)),
        parameters,
        method="least_squares",
        scale_covar=False,
        Dfun=lambda current: objective.jacobian(_logs(current)),
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
    again = Objective(objective.problem).residuals(objective.best)  # all costs equally exact
    return Start(
        number,
        initial=dict(initial),
        values=named(objective.problem, objective.best),
        cost=float(again @ again),
        status=str(result.message),
        converged=bool(result.success) and not result.aborted,
        runs=objective.runs,
        failed=objective.failed,
        first_failure=objective.first_failure,
    )


def drop_one(
    result: Fit,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Dropped, ...]:
    """What each free parameter earns: refit without it, fixed at its prior median.

    ``delta_aic`` is the AIC without it less the AIC with it (see `Fit.aic`): above 0, the
    parameter pays for itself; it is never below -2. Each refit starts at the other estimates,
    so it finds the optimum nearby and the cost is an upper bound.

    Parameters
    ----------
    workers : int, processes (default: one for each core)
    progress : called as (finished, of how many, parameter)
    """
    names = result.problem.names
    count = 0

    def report(dropped: Dropped) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, len(names), dropped.parameter)

    return tuple(each(partial(_drop, result), names, workers=workers, finished=report))


def _drop(result: Fit, name: str) -> Dropped:
    smaller = result.problem.without(name)
    if smaller.free:
        warm = {f.name: result.values[f.name] for f in smaller.free}
        objective = Objective(smaller, ROUGH_RTOL)
        _minimize(objective, logs(smaller, warm), ROUGH_TOLERANCE, MAX_STEPS)
        rough = named(smaller, objective.best)
        last = polish(smaller, replace(result.polish, values=rough))
        cost, failed = last.cost, objective.failed + last.failed
    else:
        objective = Objective(smaller)
        cost, failed = float(np.sum(objective.residuals(np.zeros(0)) ** 2)), objective.failed
    return Dropped(name, cost, cost - result.cost - 2.0, failed)


def _estimate(result: Fit, i: int, error: float) -> Estimate:
    free = result.problem.free[i]
    value = result.values[free.name]
    parameter = result.problem.model[free.name]
    margin = AT_BOUND * math.log(free.upper / free.lower)
    near = min(math.log(value / free.lower), math.log(free.upper / value))
    return Estimate(
        parameter=free.name,
        label=parameter.label,
        unit=parameter.unit,
        estimate=value,
        prior_median=free.median,
        prior_sd=free.sd,
        shift=math.log(value / free.median) / free.sd,
        standard_error=error,
        low=value * math.exp(-NORMAL_95 * error),
        high=value * math.exp(NORMAL_95 * error),
        at_bound=near < margin,
        carried_by_prior=error / free.sd > PRIOR_ONLY,
    )
