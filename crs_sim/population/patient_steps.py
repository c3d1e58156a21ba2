"""One patient in one iteration of a population's fit: fitted, or integrated.

Integrated means the mean, covariance and likelihood of a patient's parameters under the population,
by importance sampling. Draws from a multivariate t distribution near the posterior are weighted by
likelihood times prior; the proposal is adapted to the weighted draws. The draws are scrambled Sobol
points, for each patient the same at each call, so that iterations converge and do not depend on
processes. It is the
expectation step of Monte-Carlo importance sampling EM (NONMEM's METHOD=IMP; Wang 2007, J
Pharmacokinet Pharmacodyn 34:575, doi:10.1007/s10928-007-9060-6).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln, ndtri
from scipy.stats import chi2, qmc

from ..errors import CrsSimError, InputError, IntegrationError, unknown_name
from ..fitting import (
    EXACT_KINDS,
    FitProblem,
    Free,
    Objective,
    Population,
    Start,
    fit,
    from_scale,
    point_of,
    polish,
)
from ..model import Array
from .two_stage import QuadraticLikelihood

DEGREES = 8.0
"""Degrees of freedom of the t distribution: tails heavier than those of any likely posterior."""
ADAPTATIONS = 4
INSIDE = 1e-4
"""Least distance of a start from its bounds, on the parameter's scale."""
EFFECTIVE = 0.4
"""Share of effective draws at which a proposal is good enough not to be adapted again."""


@dataclass(frozen=True)
class Roles:
    """How parameters are pooled; those in neither list are partially pooled (``tied``).

    Parameters
    ----------
    shared : complete pooling: one value for all patients, estimated jointly
    own : no pooling: estimated for each patient on their own, with the assumed prior
    correlated : sets of tied parameters, whose random effects are correlated within each set
    """

    shared: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    correlated: tuple[tuple[str, ...], ...] = ()

    def check(self, population: Population) -> None:
        """Refuse names the population does not have, or that have two roles."""
        together = [name for several in self.correlated for name in several]
        for name in (*self.shared, *self.own, *together):
            if name not in population.medians:
                raise unknown_name("parameter of the population", name, population.medians)
        for name in set(self.shared) & set(self.own):
            raise InputError(f"{name} is listed as both shared and own; choose one")
        for name in together:
            if name in (*self.shared, *self.own):
                raise InputError(
                    f"{name} is correlated, but also shared or own, so that it has no random effect"
                )
            if together.count(name) > 1:
                raise InputError(f"{name} is in two sets of correlated parameters; make them one")
        for several in self.correlated:
            if len(several) < 2:
                raise InputError(f"{several[0]} is correlated with nothing; name two or more")


@dataclass(frozen=True)
class PatientFailure:
    """A patient whose fit failed, and the reason."""

    patient: str
    reason: str


@dataclass(frozen=True, eq=False)
class PatientFit:
    """One patient's fit, given the population of an iteration.

    Parameters
    ----------
    patient : str, id
    values : mapping of parameter to its estimate, shared ones included: the mode, and where
        integrated the mean
    evidence : QuadraticLikelihood, over the population's parameters in their order
    cost : float, -2 ln posterior at the mode, up to a constant
    deviance : float, sum of the squared residuals of the readings at ``values``
    runs, failed : int, simulations made, and those that failed
    agreeing : int, starts that ended within 0.5 of the best cost
    readings : int, residuals that the deviance is the sum of squares of
    integrated, error : float, -2 ln likelihood (density of the log readings) integrated over the
        population, and its Monte-Carlo standard error; nan before that
    effective : float, share of the draws that count
    wide : bool, whether the posterior is wider than the population in some direction
    """

    patient: str
    values: Mapping[str, float]
    evidence: QuadraticLikelihood
    cost: float
    deviance: float
    runs: int
    failed: int
    agreeing: int
    readings: int = 0
    integrated: float = math.nan
    error: float = math.nan
    effective: float = math.nan
    wide: bool = False


