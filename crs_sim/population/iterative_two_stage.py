"""Population fit of several patients by the iterative two-stage method.

Each iteration fits every patient with the population as prior (on several processes), then
re-estimates the population from all patients' likelihoods (`crs_sim.twostage`), until convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..errors import CrsSimError, InputError, Mistakes, unknown_name
from ..fitting import (
    FitProblem,
    Free,
    Objective,
    Population,
    Start,
    check_reachable,
    fit,
    logs,
    polish,
)
from ..model import Array, Model
from ..simulation import Workers, parallel_map
from .two_stage import (
    Outcome,
    PatientFailure,
    PatientFit,
    PopulationEstimate,
    PopulationFit,
    PopulationPrior,
    QuadraticLikelihood,
    Roles,
    two_stage,
)

MAX_ITERATIONS = 30
TOLERANCE = 0.05
"""Converged when no median or spread changes by more than this share of its standard error."""


class ResultStore(Protocol):
    """Storage of intermediate results, see `crs_sim.population.IterationFiles`."""

    def load(self, number: int, problem: FitProblem) -> PatientFit | None:
        """Load a patient's stored fit of an iteration; None if there is none."""

    def keep(self, number: int, problem: FitProblem, outcome: PatientFit) -> None:
        """Store a patient's fit of an iteration."""


def fit_all(
    problems: Sequence[FitProblem],
    population: Population,
    roles: Roles = Roles(),  # noqa: B008  frozen
    *,
    workers: Workers = None,
    kept: ResultStore | None = None,
    progress: Callable[[str, int, int, Outcome], None] | None = None,
) -> PopulationFit:
    """Fit several patients and the population they come from.

    Parameters
    ----------
    problems : one for each patient (`crs_sim.fitting.patient_problem`); ids must differ
    population : Population, the prior, with the weight of ``population.patients`` patients
    roles : Roles, which parameters are shared or own
    workers : int, processes (default: one for each core), or the address of a Dask scheduler; the
        numbers do not depend on it
    kept : storage of intermediate results, so that an interrupted fit can be resumed
    progress : called as (what, finished, of how many, Outcome) after each patient

    Raises
    ------
    InputError
        If there is no patient, two have the same id, or their equations differ.
    CrsSimError
        If not one patient could be fitted, with the first reason.

    Examples
    --------
    >>> fit_all([], None)
    Traceback (most recent call last):
    crs_sim.errors.InputError: there is no patient to fit; give one or more
    """
    _check(problems, population)
    roles.check(population)
    assumed = _assumed(population, roles)
    centre, spread = assumed.centre, assumed.spread
    last: dict[str, Outcome] = {}
    iteration, converged, found = 0, False, None
    while not converged and iteration < MAX_ITERATIONS:
        jobs = [
            _job(problem, population, roles, centre, spread, last.get(problem.patient.id))
            for problem in problems
            if not isinstance(last.get(problem.patient.id), PatientFailure)
        ]
        for outcome in _iteration(iteration, jobs, workers, kept, progress):
            last[outcome.patient] = outcome
        fits = [one for one in last.values() if isinstance(one, PatientFit)]
        if not fits:
            first = next(one for one in last.values() if isinstance(one, PatientFailure))
            raise CrsSimError(f"no patient could be fitted; {first.patient}: {first.reason}")
        found = two_stage([one.evidence for one in fits], assumed)
        converged = _largest_change(found, centre, spread, assumed) < TOLERANCE
        centre, spread = found.centre, found.spread
        iteration += 1
    assert found is not None
    return _answer(population, roles, found, last, (iteration, converged))


@dataclass(frozen=True, eq=False)
class Job:
    """One patient to fit in one iteration.

    Parameters
    ----------
    problem : FitProblem, with the current population as prior and shared parameters fixed
    whole : FitProblem, the same with every parameter free, for the evidence
    names : of the population's parameters, in their order
    centre : (n,) log parameters, for parameters that are not in the patient's problem
    first : PatientFit of the previous iteration, the start; None in the first iteration
    """

    problem: FitProblem
    whole: FitProblem
    names: tuple[str, ...]
    centre: Array
    first: PatientFit | None


def _check(problems: Sequence[FitProblem], population: Population) -> None:
    if not problems:
        raise InputError("there is no patient to fit; give one or more")
    seen: set[str] = set()
    for problem in problems:
        id = problem.patient.id
        if id in seen:
            raise InputError(f"two patients have the id {id!r}; rename one in its patient file")
        seen.add(id)
        if problem.model.hash != population.model.hash:
            raise InputError(
                f"{id}: model {problem.model.name} has other equations than the population's "
                f"{population.model.name}; fit patients of the same model together"
            )
        if any(spread.estimate for spread in problem.noise.spreads.values()):
            raise InputError(
                f"{id}: several patients are fitted with stated residual errors only, but here one "
                "is to be estimated; delete estimate = true, or fit one patient (--subject)"
            )
    mistakes = Mistakes()
    for problem in problems:
        with mistakes.kept():
            check_reachable(problem)
    mistakes.report()


def _assumed(population: Population, roles: Roles) -> PopulationPrior:
    names = list(population.medians)
    return PopulationPrior(
        np.log(list(population.medians.values())),
        np.array(list(population.sds.values())),
        population.patients,
        np.array([name not in roles.own for name in names]),
        np.array([name in roles.shared for name in names]),
    )


