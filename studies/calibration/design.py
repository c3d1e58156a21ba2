"""True values drawn from the prior, data simulated from them, and their ranks in the posterior.

If sampler and likelihood are right, the true value is another draw of its posterior, so its rank
among the draws is uniform (Talts et al. 2018, arXiv:1804.06788). The model is small, so that
hundreds of posteriors take minutes; the data contain every kind of reading. The residual errors are
known, or are two more parameters, with priors of their own and more readings to tell them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from crs_sim.dosing.scenario import Scenario
from crs_sim.fitting.noise import SPAN, GradeScale, Noise, Spread
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import FitProblem, estimated_noise
from crs_sim.model.model import Model, Parameter, Quantity, State
from crs_sim.patients.patient import Observation, Observations, Patient
from crs_sim.simulation.workers import process_map
from crs_sim.uncertainty.posterior import SamplePlan
from crs_sim.uncertainty.sampler import PosteriorMode, sample

Array = NDArray[np.float64]

CUTS = {"grade_1": 1.0, "grade_2": 2.0, "grade_3": 4.0, "grade_4": 8.0}
MADE_UP = "synthetic"
MODEL = Model(
    "calibration",
    (State("A", "a0", "-k*A", "mg", "Amount", MADE_UP),),
    tuple(
        Parameter(name, value, "", "", MADE_UP)
        for name, value in {"k": 0.5, "a0": 10.0, "gain": 3.0, **CUTS}.items()
    ),
    (
        Quantity("signal", "gain*A", "mg", "", MADE_UP),
        Quantity("crs_grade", " + ".join(f"reached(A, {cut})" for cut in CUTS), "1", "", MADE_UP),
    ),
)
PRIORS = (
    Free("k", 0.005, 50.0, 0.5, 0.4, MADE_UP),
    Free("a0", 0.1, 1000.0, 10.0, 0.5, MADE_UP),
    Free("gain", 0.03, 300.0, 3.0, 0.6, MADE_UP),
)
LEVEL_SD, SIGNAL_SD, GRADE_SD = 0.25, 0.15, 0.5
ERROR_SD = 0.5
"""The residual errors' own log-normal prior, if they are estimated."""
ERRORS = tuple(
    Free(f"sd_{name}", sd / SPAN, sd * SPAN, sd, ERROR_SD, MADE_UP)
    for name, sd in (("A", LEVEL_SD), ("signal", SIGNAL_SD))
)
NOISES = {"stated": PRIORS, "estimated": (*PRIORS, *ERRORS)}
"""The free parameters, by what is told of the residual error."""
DAYS = {"stated": ((0.0, 3.0, 6.0), (1.0,)),
        "estimated": ((0.0, 1.0, 2.0, 3.0, 4.0, 6.0), (1.0, 2.0, 3.0, 5.0))}  # fmt: skip
"""The days of the levels and of the signals."""
LIMIT = 1.5
"""Lower limit of quantification of levels."""
TOP = 40.0
"""Upper limit of quantification of signals."""
NOISE = Noise(
    {"A": Spread(LEVEL_SD, MADE_UP), "signal": Spread(SIGNAL_SD, MADE_UP)},
    GradeScale("A", tuple(CUTS), GRADE_SD, MADE_UP),
)
RANKS = 64
"""Number of possible ranks, 0 to 63: one draw from each of 63 walkers."""
PLAN = SamplePlan(draws=10, thin=20, groups=2, walkers=32)
"""The autocorrelation time is some 15 moves here, so 200 are ample to forget the start."""
LONGER = SamplePlan(draws=10, thin=30, groups=2, walkers=32)
"""With the residual errors as parameters."""


@dataclass(frozen=True)
class Ranked:
    """The ranks of one synthetic patient's parameters among the draws of the posterior."""

    number: int
    truth: tuple[float, ...]
    ranks: tuple[int, ...]