Outcome = PatientFit | PatientFailure


@dataclass(frozen=True, eq=False)
class Job:
    """One patient in one iteration.

    Parameters
    ----------
    problem : FitProblem, with the current population as prior and shared parameters fixed
    whole : FitProblem, the same with every parameter free, for the evidence
    names : of the population's parameters, in their order
    centre : (n,) log parameters, for parameters that are not in the patient's problem
    first : PatientFit of the previous iteration, the start; None in the first iteration
    covariance : (n, n) of the prior over which the likelihood is integrated; None to fit
    draws : int, for the integral
    """

    problem: FitProblem
    whole: FitProblem
    names: tuple[str, ...]
    centre: Array
    first: PatientFit | None
    covariance: Array | None = None
    draws: int = 0

    @property
    def patient(self) -> str:
        """The patient's id."""
        return self.problem.patient.id


def fit_one(job: Job) -> Outcome:
    """One patient in one iteration; an error is returned as a `PatientFailure`."""
    try:
        return _fitted(job) if job.covariance is None else _integrated(job)
    except CrsSimError as error:
        return PatientFailure(job.patient, str(error))


def _fitted(job: Job) -> PatientFit:
    problem = job.problem
    if not problem.free:
        values, cost, runs, failed, agreeing = {}, np.nan, 0, 0, 1
    elif job.first is None:
        result = fit(problem, workers=1)
        values, cost = dict(result.values), result.cost
        runs, failed = result.runs, result.failed_runs
        agreeing = sum(start.cost - cost < 0.5 for start in result.starts)
    else:
        start = {f.name: _clipped(job.first.values[f.name], f) for f in problem.free}
        last = polish(problem, Start(0, start, start, np.inf, "", False, 0, 0))
        values, cost = dict(last.values), last.cost
        runs, failed, agreeing = last.runs, last.failed, job.first.agreeing
    all_values = {**{f.name: f.median for f in job.whole.free}, **values}
    evidence, (readings, deviance) = _evidence(job, all_values)
    return PatientFit(
        job.patient, all_values, evidence, float(cost), deviance, runs, failed, agreeing, readings
    )


def _clipped(value: float, free: Free) -> float:
    """A start a little inside the bounds, on the parameter's scale."""
    low, high = free.to_scale(free.lower) + INSIDE, free.to_scale(free.upper) - INSIDE
    return float(from_scale(np.clip(free.to_scale(value), low, high), free.scale))


def _evidence(
    job: Job, values: Mapping[str, float]
) -> tuple[QuadraticLikelihood, tuple[int, float]]:
    """Quadratic approximation of the likelihood at these values, and the squared residuals there.

    Of the readings alone: how many, and their sum, without the terms of an estimated error.
    """
    objective = Objective(job.whole)
    x = point_of(job.whole, values)
    observed = objective.attempt(x)
    jacobian = objective.jacobian(x)
    slopes = np.vstack([jacobian[: observed.size], objective.information(x, jacobian)])
    slope = slopes[: observed.size].T @ observed
    readings = observed[: observed.size - objective.terms]
    evidence = _embedded(job, job.whole.names, QuadraticLikelihood(x, slope, slopes.T @ slopes))
    return evidence, (readings.size, float(readings @ readings))


def _embedded(job: Job, names: Sequence[str], own: QuadraticLikelihood) -> QuadraticLikelihood:
    """A likelihood of some parameters as one of all the population's."""
    indices = [job.names.index(name) for name in names]
    centre, slope = job.centre.copy(), np.zeros(len(job.names))
    information = np.zeros((len(job.names), len(job.names)))
    centre[indices], slope[indices] = own.x, own.slope
    information[np.ix_(indices, indices)] = own.information
    return QuadraticLikelihood(centre, slope, information)


