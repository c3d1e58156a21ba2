"""One patient in one iteration of a population's fit: fitted, or integrated over the population."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ..errors import CrsSimError, InputError, IntegrationError, unknown_name
from ..fitting import (
    FAILED,
    FitProblem,
    Free,
    Objective,
    Population,
    Start,
    fit,
    from_scale,
    point_of,
    polish,
    to_scale,
)
from ..model import Array, Model
from .importance_sampling import Moments, QuadraticLikelihood, Shared, likelihood_constant, moments
from .two_stage import PopulationPrior

INSIDE = 1e-4
"""Least distance of a start from its bounds, on the parameter's scale."""
LEAST = 0.1
"""Least precision of a proposal in that of the prior, where the evidence is negative."""
H = 0.05
"""Step of the differences in a shared parameter, on its scale; their error is h^2/6."""


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
                raise InputError(f"{name} is named twice among those correlated; name it once")
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
    effective : float, effective number of draws
    wide : bool, whether the posterior is wider than the population in some direction
    score, information : (m,) and (m, m), of ln integrated likelihood in the population's centre and
        the elements of its covariance: the first derivatives, and minus the second
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
    score: Array = field(default_factory=lambda: np.zeros(0), repr=False)
    information: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)


Outcome = PatientFit | PatientFailure


@dataclass(frozen=True, eq=False)
class Job:
    """One patient in one iteration.

    Parameters
    ----------
    problem : FitProblem, with the current population as prior and shared parameters fixed
    whole : FitProblem, the same with every parameter free, for the evidence
    names : of the population's parameters, in their order
    centre : (n,) parameters on their scales, for those that are not in the patient's problem
    first : PatientFit of the previous iteration, the start; None in the first iteration
    covariance : (n, n) of the prior over which the likelihood is integrated; None to fit
    changes : (k, n, n) its derivatives in its k numbers
    shared : names of the shared parameters
    draws : int, for the integral
    """

    problem: FitProblem
    whole: FitProblem
    names: tuple[str, ...]
    centre: Array
    first: PatientFit | None
    covariance: Array | None = None
    changes: Array = field(default_factory=lambda: np.zeros((0, 0, 0)), repr=False)
    draws: int = 0
    shared: tuple[str, ...] = ()

    @property
    def patient(self) -> str:
        """The patient's id."""
        return self.problem.patient.id


class ResultStore(Protocol):
    """Storage of intermediate results, see `crs_sim.population.IterationFiles`."""

    def load(self, number: int, job: Job) -> PatientFit | None:
        """Load a patient's stored fit of an iteration; None if there is none."""

    def keep(self, number: int, job: Job, outcome: PatientFit) -> None:
        """Store a patient's fit of an iteration."""


def assumed_of(population: Population, roles: Roles) -> PopulationPrior:
    """The population as assumed, in the terms of `two_stage`."""
    names = list(population.medians)
    return PopulationPrior(
        to_scale(list(population.medians.values()), [f.scale for f in population.free]),
        np.array(list(population.sds.values())),
        population.patients,
        np.array([name not in roles.own for name in names]),
        np.array([name in roles.shared for name in names]),
        tuple(tuple(names.index(name) for name in several) for several in roles.correlated),
    )


def job_of(
    problem: FitProblem, population: Population, roles: Roles, centre: Array, spread: Array,
    before: Outcome | None,
) -> Job:  # fmt: skip
    """The patient's problem, given the current population."""
    names = tuple(population.medians)
    medians = from_scale(centre, [f.scale for f in population.free]).tolist()
    current = {n: (c, float(s)) for n, c, s in zip(names, medians, spread, strict=True)}
    shared = {name: current[name][0] for name in roles.shared if name in problem.model.values}
    model = problem.model.with_values(**shared)
    first = before if isinstance(before, PatientFit) else None
    for f in problem.free:
        if f.name not in current:
            raise unknown_name("parameter of the population", f.name, names)
    free = [with_prior(f, *current[f.name], model)
            for f in problem.free if f.name not in roles.shared]  # fmt: skip
    whole = [with_prior(f, current[f.name][0], current[f.name][1] or f.sd, model)
             for f in problem.free]  # fmt: skip
    model = model.with_values(**{f.name: f.median for f in free})  # which is inside the bounds
    return Job(
        replace(problem, model=model, free=tuple(free), accept={}),
        replace(problem, model=model, free=tuple(whole), accept={}),
        names,
        centre,
        first,
        shared=roles.shared,
    )


def with_prior(free: Free, median: float, sd: float, model: Model) -> Free:
    """The prior of this iteration; the bounds are widened if the population has reached them.

    By a factor of two on either side, of the odds of a share; never above the model's own bound.
    """
    centre, twice = free.to_scale(median), math.log(2.0)
    low, high = from_scale([centre - twice, centre + twice], free.scale).tolist()
    upper = max(free.upper, high)
    if free.scale == "log":
        upper = min(upper, model.bounds[free.name][1])
    return replace(free, lower=min(free.lower, low), upper=upper, median=median, sd=sd)


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
    indices = [job.names.index(name) for name in job.whole.names]
    evidence = _embedded(job, indices, QuadraticLikelihood(x, slope, slopes.T @ slopes))
    return evidence, (readings.size, float(readings @ readings))