def run(
    count: int,
    plan: SamplePlan | None = None,
    *,
    sd_factor: float = 1.0,
    noise: str = "stated",
    workers: int | None = None,
) -> list[Ranked]:
    """Rank the true values of ``count`` synthetic patients.

    Parameters
    ----------
    count : int
    plan : SamplePlan, with the seed of the patients  [default: `PLAN`, or `LONGER`]
    sd_factor : float, error factor of the noise given to the sampler; 1 is right
    noise : str, of `NOISES`: whether the residual errors are known
    workers : int, processes
    """
    if plan is None:
        plan = PLAN if noise == "stated" else LONGER
    return process_map(partial(_one, plan, sd_factor, noise), range(count), workers=workers)


def _one(plan: SamplePlan, sd_factor: float, noise: str, number: int) -> Ranked:
    priors = NOISES[noise]
    rng = np.random.default_rng([plan.seed, number])
    truth = np.array([math.log(f.median) + f.sd * rng.standard_normal() for f in priors])
    problem = asked(np.exp(truth), rng, sd_factor)
    assert problem.names == tuple(f.name for f in priors)
    # started from the prior, not from the true values
    centre = np.log([[f.median for f in priors]])
    around = PosteriorMode(problem, centre, np.diag([f.sd**2 for f in priors]))
    sized = SamplePlan(plan.draws, plan.thin, plan.groups, plan.walkers, number)
    found = sample(around, sized, workers=1)
    draws = found.chain[-1].reshape(-1, len(priors))[: RANKS - 1]
    ranks = tuple((draws < truth).sum(axis=0).tolist())
    return Ranked(number, tuple(np.exp(truth).tolist()), ranks)


def asked(values: Array, rng: np.random.Generator, sd_factor: float = 1.0) -> FitProblem:
    """Simulate a patient with these values of k, a0 and gain; the problem of its data.

    Two more values are the residual errors, which are then estimated.
    """
    k, a0, gain, *errors = values.tolist()
    noise = "estimated" if errors else "stated"
    sds = errors or [LEVEL_SD, SIGNAL_SD]
    levels = {day: a0 * math.exp(-k * day) for day in range(7)}
    of_levels, of_signals = DAYS[noise]
    observations = [_level(day, levels[day], sds[0], rng) for day in of_levels]
    observations += [_signal(day, gain * levels[day], sds[1], rng) for day in of_signals]
    observations.append(_grade(2.0, levels[2.0], rng))
    patient = Patient("synthetic", MODEL.name, Scenario("untreated"),
                      Observations(tuple(observations)))  # fmt: skip
    spreads = {
        name: Spread(s.sd * sd_factor, s.source, estimate=bool(errors), prior_sd=ERROR_SD)
        for name, s in NOISE.spreads.items()
    }
    told = Noise(spreads, NOISE.grade)
    model, more = estimated_noise(MODEL, told, patient, fewest=0)
    return FitProblem("calibration", model, patient, (*PRIORS, *more), told)


def _level(day: float, level: float, sd: float, rng: np.random.Generator) -> Observation:
    reading = level * math.exp(sd * rng.standard_normal())
    kind, value = ("below", LIMIT) if reading < LIMIT else ("value", reading)
    return Observation(f"a{day:g}", "A", kind, day, day, math.nan, value, "mg")


def _signal(day: float, level: float, sd: float, rng: np.random.Generator) -> Observation:
    reading = level * math.exp(sd * rng.standard_normal())
    kind, value = ("above", TOP) if reading > TOP else ("value", reading)
    return Observation(f"signal{day:g}", "signal", kind, day, day, math.nan, value, "mg")


def _grade(day: float, level: float, rng: np.random.Generator) -> Observation:
    reading = level + GRADE_SD * rng.standard_normal()
    grade = sum(reading >= cut for cut in CUTS.values())
    return Observation("grade", "crs_grade", "grade", day, day, math.nan, float(grade), "1")


def chance(ranks: Sequence[int], bins: int = 8) -> float:
    """P-value of the chi-square test that the ranks are uniform."""
    counts = np.bincount(np.asarray(ranks) * bins // RANKS, minlength=bins)
    expected = len(ranks) / bins
    return float(chi2.sf(np.sum((counts - expected) ** 2) / expected, bins - 1))
