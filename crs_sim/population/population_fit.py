"""Several patients and their population fitted together.

First by the iterative two-stage method: each iteration fits every patient with the population as
prior (on several processes), then re-estimates the population from quadratic approximations of
their likelihoods (`crs_sim.population.two_stage`), until convergence. Then the likelihoods are
integrated: each iteration replaces every patient's approximation by one with the mean and
covariance that importance sampling finds, so that what it converges to is the maximum of the
marginal likelihood itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import CrsSimError, InputError, Mistakes
from ..fitting import FitProblem, Population, check_reachable, from_scale
from ..model import Array
from ..simulation import Processes, Workers, kept_workers, parallel_map
from .fit_files import PopulationFit
from .importance_sampling import wide_enough
from .patient_steps import (
    Job,
    Outcome,
    PatientFailure,
    PatientFit,
    ResultStore,
    Roles,
    assumed_of,
    fit_one,
    job_of,
    with_prior,
)
from .two_stage import (
    NARROWEST,
    STEP,
    PopulationEstimate,
    PopulationPrior,
    covariance_errors,
    prior_slopes,
    two_stage,
)

MAX_ITERATIONS = 40
"""Of each of the two methods."""
TOLERANCE = 0.05
"""Converged when no median, spread or correlation changes by more than this share of its error."""
DRAWS = 512
"""Draws of each patient's parameters from a proposal; for the final likelihood `LAST` times."""
LEAST_DRAWS, LAST = 32, 4
NOISE, FEWEST = 0.1, 4
"""Most error of the mean over iterations, in standard errors; fewest iterations to average.

The draws are common to all iterations: it is of what the proposals change, not all their noise.
"""
FAR = 2.0
"""Standard errors beyond which a Newton step is not taken."""
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
    if draws and (draws & (draws - 1) or draws < LEAST_DRAWS):
        raise InputError(f"draws is {draws}; give a power of two from {LEAST_DRAWS}, or 0 for none")
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
            try:
                found, converged = work.integrate(found, draws)
            except np.linalg.LinAlgError as error:
                raise CrsSimError(
                    f"the integrated likelihood has no maximum that was found ({error}): share "
                    "what does not differ, state the residual error, draw more, or give 0 draws"
                ) from None
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
        self.assumed = assumed_of(population, roles)
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

        It is the mean over the iterations in which nothing but other proposals moved it.
        """
        course: list[PopulationEstimate] = []
        for _ in range(MAX_ITERATIONS):
            smeared = wide_enough(found.covariance, found.centre_error * np.sqrt(len(self.fits)),
                                  self.assumed.spread, self.assumed.tied)  # fmt: skip
            self.sample(found, smeared, draws)
            before, evidence = found, [one.evidence for one in self.fits]
            step = newton_step(found, smeared, self.fits, self.assumed)
            found = step or _within_reach(
                two_stage(evidence, self.assumed, found.covariance), before
            )
            course.append(found := replace(found, centre=self.bounded(found.centre)))
            settled = _settled(course, self.assumed)
            if settled is not None:
                break
        found = settled or found
        self.sample(found, found.covariance, draws * LAST)
        return found, settled is not None

    def bounded(self, centre: Array) -> Array:
        """The centre with shared parameters, so also residual errors, inside their bounds."""
        low, high = np.transpose([[f.to_scale(f.lower), f.to_scale(f.upper)]
                                  for f in self.population.free])  # fmt: skip
        return np.where(self.assumed.shared, np.clip(centre, low, high), centre)

    def sample(self, found: PopulationEstimate, covariance: Array, draws: int) -> None:
        """Integrate every patient's likelihood over a normal prior."""
        jobs = [self.job(problem, found.centre, found.spread) for problem in self.going]
        self.run(
            [
                replace(job, covariance=covariance, changes=self.assumed.changes, draws=draws)
                for job in jobs
            ]
        )

    @property
    def going(self) -> list[FitProblem]:
        """The patients that have not failed."""
        return [problem for problem in self.problems
                if not isinstance(self.last.get(problem.patient.id), PatientFailure)]  # fmt: skip

    def job(self, problem: FitProblem, centre: Array, spread: Array) -> Job:
        """A patient's job in the next iteration."""
        before = self.last.get(problem.patient.id)
        return job_of(problem, self.population, self.roles, centre, spread, before)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run every job, except those whose result is stored, and keep the outcomes."""
        finished = 0
        outcomes: dict[str, Outcome] = {}
        jobs_by_patient = {job.patient: job for job in jobs}

        def report(outcome: Outcome) -> None:
            nonlocal finished
            outcomes[outcome.patient] = outcome
            finished += 1
            if self.progress is not None:
                self.progress(f"iteration {self.number + 1}", finished, len(jobs), outcome)

        def done(outcome: Outcome) -> None:
            if self.kept is not None and isinstance(outcome, PatientFit):
                self.kept.keep(self.number, jobs_by_patient[outcome.patient], outcome)
            report(outcome)

        stored = {job.patient: self.kept.load(self.number, job) for job in jobs if self.kept}
        for outcome in filter(None, stored.values()):
            report(outcome)
        pending = [job for job in jobs if stored.get(job.patient) is None]
        parallel_map(fit_one, pending, workers=self.workers, finished=done)
        self.last |= {job.patient: outcomes[job.patient] for job in jobs}
        self.number += 1


def _check(problems: Sequence[FitProblem], population: Population) -> None:
    if not problems:
        raise InputError("there is no patient to fit; give one or more")
    ids = [problem.patient.id for problem in problems]
    for id, problem in zip(ids, problems, strict=True):
        if ids.count(id) > 1:
            raise InputError(f"two patients have the id {id!r}; rename one in its patient file")
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
    made = {f.name: (f, p.model) for p in problems for f in p.free if f.name not in p.of_model}
    more = [p for _, model in made.values() for p in model.parameters if p.id in made]
    parameters = {p.id: p for p in (*population.model.parameters, *more)}
    model = replace(population.model, parameters=tuple(parameters.values()))
    model.__dict__["hash"] = population.model.hash  # no equation has changed
    free = (*population.free, *(f for f, _ in made.values()))
    return replace(population, model=model, free=free)


def newton_step(
    found: PopulationEstimate, smeared: Array, fits: Sequence[PatientFit], assumed: PopulationPrior
) -> PopulationEstimate | None:
    """The estimate after a Newton step, with the standard errors of the observed information.

    None where the quadratics of `two_stage` lead on more safely: far from the maximum, or if some
    spread is too small for draws to show its slope.
    """
    if (np.diag(smeared - found.covariance)[assumed.tied] > 0.0).any():
        return None
    score = np.sum([fit.score for fit in fits], axis=0)
    information = np.sum([fit.information for fit in fits], axis=0)
    n, weight = found.centre.size, assumed.patients
    score[:n] -= weight * (found.centre - assumed.centre) / assumed.spread**2
    information[:n, :n] += weight * np.diag(1.0 / assumed.spread**2)
    more = prior_slopes(assumed, found.covariance)
    score[n:] += more[0]
    information[n:, n:] += more[1]
    free = np.concatenate([assumed.estimated, np.ones(score.size - n, dtype=bool)])
    inverse = np.linalg.inv(information[np.ix_(free, free)])
    steps, variances = np.zeros(score.size), np.full(score.size, np.nan)
    steps[free], variances[free] = inverse @ score[free], np.diag(inverse)
    if not (variances[free] > 0.0).all() or (steps[free] ** 2 > FAR**2 * variances[free]).any():
        return None
    moved = found.covariance + np.einsum("k,kij->ij", steps[n:], assumed.changes)
    ratio = np.diag(moved)[assumed.tied] / np.diag(found.covariance)[assumed.tied]
    block = moved[np.ix_(assumed.tied, assumed.tied)]
    small = np.diag(moved)[assumed.tied] < NARROWEST**2
    if (
        (ratio < STEP**-2).any()
        or small.any()
        or (block.size and np.linalg.eigvalsh(block)[0] <= 0.0)
    ):
        return None
    cover = inverse[-len(assumed.elements) :, -len(assumed.elements) :]
    errors = covariance_errors(assumed, moved, cover)
    return replace(found, centre=found.centre + steps[:n], covariance=moved,
                   centre_error=np.sqrt(variances[:n]), spread_error=errors[0],
                   correlation_error=errors[1])  # fmt: skip


def _within_reach(found: PopulationEstimate, before: PopulationEstimate) -> PopulationEstimate:
    """The estimate with medians moved by no more than a factor `STEP` and two spreads."""
    reach = np.log(STEP) + 2.0 * before.spread
    moved = np.clip(found.centre - before.centre, -reach, reach)
    return replace(found, centre=before.centre + moved)


def _settled(
    course: Sequence[PopulationEstimate], assumed: PopulationPrior
) -> PopulationEstimate | None:
    """The mean of the last half of the iterations, if it is certain enough and they do not drift.

    That is to `NOISE` of the standard errors of medians and spreads, and of correlations.
    """
    last = course[-max(FEWEST, len(course) // 2) :]
    if len(course) < FEWEST + 1:
        return None
    now = last[-1]
    scaled = np.array([_scaled(found, now, assumed) for found in last])
    half = len(last) // 2
    error = scaled.std(axis=0, ddof=1) / np.sqrt(len(last))
    drift = scaled[half:].mean(axis=0) - scaled[:half].mean(axis=0)
    if not (np.all(error < NOISE) and np.all(np.abs(drift) < 3.0 * NOISE)):
        return None
    return replace(now, centre=np.mean([found.centre for found in last], axis=0),
                   covariance=np.mean([found.covariance for found in last], axis=0))  # fmt: skip


def _scaled(found: PopulationEstimate, now: PopulationEstimate, assumed: PopulationPrior) -> Array:
    """Estimated medians, ln spreads and correlations in units of their standard errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = (np.log(found.spread) / now.spread_error)[assumed.tied]
    together = np.isfinite(now.correlation_error)
    correlations = found.correlation[together] / now.correlation_error[together]
    centre = (found.centre / now.centre_error)[assumed.estimated]
    return np.concatenate([centre, logs, correlations])


def _largest_change(
    found: PopulationEstimate, before: PopulationEstimate, assumed: PopulationPrior
) -> float:
    """The largest change of a median, spread or correlation, in standard errors."""
    moved = _scaled(found, found, assumed) - _scaled(before, found, assumed)
    return float(np.abs(moved).max(initial=0.0))


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
        now = with_prior(f, medians[k], sd, population.model)
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