def _embedded(job: Job, indices: list[int], own: QuadraticLikelihood) -> QuadraticLikelihood:
    """A likelihood of some parameters as one of all the population's."""
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
    names = tuple(job.names[k] for k in indices)
    free = {f.name: f for f in job.whole.free}
    problem = replace(job.whole, free=tuple(free[name] for name in names))
    prior = job.centre[indices], job.covariance[np.ix_(indices, indices)]
    objective = Objective(problem)
    found = _sampled(job, objective, indices, prior)
    together = [f for f in job.whole.free if f.name in job.shared]
    shared = _in_shared(objective, found.points, together)
    beside = [job.names.index(f.name) for f in together]
    evidence, wide = QuadraticLikelihood.of_posterior(found, prior, shared, job.centre[beside])
    own = found.slopes(prior, job.changes[:, indices][:, :, indices], shared)
    score, information = _among_all(job, indices, beside, own)
    at_mean = objective.observed(found.mean[None])[0]
    readings = at_mean[: at_mean.size - objective.terms]
    return replace(
        job.first,
        values={f.name: f.median for f in job.whole.free}
        | dict(zip(names, from_scale(found.mean, problem.scales).tolist(), strict=True)),
        deviance=float(readings @ readings),
        evidence=_embedded(job, [*indices, *beside], evidence),
        runs=job.first.runs + objective.runs,
        failed=job.first.failed + objective.failed,
        integrated=likelihood_constant(problem) - 2.0 * found.log_likelihood,
        error=2.0 * found.error,
        effective=found.effective,
        wide=wide,
        score=score,
        information=information,
    )


def _sampled(
    job: Job, objective: Objective, indices: list[int], prior: tuple[Array, Array]
) -> Moments:
    """The draws and their moments; raises IntegrationError if none has a likelihood above 0."""

    def log_likelihood(points: Array) -> Array:
        inside = ((points <= objective.upper) & (points >= objective.lower)).all(axis=1)
        return np.where(inside, -0.5 * np.sum(objective.observed(points) ** 2, axis=1), -np.inf)

    try:
        text = f"{job.patient} 0".encode()  # as of the results of the studies
        seed = int(hashlib.sha256(text).hexdigest()[:8], 16)
        proposal = _proposal(job, indices, prior, (objective.lower, objective.upper))
        return moments(log_likelihood, prior, proposal, job.draws, seed)
    except FloatingPointError as error:
        raise IntegrationError(
            f"integrating the likelihood: {error}; draw more, or look at the patient's readings"
        ) from None


def _in_shared(objective: Objective, points: Array, together: Sequence[Free]) -> Shared:
    """Derivatives at each draw in the shared parameters, on their scales, by differences."""
    if not together:
        return Shared(np.zeros((len(points), 0)), np.zeros((len(points), 0)),
                      np.zeros((0, len(points), 0)))  # fmt: skip
    here = objective.observed(points)
    scores, seconds = np.zeros((2, len(points), len(together)))
    slopes = np.zeros((len(together), *here.shape))
    for k, f in enumerate(together):
        values = from_scale(f.to_scale(f.median) + np.array([H, -H]), f.scale).tolist()
        up, down = (objective.observed(points, {f.name: value}) for value in values)
        rise, fall, middle = (-0.5 * np.sum(r**2, axis=1) for r in (up, down, here))
        whole = np.minimum(np.minimum(rise, fall), middle) > -0.25 * FAILED**2  # no run failed
        scores[:, k] = np.where(whole, (rise - fall) / (2.0 * H), 0.0)
        seconds[:, k] = np.where(whole, (rise - 2.0 * middle + fall) / H**2, 0.0)
        slopes[k] = np.where(whole[:, None], (up - down) / (2.0 * H), 0.0)
    return Shared(scores, seconds, slopes)


def _among_all(
    job: Job, indices: list[int], beside: list[int], own: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Score and information of the patient's own parameters among those of the population."""
    n, m = job.centre.size, job.centre.size + len(job.changes)
    places = [*indices, *range(n, m), *beside]
    score, information = np.zeros(m), np.zeros((m, m))
    score[places], information[np.ix_(places, places)] = own
    return score, information


def _proposal(
    job: Job, indices: list[int], prior: tuple[Array, Array], bounds: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Where the posterior is by the last iteration's evidence, given this iteration's prior.

    (H + V^-1)^-1 = L (I + L'H L)^-1 L' with V = L L', which holds for any small V. Before the
    first integral the evidence is a tangent, good at its own point only, the mode.
    """
    assert job.first is not None
    evidence, root = job.first.evidence, np.linalg.cholesky(prior[1])
    information = evidence.information[np.ix_(indices, indices)]
    rest = [k for k in range(job.centre.size) if k not in indices]
    weighted_x = (evidence.information @ evidence.x - evidence.slope)[indices]
    weighted_x = weighted_x - evidence.information[np.ix_(indices, rest)] @ job.centre[rest]
    scaled = root.T @ information @ root
    sizes, axes = np.linalg.eigh(0.5 * (scaled + scaled.T))
    wide = root @ axes / np.sqrt(np.maximum(1.0 + sizes, LEAST))
    covariance = wide @ wide.T
    mean = prior[0] + covariance @ (weighted_x - information @ prior[0])
    if math.isnan(job.first.integrated):
        mean = evidence.x[indices]
    return np.clip(mean, *bounds), covariance
