"""Each observation beside the fit: its predictive distribution, noise included, and its influence.

A reading that the model cannot reproduce, even with parameters fitted to it, stands out here.

To first order, leaving an observation out moves the estimates by one Gauss-Newton step. For the
exact change, refit without it (`crs_sim.uncertainty.cross_validation`). Where the errors of grades
persist, a grade counts here with what it adds to those before it.

Source: Cook 1977, https://doi.org/10.1080/00401706.1977.10489493
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtr

from ..errors import InputError
from ..fitting import (
    ROUGH_RTOL,
    Courses,
    Fit,
    Noise,
    Objective,
    days_needed,
    level_at,
    point_of,
    residual_slices,
    residuals,
    signed_norm,
    to_scale,
    when,
)
from ..model import Array
from ..patients import Observation
from .posterior import Posterior

GRADES = 5
COUNT = 400
BATCH = 64
UNUSUAL = 0.025
"""Tail probability at either end below which a reading is surprising: one in twenty is."""
PLAIN = {"below": "value", "above": "value", "ratio_below": "ratio", "ratio_above": "ratio"}


@dataclass(frozen=True)
class Predicted:
    """The predictive distribution of a replicate of one observation.

    Parameters
    ----------
    id, observable, kind, when, unit : of the observation
    observed : float, the reading; for a limit, the limit
    low, median, high : float, 2.5, 50 and 97.5 % quantiles of the predicted readings, with noise
    chance : float, probability of a reading below the observed one (its percentile); for a limit,
        of a reading beyond it, as observed; for a grade, of exactly that grade, whatever the
        grades of other days are
    surprising : bool, whether the reading is outside the 95 % interval; for a limit or grade,
        whether its probability is below 5 %
    """

    id: str
    observable: str
    kind: str
    when: str
    unit: str
    observed: float
    low: float
    median: float
    high: float
    chance: float
    surprising: bool


def predictive(posterior: Posterior, count: int = COUNT) -> tuple[Predicted, ...]:
    """Predictive distribution of every observation of the posterior's patient.

    Parameters
    ----------
    posterior : Posterior
    count : int, draws to simulate (all of them if there are fewer)

    Raises
    ------
    InputError
        If ``count`` is below 1, or none of the draws can be run.
    """
    problem, plan = posterior.problem, posterior.plan
    points = to_scale(posterior.values(count).to_numpy(), problem.scales)
    objective = Objective(problem, ROUGH_RTOL)
    observations = tuple(problem.patient.observations)
    rng = np.random.default_rng(plan.seed)
    readings: list[list[Array]] = [[] for _ in observations]
    chances: list[list[Array]] = [[] for _ in observations]
    for first in range(0, len(points), BATCH):
        courses = objective.courses(points[first : first + BATCH])
        for k, o in enumerate(observations):
            drawn, chance = _readings(o, courses, problem.noise, rng)
            readings[k].append(drawn)
            chances[k].append(chance)
    if not sum(part.size for part in chances[0]):
        raise InputError(f"{problem.name}: none of the draws can be simulated; sample again")
    return tuple(
        _summed(o, np.concatenate(r), np.concatenate(c))
        for o, r, c in zip(observations, readings, chances, strict=True)
    )


def _summed(observation: Observation, readings: Array, chances: Array) -> Predicted:
    low, median, high = np.quantile(readings, [UNUSUAL, 0.5, 1.0 - UNUSUAL])
    chance = float(chances.mean())
    one_sided = observation.kind in PLAIN or observation.kind == "grade"
    least = chance if one_sided else min(chance, 1.0 - chance)
    return Predicted(
        observation.id,
        observation.observable,
        observation.kind,
        when(observation),
        observation.value_unit,
        observation.value,
        float(low),
        float(median),
        float(high),
        chance,
        least < (2.0 * UNUSUAL if one_sided else UNUSUAL),
    )  # fmt: skip


def _readings(
    observation: Observation, courses: Courses, noise: Noise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A reading drawn for each run, and the probability of the observed one; both (n_runs,)."""
    if observation.kind == "grade":
        return _grades(observation, courses, noise, rng)
    deviations = _some_day if observation.kind == "sometime" else _deviations
    return _levels(observation, courses, noise, rng, deviations)


Deviations = Callable[[Observation, Courses, Noise, np.random.Generator], tuple[Array, Array]]


