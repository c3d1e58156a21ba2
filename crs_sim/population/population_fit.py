"""Several patients and their population fitted together.

First by the iterative two-stage method: each iteration fits every patient with the population as
prior (on several processes), then re-estimates the population from quadratic approximations of
their likelihoods (`crs_sim.population.two_stage`), until convergence. Then the likelihoods are
integrated: each iteration replaces every patient's approximation by one with the mean and
covariance that importance sampling finds, so that what it converges to is the maximum of the
marginal likelihood itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import CrsSimError, InputError, Mistakes, unknown_name
from ..fitting import FitProblem, Free, Population, check_reachable, from_scale, to_scale
from ..model import Array, Model
from ..simulation import Processes, Workers, kept_workers, parallel_map
from .fit_files import PopulationFit
from .patient_steps import Job, Outcome, PatientFailure, PatientFit, Roles, fit_one
from .two_stage import STEP, PopulationEstimate, PopulationPrior, two_stage

MAX_ITERATIONS = 40
"""Of each of the two methods."""
TOLERANCE = 0.05
"""Converged when no median, spread or correlation changes by more than this share of its error."""
DRAWS = 512
"""Draws of each patient's parameters in an iteration; at the end, `LAST` times as many."""
LAST = 4
SMEAR = 0.25
"""Least standard deviation of a prior that is integrated over, in those of what one patient knows.

Of a spread far below that, or of none (a shared parameter), draws would show no slope but noise.
"""


class ResultStore(Protocol):
    """Storage of intermediate results, see `crs_sim.population.IterationFiles`."""

    def load(self, number: int, job: Job) -> PatientFit | None:
        """Load a patient's stored fit of an iteration; None if there is none."""

    def keep(self, number: int, job: Job, outcome: PatientFit) -> None:
        """Store a patient's fit of an iteration."""


Report = Callable[[str, int, int, Outcome], None]