def _integrated(job: Job) -> PatientFit:
    """The patient's likelihood integrated over the population, by importance sampling."""
    assert job.first is not None and job.covariance is not None
    indices = [k for k, name in enumerate(job.names)
               if name in job.whole.names and job.covariance[k, k] > 0.0]  # fmt: skip
    if not indices:
        return job.first
    names = tuple(job.names[k] for k in indices)
    free = {f.name: f for f in job.whole.free}
    problem = replace(job.whole, free=tuple(free[name] for name in names))
    prior = job.centre[indices], job.covariance[np.ix_(indices, indices)]
    objective = Objective(problem)

    def log_likelihood(points: Array) -> Array:
        inside = ((points <= objective.upper) & (points >= objective.lower)).all(axis=1)
        logs = np.full(len(points), -np.inf)
        if inside.any():
            logs[inside] = -0.5 * np.sum(objective.observed(points[inside]) ** 2, axis=1)
        return logs

    try:
        seed = int(hashlib.sha256(job.patient.encode()).hexdigest()[:8], 16)
        found = moments(log_likelihood, prior, _proposal(job, indices, prior), job.draws, seed)
    except FloatingPointError as error:
        raise IntegrationError(f"integrating the likelihood: {error}") from None
    own, wide = QuadraticLikelihood.of_posterior(found.mean, found.covariance, *prior)
    constant = likelihood_constant(problem)
    at_mean = objective.observed(found.mean[None])[0]
    readings = at_mean[: at_mean.size - objective.terms]
    return replace(
        job.first,
        values={f.name: f.median for f in job.whole.free}
        | dict(zip(names, from_scale(found.mean, problem.scales).tolist(), strict=True)),
        deviance=float(readings @ readings),
        evidence=_embedded(job, names, own),
        runs=job.first.runs + objective.runs,
        failed=job.first.failed + objective.failed,
        integrated=constant - 2.0 * found.log_likelihood,
        error=2.0 * found.error,
        effective=found.effective / job.draws,
        wide=wide,
    )


def _proposal(job: Job, indices: list[int], prior: tuple[Array, Array]) -> tuple[Array, Array]:
    """Where the posterior is by the last iteration's evidence, given this iteration's prior."""
    assert job.first is not None
    evidence = job.first.evidence
    information = evidence.information[np.ix_(indices, indices)]
    rest = [k for k in range(job.centre.size) if k not in indices]
    weighted_x = (evidence.information @ evidence.x - evidence.slope)[indices]
    weighted_x = weighted_x - evidence.information[np.ix_(indices, rest)] @ job.centre[rest]
    inverse = np.linalg.inv(prior[1])
    covariance = np.linalg.inv(information + inverse)
    return covariance @ (weighted_x + inverse @ prior[0]), covariance


def likelihood_constant(problem: FitProblem) -> float:
    """What makes the sum of squared residuals -2 ln density of the log readings."""
    noise, observed, constant = problem.noise, problem.patient.observations, 0.0
    estimated = {o.id for o in noise.with_term(observed)}
    for o in (o for o in observed if o.kind in EXACT_KINDS):
        spread = noise.spread(o)
        scale = spread.least(o.value) if o.id in estimated else spread.sd
        constant += math.log(2.0 * math.pi * scale**2)
        constant -= 0.0 if spread.error == "log-normal" else 2.0 * math.log(o.value)
    return constant


@dataclass(frozen=True, eq=False)
class Moments:
    """What importance sampling finds of one patient's posterior.

    Parameters
    ----------
    mean : (n,) of the log parameters
    covariance : (n, n)
    log_likelihood : float, ln of the likelihood integrated over the prior
    error : float, Monte-Carlo standard error of ``log_likelihood``, as of independent draws
    effective : float, effective number of draws
    """

    mean: Array
    covariance: Array
    log_likelihood: float
    error: float
    effective: float