def _levels(
    observation: Observation, courses: Courses, noise: Noise, rng: np.random.Generator,
    deviations: Deviations,
) -> tuple[Array, Array]:  # fmt: skip
    one, chance = deviations(observation, courses, noise, rng)
    spread = noise.spread(observation).at(observation.noise_entry, courses.values)
    level = level_at(spread, observation.value, one[:, None])
    readings = spread.reading(level, rng.standard_normal(one.shape)[:, None])[:, 0]
    return readings, 1.0 - chance if observation.kind.endswith("above") else chance


def _deviations(
    observation: Observation, courses: Courses, noise: Noise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """(ln observed - ln predicted)/sd, and the probability of a lower reading; also for limits."""
    plain = replace(observation, kind=PLAIN.get(observation.kind, observation.kind))
    (deviation,) = residuals(plain, courses, noise)
    return deviation, np.asarray(ndtr(deviation))


def _some_day(
    observation: Observation, courses: Courses, noise: Noise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """As `_deviations`, for a reading on an unknown day of a window: each day is as likely."""
    days = days_needed((observation,))
    each = np.stack([
        _deviations(replace(observation, kind="value", day=d, until=d), courses, noise, rng)[0]
        for d in days.tolist()
    ])  # fmt: skip
    chosen = rng.integers(len(days), size=each.shape[1])
    return each[chosen, np.arange(each.shape[1])], np.asarray(ndtr(each).mean(axis=0))


def _grades(
    observation: Observation, courses: Courses, noise: Noise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A grade drawn for each run, and the probability of the observed one."""
    chances = np.stack([
        np.exp(-0.5 * residuals(replace(observation, value=float(g)), courses, noise)[0] ** 2)
        for g in range(GRADES)
    ])  # fmt: skip
    reached = rng.random(chances.shape[1]) * chances.sum(axis=0)
    drawn = (np.cumsum(chances, axis=0) < reached).sum(axis=0)
    return np.minimum(drawn, GRADES - 1).astype(np.float64), chances[int(observation.value)]


def outside_interval_text(rows: tuple[Predicted, ...]) -> str:
    """The number and ids of the surprising readings, in words."""
    named = [row.id for row in rows if row.surprising]
    expected = math.ceil(2.0 * UNUSUAL * len(rows))
    text = f"{len(named)} of {len(rows)} readings are outside their 95 % predictive interval"
    where = f": {', '.join(named)}" if named else ""
    return f"{text}{where} (about {expected} expected by chance)."


@dataclass(frozen=True)
class Influence:
    """The influence of one observation on a fit.

    Parameters
    ----------
    id, observable, kind : str, of the observation
    residual : float, signed norm of its residuals, in sd
    leverage : float, trace of its block of the hat matrix, 0 to 1 (0 to 2 for a reading on an
        unknown day, which has two residuals)
    residual_without : float, the deleted residual (one step)
    distance : float, Cook's distance: joint shift of all estimates relative to their covariance
    parameter : str, the one whose estimate would move most
    shift : float, of that estimate, in its standard errors
    """

    id: str
    observable: str
    kind: str
    residual: float
    leverage: float
    residual_without: float
    distance: float
    parameter: str
    shift: float


def influences(result: Fit) -> tuple[Influence, ...]:
    """The influence of every observation, in their order.

    Examples
    --------
    ``max(influences(best), key=lambda i: i.distance).id`` is the most influential observation.
    """
    problem, covariance = result.problem, result.covariance
    jacobian = Objective(problem).jacobian(point_of(problem, result.values))
    errors = np.sqrt(np.diag(covariance))
    found = []
    for observation, rows in zip(
        problem.patient.observations, residual_slices(result), strict=True
    ):
        block, residual = jacobian[rows], result.residuals[rows]
        hat = block @ covariance @ block.T
        without: Array = np.asarray(np.linalg.solve(np.eye(len(hat)) - hat, residual))
        shifts = covariance @ block.T @ without
        distance = float(without @ hat @ without)
        worst = int(np.argmax(np.abs(shifts) / errors))
        found.append(
            Influence(
                observation.id, observation.observable, observation.kind, signed_norm(residual),
                float(np.trace(hat)), signed_norm(without), distance / len(errors),
                problem.names[worst], float(shifts[worst] / errors[worst]),
            )
        )  # fmt: skip
    return tuple(found)


def influence_table(result: Fit) -> pd.DataFrame:
    """`influences` as a table, one row per observation."""
    return pd.DataFrame([vars(i) for i in influences(result)])