def fit_all(
    problems: Sequence[FitProblem],
    population: Population,
    roles: Roles = Roles(),  # noqa: B008  frozen
    *,
    draws: int = DRAWS,
    workers: Workers = None,
    kept: ResultStore | None = None,
    progress: Report | None = None,
) -> PopulationFit:
    """Fit several patients and the population they come from.

    Residual errors that are to be estimated (``estimate = true`` in the prior's noise) are shared,
    and are as stated until likelihoods are integrated: the two-stage method cannot learn them.

    Parameters
    ----------
    problems : one for each patient (`crs_sim.fitting.patient_problem`); ids must differ
    population : Population, the prior, with the weight of ``population.patients`` patients
    roles : Roles, which parameters are shared, own or correlated
    draws : int, a power of two, with which each patient's likelihood is integrated; 0 for the
        two-stage estimate alone
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
    if draws and draws & (draws - 1):
        raise InputError(f"draws is {draws}; give a power of two, such as 512, or 0 for none")
    _check(problems, population)
    whole = _with_residual_error(population, problems)
    errors = [free.name for free in whole.free[len(population.free) :]]
    if errors and not draws:
        raise InputError(f"{errors[0]} is estimated only where likelihoods are integrated; give "
                         "draws, or delete estimate = true in the prior's noise")  # fmt: skip
    roles = replace(roles, shared=(*roles.shared, *errors))
    roles.check(whole)
    stated = np.isin(list(whole.medians), errors)
    with kept_workers(workers, len(problems)) as several:
        work = _Iterations(problems, whole, roles, several, kept, progress)
        found, converged = work.two_stage(stated)
        rounds, first = work.number, found
        if draws:
            found, converged = work.integrate(found, draws)
    return PopulationFit(
        _estimated(population, whole, roles, found, len(work.fits)),
        whole,
        roles,
        found,
        first,
        tuple(work.fits),
        tuple(one for one in work.last.values() if isinstance(one, PatientFailure)),
        (rounds, work.number - rounds),
        draws,
        converged,
    )


class _Iterations:
    """The iterations over all patients; what each ended with is in ``last``."""

    def __init__(
        self, problems: Sequence[FitProblem], population: Population, roles: Roles,
        workers: int | str | Processes, kept: ResultStore | None, progress: Report | None,
    ) -> None:  # fmt: skip
        self.problems, self.population, self.roles = problems, population, roles
        self.workers, self.kept, self.progress = workers, kept, progress
        self.assumed = _assumed(population, roles)
        self.last: dict[str, Outcome] = {}
        self.number = 0

    @property
    def fits(self) -> list[PatientFit]:
        """The last fit of each patient; raises if none could be fitted."""
        fits = [one for one in self.last.values() if isinstance(one, PatientFit)]
        if not fits:
            first = next(one for one in self.last.values() if isinstance(one, PatientFailure))
            raise CrsSimError(f"no patient could be fitted; {first.patient}: {first.reason}")
        return fits

    def two_stage(self, stated: NDArray[np.bool_]) -> tuple[PopulationEstimate, bool]:
        """The iterative two-stage estimate with some as stated; and whether it has converged."""
        found, centre, spread = None, self.assumed.centre, self.assumed.spread
        assumed = replace(self.assumed, estimated=self.assumed.estimated & ~stated)
        for _ in range(MAX_ITERATIONS):
            self.run([self.job(problem, centre, spread) for problem in self.going])
            before = found
            found = two_stage([one.evidence for one in self.fits], assumed)
            if before is not None and _largest_change(found, before, assumed) < TOLERANCE:
                return found, True
            centre, spread = found.centre, found.spread
        assert found is not None
        return found, False

    def integrate(self, found: PopulationEstimate, draws: int) -> tuple[PopulationEstimate, bool]:
        """The estimate by integrated likelihoods, from a first one, and whether it has converged.

        The last iteration integrates with all shared parameters where they are.
        """
        converged, last = False, False
        for _ in range(MAX_ITERATIONS):
            self.sample(found, _smeared(found, self.assumed), draws * (LAST if last else 1))
            before = found
            found = two_stage([one.evidence for one in self.fits], self.assumed, found.covariance)
            found = _within_reach(found, before)
            converged = _largest_change(found, before, self.assumed) < TOLERANCE
            if converged and last:
                break
            last = last or converged
        self.sample(found, found.covariance, draws * LAST)
        return found, converged

    def sample(self, found: PopulationEstimate, covariance: Array, draws: int) -> None:
        """Integrate every patient's likelihood over a normal prior."""
        jobs = [self.job(problem, found.centre, found.spread) for problem in self.going]
        self.run([replace(job, covariance=covariance, draws=draws) for job in jobs])

    @property
    def going(self) -> list[FitProblem]:
        """The patients that have not failed."""
        return [problem for problem in self.problems
                if not isinstance(self.last.get(problem.patient.id), PatientFailure)]  # fmt: skip

    def job(self, problem: FitProblem, centre: Array, spread: Array) -> Job:
        """A patient's job in the next iteration."""
        before = self.last.get(problem.patient.id)
        return _job(problem, self.population, self.roles, centre, spread, before)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run every job, except those whose result is stored, and keep the outcomes."""
        finished = 0
        outcomes: dict[str, Outcome] = {}
        job_of = {job.patient: job for job in jobs}

        def report(outcome: Outcome) -> None:
            nonlocal finished
            outcomes[outcome.patient] = outcome
            finished += 1
            if self.progress is not None:
                self.progress(f"iteration {self.number + 1}", finished, len(jobs), outcome)

        def done(outcome: Outcome) -> None:
            if self.kept is not None and isinstance(outcome, PatientFit):
                self.kept.keep(self.number, job_of[outcome.patient], outcome)
            report(outcome)

        pending = []
        for job in jobs:
            stored = None if self.kept is None else self.kept.load(self.number, job)
            if stored is None:
                pending.append(job)
            else:
                report(stored)
        parallel_map(fit_one, pending, workers=self.workers, finished=done)
        self.last |= {job.patient: outcomes[job.patient] for job in jobs}
        self.number += 1


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
    mistakes = Mistakes()
    for problem in problems:
        with mistakes.kept():
            check_reachable(problem)
    mistakes.report()


def _with_residual_error(population: Population, problems: Sequence[FitProblem]) -> Population:
    """The population with the residual errors that its patients' problems estimate."""
    names = {
        f"{part}_{name}"
        for problem in problems
        for name, spread in problem.noise.spreads.items()
        if spread.estimate
        for part in spread.parts
    }
    made = {f.name: (f, p.model) for p in problems for f in p.free if f.name in names}
    more = [p for _, model in made.values() for p in model.parameters if p.id in made]
    parameters = {p.id: p for p in (*population.model.parameters, *more)}
    model = replace(population.model, parameters=tuple(parameters.values()))
    model.__dict__["hash"] = population.model.hash  # no equation has changed
    free = (*population.free, *(f for f, _ in made.values()))
    return replace(population, model=model, free=free)