def moments(
    log_likelihood: Callable[[Array], Array],
    prior: tuple[Array, Array],
    proposal: tuple[Array, Array],
    draws: int,
    seed: int = 1,
) -> Moments:
    """Integrate a likelihood over a normal prior.

    Parameters
    ----------
    log_likelihood : of points (n_points, n): (n_points,); minus infinity where it is 0
    prior, proposal : mean (n,) and covariance (n, n); the proposal is only where to look
    draws : int, a power of two
    seed : int, which scrambles them

    Raises
    ------
    FloatingPointError
        If the likelihood is 0 at every draw.

    Examples
    --------
    A normal prior and a normal likelihood, known in closed form:

    >>> at_one = lambda points: -0.5 * ((points[:, 0] - 1.0) / 0.5) ** 2
    >>> found = moments(at_one, (np.zeros(1), np.eye(1)), (np.zeros(1), np.eye(1)), 4096)
    >>> print(f"{found.mean[0]:.2f}, {found.covariance[0, 0]:.2f}")
    0.80, 0.20
    >>> print(f"{found.log_likelihood:.2f}, {math.log(0.5 / math.sqrt(1.25)) - 0.4:.2f}")
    -1.20, -1.20
    """
    normal, shrinking = _points(prior[0].size, draws, seed)
    for _ in range(ADAPTATIONS):
        found = _weighted(log_likelihood, prior, proposal, normal / shrinking[:, None])
        if found.effective >= EFFECTIVE * draws:
            break
        # a covariance of few draws is too small: mixed with the one they came from
        trust = found.effective / (found.effective + prior[0].size)
        proposal = found.mean, trust * found.covariance + (1.0 - trust) * proposal[1]
    return found


def _points(n: int, draws: int, seed: int) -> tuple[Array, Array]:
    """Standard normal points (draws, n), and what makes them t-distributed, (draws,)."""
    uniform = qmc.Sobol(n + 1, rng=np.random.default_rng(seed)).random(draws)
    uniform = np.clip(uniform, 1e-12, 1.0 - 1e-12)
    normal = np.asarray(ndtri(uniform[:, :n]))
    return normal, np.sqrt(chi2.ppf(uniform[:, n], DEGREES) / DEGREES)


def _weighted(
    log_likelihood: Callable[[Array], Array],
    prior: tuple[Array, Array],
    proposal: tuple[Array, Array],
    steps: Array,
) -> Moments:
    """The moments of draws from one proposal."""
    mean, factor = proposal[0], np.asarray(np.linalg.cholesky(proposal[1]), dtype=np.float64)
    points = mean + steps @ factor.T
    logs = log_likelihood(points) + _log_normal(points, *prior) - _log_t(steps, factor)
    top = logs.max()
    if not math.isfinite(top):
        raise FloatingPointError("the likelihood is 0 at every draw")
    weights = np.exp(logs - top)
    average, n = float(weights.mean()), len(weights)
    effective = float(weights.sum() ** 2 / np.sum(weights**2))
    error = float(weights.std() / average / math.sqrt(n))
    weights /= weights.sum()
    centre = weights @ points
    off = points - centre
    return Moments(
        centre, (off * weights[:, None]).T @ off, float(top) + math.log(average), error, effective
    )


def _log_normal(points: Array, mean: Array, covariance: Array) -> Array:
    """Log densities (n_points,) of a normal distribution."""
    factor = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(factor, (points - mean).T)
    size = np.log(np.diag(factor)).sum() + 0.5 * mean.size * math.log(2.0 * math.pi)
    return np.asarray(-0.5 * np.sum(scaled**2, axis=0) - size)


def _log_t(steps: Array, factor: Array) -> Array:
    """Log densities (n_points,) of the t distribution at scaled steps (n_points, n)."""
    n = steps.shape[1]
    size = gammaln(0.5 * (DEGREES + n)) - gammaln(0.5 * DEGREES)
    size -= 0.5 * n * math.log(DEGREES * math.pi) + np.log(np.diag(factor)).sum()
    return np.asarray(size - 0.5 * (DEGREES + n) * np.log1p(np.sum(steps**2, axis=1) / DEGREES))
