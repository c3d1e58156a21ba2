"""`fit`: maximum a posteriori estimates of the free parameters, with their standard errors.

Least squares on scaled parameters: the residuals of `crs_sim.fitting.noise` and, for each free
parameter, (x - x of the prior median)/sd. Half the sum of squares is the negative log posterior up
to a constant, so estimate (MAP), standard errors and covariance come from one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd

from ..errors import InputError
from ..model import Array, Model, pretty
from ..simulation import Simulation, Workers, parallel_map
from .local_optimisation import (
    MAX_ROUNDS,
    MAX_STEPS,
    ROUGH_FALL,
    ROUGH_TOLERANCE,
    TOLERANCE,
    Start,
    check_reachable,
    descend,
    optimise,
    polish,
    start_points,
)
from .noise import NORMAL_95, Noise, days_needed
from .objective import (
    METHOD,
    ROUGH_RTOL,
    RTOL,
    Objective,
    curves,
    point_of,
    values_by_name,
)
from .priors import SHARE, Free, from_scale
from .problem import FitProblem

DRAWS = 100
"""Points ranked for each start: in most prior draws the loop never ignites, or always does."""
AT_BOUND = 0.01
"""An estimate closer to a bound than this fraction of the range, on its scale, is at the bound."""
PRIOR_ONLY = 0.95
"""Above this ratio of standard error to prior sd an estimate is carried by its prior."""
SINGULAR = 1e-10
"""Smallest ratio of singular values of the Jacobian that is not rounding error."""
MAX_HALF_WIDTH = 600.0
"""Largest half-width of an interval on its scale, so that its exponential does not overflow."""


@dataclass(frozen=True)
class Estimate:
    """The estimate of one parameter; `standard_error` and `prior_sd` are on its scale."""

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
    scale: str = "log"


@dataclass(frozen=True)
class Dropped:
    """The cost of fixing one parameter at its prior median; see `drop_one`."""

    parameter: str
    cost: float
    delta_aic: float
    failed: int


@dataclass(frozen=True, eq=False)
class Fit:
    """The result of fitting a `FitProblem`.

    Parameters
    ----------
    problem : FitProblem
    values : mapping of free parameter to its estimate
    covariance : (n_free, n_free), of the scaled parameters, in the order of `problem.names`
    residuals : (n,), of the observations at the estimate, without the priors
    starts : tuple of Start, in order of their numbers
    polish : Start, the final optimisation from the best start, at the tight tolerances
    seed : int
    singular : bool, whether some combination of parameters is not identifiable; its standard
        errors are then very large
    options : mapping, solver and optimiser settings
    """

    problem: FitProblem
    values: Mapping[str, float]
    covariance: Array = field(repr=False)
    residuals: Array = field(repr=False)
    starts: tuple[Start, ...] = field(repr=False)
    polish: Start = field(repr=False)
    seed: int = 1
    options: Mapping[str, float | str] = field(default_factory=dict)
    singular: bool = False

    @property
    def model(self) -> Model:
        """A copy of the problem's model with the estimates."""
        return self.problem.model.with_values(**self.values)

    @property
    def noise(self) -> Noise:
        """The problem's noise, with the estimates of what is estimated of it."""
        return self.problem.noise.at(self.values)

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
        between fits of the same observations are meaningful.
        """
        return self.cost + 2 * len(self.problem.free)

    @property
    def effective_parameters(self) -> float:
        """Effective number of parameters: n_free less the part determined by the priors."""
        sds = np.array([f.sd for f in self.problem.free])
        return float(len(sds) - np.sum(np.diag(self.covariance) / sds**2))

    @property
    def condition(self) -> float:
        """Condition number of the estimates' correlations; infinite if the fit is `singular`.

        The largest eigenvalue of the correlation matrix over the smallest. Above 1000 some
        parameters are separated by little but their priors.
        """
        if self.singular:
            return math.inf
        errors = np.sqrt(np.diag(self.covariance))
        eigenvalues = np.linalg.eigvalsh(self.covariance / np.outer(errors, errors))
        return float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else math.inf

    @property
    def failed_runs(self) -> int:
        """Simulations that failed, in all optimisations."""
        return sum(s.failed for s in (*self.starts, self.polish))

    @property
    def runs(self) -> int:
        """Simulations made, in all optimisations."""
        return sum(s.runs for s in (*self.starts, self.polish))

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """One for each free parameter."""
        errors = np.sqrt(np.diag(self.covariance))
        return tuple(_estimate(self, i, float(se)) for i, se in enumerate(errors))

    def simulation(self, days: Array | None = None) -> Simulation:
        """The run at the estimates, by default on the days of the observations."""
        sampled = days_needed(self.problem.patient.observations) if days is None else days
        return curves(self.problem, self.values, sampled)

    def starts_table(self) -> pd.DataFrame:
        """One row per optimisation, the polish last: cost, status, runs, values."""
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
    workers: Workers = None,
    progress: Callable[[int, int, Start], None] | None = None,
) -> Fit:
    """Fit a problem from several starting points; polish the best at tight tolerances.

    Parameters
    ----------
    problem : FitProblem
    starts : int, local optimisations (default: the problem's); the first starts at the prior
        centre, each other at the best of `DRAWS` points of a Latin hypercube of the priors
    seed : int, of that sample (default: the problem's)
    workers : int, processes (default: one for each core), or the address of a Dask scheduler; the
        results do not depend on it
    progress : called as (finished, total, Start) after each optimisation

    Raises
    ------
    InputError
        If nothing is free, starts or workers is below 1, or a reading is out of the model's reach.
    IntegrationError
        If the model cannot be run at the best values found.
    CrsSimError
        If a cluster cannot be reached, or is lost.
    """
    count = problem.starts if starts is None else starts
    chosen = problem.seed if seed is None else seed
    if count < 1 or not problem.free:
        raise InputError(f"{problem.name}: a fit needs at least one start and one free parameter")
    check_reachable(problem)
    points = start_points(problem, 1 + (count - 1) * DRAWS, chosen)
    jobs = list(enumerate([points[:1], *points[1:].reshape(count - 1, DRAWS, points.shape[1])]))
    done: list[Start] = []

    def report(start: Start) -> None:
        done.append(start)
        if progress is not None:
            progress(len(done), count, start)

    all_starts = parallel_map(partial(optimise, problem), jobs, workers=workers, finished=report)
    best = min(all_starts, key=lambda start: start.cost)
    return assemble_fit(problem, tuple(all_starts), polish(problem, best), chosen)


def assemble_fit(problem: FitProblem, starts: tuple[Start, ...], last: Start, seed: int) -> Fit:
    """Assemble the `Fit`: the result of the final optimisation, with its covariance."""
    objective = Objective(problem)
    x = point_of(problem, last.values)
    observed = objective.attempt(x)
    jacobian = objective.jacobian(x)
    options: dict[str, float | str] = {
        "method": METHOD,
        "rtol": RTOL,
        "rough_rtol": ROUGH_RTOL,
        "tolerance": TOLERANCE,
        "max_steps": MAX_STEPS * MAX_ROUNDS,
    }
    information = np.vstack([jacobian, objective.information(x, jacobian)])
    covariance, singular = covariance_of(information)
    return Fit(
        problem, dict(last.values), covariance, observed, starts, last, seed, options, singular
    )


def covariance_of(jacobian: Array) -> tuple[Array, bool]:
    """Covariance (n_free, n_free) from the Jacobian (n, n_free) of residuals with unit variance.

    Where the Jacobian is singular (second value True), the variance of that direction is set very
    large, so that no standard error is understated.

    >>> covariance_of(np.array([[2.0, 0.0], [0.0, 0.5]]))[0].tolist()
    [[0.25, 0.0], [0.0, 4.0]]
    """
    scale = np.linalg.norm(jacobian, axis=0)
    scale[scale == 0.0] = 1.0
    _, sizes, directions = np.linalg.svd(jacobian / scale, full_matrices=False)
    floor = SINGULAR * sizes.max(initial=0.0) or 1.0
    spread = directions.T / np.maximum(sizes, floor) / scale[:, None]
    return np.asarray(spread @ spread.T), bool((sizes < floor).any())


def drop_one(
    result: Fit,
    *,
    workers: Workers = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Dropped, ...]:
    """Refit without each free parameter in turn, fixed at its prior median.

    ``delta_aic`` is the AIC without the parameter less the AIC with it (see `Fit.aic`): above 0,
    the parameter improves the AIC; it is never below -2. Each refit starts at the other estimates,
    so it finds the optimum nearby and its cost is an upper bound.

    Parameters
    ----------
    workers : as in `fit`
    progress : called as (finished, total, parameter)
    """
    names = result.problem.names
    count = 0

    def report(dropped: Dropped) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, len(names), dropped.parameter)

    work = partial(_drop, result)
    return tuple(parallel_map(work, names, workers=workers, finished=report))


def _drop(result: Fit, name: str) -> Dropped:
    smaller = result.problem.without(name)
    if smaller.free:
        warm = {f.name: result.values[f.name] for f in smaller.free}
        objective = Objective(smaller, ROUGH_RTOL)
        descend(objective, point_of(smaller, warm), ROUGH_TOLERANCE, ROUGH_FALL)
        rough = values_by_name(smaller, objective.best)
        last = polish(smaller, replace(result.polish, values=rough))
        cost, failed = last.cost, objective.failed + last.failed
    else:
        objective = Objective(smaller)
        cost, failed = float(np.sum(objective.residuals(np.zeros(0)) ** 2)), objective.failed
    return Dropped(name, cost, cost - result.cost - 2.0, failed)


def estimates_table(result: Fit, dropped: Sequence[Dropped] = ()) -> pd.DataFrame:
    """One row per parameter, with the change of AIC if it is dropped (NaN if not computed)."""
    table = pd.DataFrame([asdict(estimate) for estimate in result.estimates])
    table["unit"] = table["unit"].map(pretty)
    changes = {d.parameter: d.delta_aic for d in dropped}
    table["delta_aic_dropped"] = [changes.get(name, math.nan) for name in table["parameter"]]
    return table


def _estimate(result: Fit, i: int, error: float) -> Estimate:
    free = result.problem.free[i]
    value = result.values[free.name]
    parameter = result.problem.model[free.name]
    most = result.problem.model.bounds[free.name][1]
    centre, x, bottom, top = map(free.to_scale, (free.median, value, free.lower, free.upper))
    margin = AT_BOUND * (top - bottom)
    beyond = free.scale == "logit" and asked_share(free, value, error) > SHARE[1]
    near = x - bottom < margin or top - x < (AT_BOUND if free.upper == most else margin)
    half_width = min(NORMAL_95 * error, MAX_HALF_WIDTH)
    low, high = from_scale([x - half_width, x + half_width], free.scale).tolist()
    return Estimate(
        parameter=free.name,
        label=parameter.label,
        unit=parameter.unit,
        estimate=value,
        prior_median=free.median,
        prior_sd=free.sd,
        shift=(x - centre) / free.sd,
        standard_error=error,
        low=low,
        high=min(high, most),
        at_bound=near or beyond,
        carried_by_prior=error / free.sd > PRIOR_ONLY,
        scale=free.scale,
    )


def asked_share(free: Free, value: float, error: float) -> float:
    """What the readings alone ask a share on the logit scale to be, which may be above 1.

    One Gauss-Newton step of its logarithm from the estimate, without its prior; none for another
    parameter, or if the readings say nothing of it.

    >>> asked_share(Free("f", 0.001, 0.999, 0.5, 2.0, scale="logit"), 0.5, 1.0)
    0.5
    """
    rest = free.sd**2 - error**2
    if free.scale != "logit" or rest <= 1e-9 * free.sd**2:
        return value
    step = (free.to_scale(value) - free.to_scale(free.median)) * error**2 / rest
    return value * math.exp(min((1.0 - value) * step, MAX_HALF_WIDTH))