def _assumed(population: Population, roles: Roles) -> PopulationPrior:
    names = list(population.medians)
    return PopulationPrior(
        to_scale(list(population.medians.values()), [f.scale for f in population.free]),
        np.array(list(population.sds.values())),
        population.patients,
        np.array([name not in roles.own for name in names]),
        np.array([name in roles.shared for name in names]),
        tuple(tuple(names.index(name) for name in several) for several in roles.correlated),
    )


def _job(
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
    free = [_with_prior(f, *current[f.name], model)
            for f in problem.free if f.name not in roles.shared]  # fmt: skip
    whole = [_with_prior(f, current[f.name][0], current[f.name][1] or f.sd, model)
             for f in problem.free]  # fmt: skip
    model = _at_medians(model, free)
    return Job(
        replace(problem, model=model, free=tuple(free), accept={}),
        replace(problem, model=model, free=tuple(whole), accept={}),
        names,
        centre,
        first,
    )


def _with_prior(free: Free, median: float, sd: float, model: Model) -> Free:
    """The prior of this iteration; the bounds are widened if the population has reached them.

    By a factor of two on either side, of the odds of a share; never above the model's own bound.
    """
    centre, twice = free.to_scale(median), math.log(2.0)
    low, high = from_scale([centre - twice, centre + twice], free.scale).tolist()
    upper = max(free.upper, high)
    if free.scale == "log":
        upper = min(upper, model.bounds[free.name][1])
    return replace(free, lower=min(free.lower, low), upper=upper, median=median, sd=sd)


def _at_medians(model: Model, free: Sequence[Free]) -> Model:
    """The model with every free parameter at its median, which is inside the bounds."""
    return model.with_values(**{f.name: f.median for f in free})


def _smeared(found: PopulationEstimate, assumed: PopulationPrior) -> Array:
    """The covariance (n, n) to integrate over: that of the population, or a least one."""
    errors = np.where(
        np.isnan(found.centre_error), 1.0, found.centre_error**2 * len(found.patients)
    )
    least = np.minimum(SMEAR**2 * errors, 4.0 * assumed.spread**2)
    least = np.where(assumed.estimated, least, 0.0)
    variances = np.diag(found.covariance)
    return np.asarray(found.covariance + np.diag(np.maximum(least - variances, 0.0)))


def _within_reach(found: PopulationEstimate, before: PopulationEstimate) -> PopulationEstimate:
    """The estimate with medians moved by no more than a factor `STEP` and two spreads."""
    reach = np.log(STEP) + 2.0 * before.spread
    return replace(
        found, centre=np.clip(found.centre, before.centre - reach, before.centre + reach)
    )


def _largest_change(
    found: PopulationEstimate, before: PopulationEstimate, assumed: PopulationPrior
) -> float:
    """The largest change of a median, spread or correlation, in standard errors."""
    pooled, tied = assumed.estimated, assumed.tied
    with np.errstate(invalid="ignore", divide="ignore"):
        centres = (found.centre - before.centre) / found.centre_error
        logs = np.log(found.spread / before.spread) / found.spread_error
        moved = (found.correlation - before.correlation) / found.correlation_error
    changes = [centres[pooled], logs[tied]]
    changes.append(moved[np.isfinite(found.correlation_error)])
    return float(max((np.abs(m).max() for m in changes if m.size), default=0.0))


def _estimated(
    population: Population, whole: Population, roles: Roles, found: PopulationEstimate, n: int
) -> Population:
    """The population with its estimates, as prior of the next patient."""
    medians = from_scale(found.centre, [f.scale for f in whole.free]).tolist()
    source = f"fit of {n} patients with the prior {population.name}"
    free = []
    for k, f in enumerate(population.free):
        shared, own = f.name in roles.shared, f.name in roles.own
        sd = float(found.centre_error[k] if shared else found.spread[k])
        words = f"{source}: one value for all, sd is its standard error" if shared else source
        now = _with_prior(f, medians[k], sd, population.model)
        free.append(replace(now, source=f.source if own else words))
    noise = population.noise.at(dict(zip(whole.medians, medians, strict=True)))
    sources = {
        name: replace(spread, source=source) if population.noise.spreads[name].estimate else spread
        for name, spread in noise.spreads.items()
    }
    return replace(
        population,
        name=f"{population.name} and {n} patients",
        free=tuple(free),
        noise=replace(noise, spreads=sources),
        patients=population.patients + n,
    )