def _job(
    problem: FitProblem, population: Population, roles: Roles, centre: Array, spread: Array,
    before: Outcome | None,
) -> Job:  # fmt: skip
    """The patient's problem, given the current population."""
    names = tuple(population.medians)
    current = {
        n: (float(np.exp(c)), float(s)) for n, c, s in zip(names, centre, spread, strict=True)
    }
    model = problem.model.with_values(**{name: current[name][0] for name in roles.shared})
    first = before if isinstance(before, PatientFit) else None
    most = {name: bounds[1] for name, bounds in model.bounds.items()}
    free = [_with_prior(f, *current[f.name], most[f.name])
            for f in problem.free if f.name not in roles.shared]  # fmt: skip
    whole = [
        _with_prior(f, current[f.name][0], current[f.name][1] or f.sd, most[f.name])
        for f in problem.free
        if f.name in current
    ]
    for f in problem.free:
        if f.name not in current:
            raise unknown_name("parameter of the population", f.name, names)
    model = _at_medians(model, free)
    return Job(
        replace(problem, model=model, free=tuple(free), accept={}),
        replace(problem, model=model, free=tuple(whole), accept={}),
        names,
        centre,
        first,
    )


def _with_prior(free: Free, median: float, sd: float, most: float) -> Free:
    """The prior of this iteration; the bounds are widened if the population has reached them.

    Never above ``most``, the model's own bound: 1 for a share.
    """
    lower, upper = min(free.lower, 0.5 * median), min(max(free.upper, 2.0 * median), most)
    return replace(free, lower=lower, upper=upper, median=median, sd=sd)


def _at_medians(model: Model, free: Sequence[Free]) -> Model:
    """The model with every free parameter at its median, which is inside the bounds."""
    return model.with_values(**{f.name: f.median for f in free})


def _iteration(
    number: int, jobs: Sequence[Job], workers: Workers, kept: ResultStore | None,
    progress: Callable[[str, int, int, Outcome], None] | None,
) -> list[Outcome]:  # fmt: skip
    """Fit every patient once, except those whose fit is stored."""
    done: dict[str, Outcome] = {}

    def report(outcome: Outcome) -> None:
        done[outcome.patient] = outcome
        if progress is not None:
            progress(f"iteration {number + 1}", len(done), len(jobs), outcome)

    job_of = {job.problem.patient.id: job for job in jobs}

    def finished(outcome: Outcome) -> None:
        if kept is not None and isinstance(outcome, PatientFit):
            kept.keep(number, job_of[outcome.patient].problem, outcome)
        report(outcome)

    pending = []
    for job in jobs:
        stored = None if kept is None else kept.load(number, job.problem)
        if stored is None:
            pending.append(job)
        else:
            report(stored)
    parallel_map(fit_one, pending, workers=workers, finished=finished)
    return [done[job.problem.patient.id] for job in jobs]


def fit_one(job: Job) -> Outcome:
    """Fit one patient in one iteration; an error is returned as a `PatientFailure`."""
    try:
        return _fitted(job)
    except CrsSimError as error:
        return PatientFailure(job.problem.patient.id, str(error))


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
    evidence, observed = _evidence(job, all_values)
    return PatientFit(
        problem.patient.id, all_values, evidence, float(cost), float(observed @ observed), runs,
        failed, agreeing, observed.size,
    )  # fmt: skip


def _clipped(value: float, free: Free) -> float:
    return min(max(value, free.lower * 1.0001), free.upper / 1.0001)


def _evidence(job: Job, values: Mapping[str, float]) -> tuple[QuadraticLikelihood, Array]:
    """Quadratic approximation of the likelihood at these values, and the residuals there."""
    objective = Objective(job.whole)
    x = logs(job.whole, values)
    observed = objective.attempt(x)
    slopes = objective.jacobian(x)[: observed.size]
    indices = [job.names.index(name) for name in job.whole.names]
    centre, slope = job.centre.copy(), np.zeros(len(job.names))
    information = np.zeros((len(job.names), len(job.names)))
    centre[indices], slope[indices] = x, slopes.T @ observed
    information[np.ix_(indices, indices)] = slopes.T @ slopes
    return QuadraticLikelihood(centre, slope, information), observed


def _largest_change(
    found: PopulationEstimate, centre: Array, spread: Array, assumed: PopulationPrior
) -> float:
    """The largest change of a median or spread, in standard errors."""
    pooled, tied = assumed.estimated, assumed.tied
    changes = [np.abs(found.centre - centre)[pooled] / found.centre_error[pooled]]
    if tied.any():
        ratio = np.abs(np.log(found.spread[tied] / spread[tied]))
        changes.append(ratio / found.spread_error[tied])
    return float(max((m.max() for m in changes if m.size), default=0.0))


def _answer(
    population: Population, roles: Roles, found: PopulationEstimate, last: Mapping[str, Outcome],
    ended: tuple[int, bool],
) -> PopulationFit:  # fmt: skip
    fits = tuple(one for one in last.values() if isinstance(one, PatientFit))
    failures = tuple(one for one in last.values() if isinstance(one, PatientFailure))
    medians = np.exp(found.centre).tolist()
    source = f"fit of {len(fits)} patients with the prior {population.name}"
    free = []
    for k, f in enumerate(population.free):
        shared, own = f.name in roles.shared, f.name in roles.own
        sd = float(found.centre_error[k] if shared else found.spread[k])
        words = f"{source}: one value for all, sd is its standard error" if shared else source
        now = _with_prior(f, medians[k], sd, population.model.bounds[f.name][1])
        free.append(replace(now, source=f.source if own else words))
    new = replace(population, name=f"{population.name} and {len(fits)} patients",
                  free=tuple(free), patients=population.patients + len(fits))  # fmt: skip
    return PopulationFit(new, population, roles.shared, roles.own, found, fits, failures, *ended)
