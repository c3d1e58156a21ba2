"""One synthetic patient: simulate, fit in several ways, and compute intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crs_sim import CrsSimError, Fit, FitProblem, Observations, Patient, Population, fit
from crs_sim.fitting import verdict
from crs_sim.fitting.noise import Noise
from crs_sim.fitting.problem import estimated_noise
from crs_sim.population.virtual_patients import synthetic_patient

from .design import HIGH_LIMIT, LEVELS, SAMPLES, SDS, SEED, STARTS, design, population
from .intervals import METHODS

ANALYSES = ("modelled", "dropped", "imputed")
"""Treatment of readings below the assay's limit: censored likelihood, omission, or limit/2."""


@dataclass(frozen=True)
class Job:
    """Patient number k of the study; its results do not depend on the other patients."""

    number: int
    seed: np.random.SeedSequence
    methods: tuple[str, ...]


def jobs(count: int, methods: Sequence[str]) -> list[Job]:
    """The jobs of ``count`` patients, each with its own seed."""
    seeds = np.random.SeedSequence(SEED).spawn(count)
    return [Job(k, seed, tuple(methods)) for k, seed in enumerate(seeds)]


def recover(job: Job) -> dict[str, Any]:
    """The true values of a patient and the results of each analysis."""
    people = population()
    truth, rng, high = _drawn(people, job)
    record: dict[str, Any] = {"number": job.number, "truth": truth}
    try:
        problem = _problem(people, truth, design(), rng, job.number)
        best = fit(problem, workers=1)
        record["fit"] = _result(best) | {
            "intervals": {m: METHODS[m](best, LEVELS) for m in job.methods},
        }
        censored = _problem(people, truth, design(HIGH_LIMIT), high, job.number)
        record["censored"] = _share(censored.patient)
        for name in ANALYSES:
            patient = replace(censored.patient, observations=_treated(censored.patient, name))
            record[name] = _result(fit(replace(censored, patient=patient), workers=1))
    except CrsSimError as error:
        record["error"] = str(error)
    return record


def recover_estimated(job: Job) -> dict[str, Any]:
    """The same patient with the same readings, whose residual errors are estimated as well."""
    people = population()
    truth, rng, _ = _drawn(people, job)
    sds = {name: people.noise.spreads[name.removeprefix("sd_")].sd for name in SDS}
    record: dict[str, Any] = {"number": job.number, "truth": truth | sds}
    try:
        made = _problem(people, truth, design(), rng, job.number)
        best = fit(with_estimated_error(made, SAMPLES), workers=1)
        record["fit"] = _result(best) | {
            "intervals": {m: METHODS[m](best, LEVELS) for m in job.methods},
            "corrected": corrected(best),
        }
    except CrsSimError as error:
        record["error"] = str(error)
    return record


def with_estimated_error(problem: FitProblem, observables: Container[str]) -> FitProblem:
    """The problem with the residual errors of these free, as by ``estimate = true``."""
    spreads = {name: replace(spread, estimate=name in observables)
               for name, spread in problem.noise.spreads.items()}  # fmt: skip
    noise = Noise(spreads, problem.noise.grade)
    model, more = estimated_noise(problem.model, noise, problem.patient)
    return replace(problem, model=model, free=(*problem.free, *more), noise=noise)


CORRECTED = re.compile(r"residual error of (\w+), .*? or (\S+) and intervals")


def corrected(best: Fit) -> dict[str, float]:
    """The sds corrected for the parameters fitted, as the verdict prints them."""
    found = CORRECTED.findall(verdict(best).text)
    return {f"sd_{name}": float(number) for name, number in found}


def _drawn(
    people: Population, job: Job
) -> tuple[dict[str, float], np.random.Generator, np.random.Generator]:
    """The true values, and the streams of the readings and of those with the higher limit."""
    rng, high = (np.random.default_rng(seed) for seed in job.seed.spawn(2))
    return {name: float(value[0]) for name, value in people.sample(1, rng).items()}, rng, high


def _problem(
    people: Population, truth: dict[str, float], design: Any, rng: np.random.Generator, number: int
) -> FitProblem:
    true = people.model.with_values(**truth)
    patient = synthetic_patient(true, design, people.noise, rng, id=str(number))
    return FitProblem(patient.id, people.model, patient, people.free, people.noise,
                      seed=number, starts=STARTS)  # fmt: skip


def _result(best: Any) -> dict[str, Any]:
    errors = np.sqrt(np.diag(best.covariance)).tolist()
    agreeing = sum(start.cost - best.cost < 0.5 for start in best.starts)
    return {"values": dict(best.values), "errors": dict(zip(best.values, errors, strict=True)),
            "cost": best.cost, "agreeing": agreeing, "failed_runs": best.failed_runs}  # fmt: skip


def _share(patient: Patient) -> list[int]:
    """Number of IFN-g readings below the limit, and of all IFN-g readings."""
    kinds = [o.kind for o in patient.observations if o.observable == "ifng"]
    return [kinds.count("below"), len(kinds)]


def _treated(patient: Patient, analysis: str) -> Observations:
    """The readings as used by an analysis."""
    if analysis == "modelled":
        return patient.observations
    if analysis == "dropped":
        return Observations(tuple(o for o in patient.observations if o.kind != "below"))
    return Observations(tuple(
        replace(o, kind="value", value=0.5 * o.value) if o.kind == "below" else o
        for o in patient.observations
    ))  # fmt: skip


def shift(record: dict[str, Any], analysis: str, name: str) -> float:
    """ln(estimate/truth)."""
    return math.log(record[analysis]["values"][name] / record["truth"][name])
