"""What the other observations foretell of the one that is left out: a fit's hardest test.

The problem is fitted again without it, from where the fit ended, from the next best optimum and
from the best of many draws of the priors, and what was read is held against the prediction: its
own noise and what the rest leave uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import ndtr

from .cluster import Workers, everywhere
from .descents import (
    MAX_STEPS,
    ROUGH_TOLERANCE,
    Start,
    descend,
    minimize,
    polish,
    start_points,
)
from .draws import laplace_draws
from .errors import InputError
from .fitting import DRAWS, Fit, answer
from .influence import blocks, signed
from .noise import Noise, days_needed, predicted
from .objective import ROUGH_RTOL, Array, Objective, curves, logs, named, prior_vectors
from .patient import Observation
from .problem import FitProblem
from .trust import SAME_OPTIMUM
from .verdict import when

WIDER = 2.0
"""Of such a draw, in terms of the fit's own uncertainty."""
EXACT_KINDS = ("value", "peak", "ratio", "sometime")
"""Readings with a number of their own; the others are limits and grades, which have a chance."""
LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Foretold:
    """One reading that was left out, beside what the others foretell.

    Parameters
    ----------
    id, observable, kind, when, unit : str, of the observation
    observed, predicted : float, in the unit; predicted by the fit without it
    residual : float, in sd of the reading's noise (limits and grades: root of -2 ln chance)
    off_by : float, in sd of the whole prediction: noise and what the rest leave uncertain; nan
        for a limit or a grade
    chance : float, of a reading at least as far off; of a limit or grade: of what was reported, at
        the estimates (what is uncertain in them is not counted)
    deviance : float, -2 ln predictive density (log scale) or chance: what compares models
    """

    id: str
    observable: str
    kind: str
    when: str
    unit: str
    observed: float
    predicted: float
    residual: float
    off_by: float
    chance: float
    deviance: float


@dataclass(frozen=True, eq=False)
class Omission:
    """A fit without some observations, and what it foretells of them.

    Parameters
    ----------
    ids : tuple of str, what was left out
    fit : Fit, without them
    foretold : tuple of Foretold, one for each
    parameter, shift : the parameter that moves most, and by how many standard errors of the whole
        fit
    agreeing : int, how many of the descents ended within 0.1 of the best
    """

    ids: tuple[str, ...]
    fit: Fit = field(repr=False)
    foretold: tuple[Foretold, ...]
    parameter: str
    shift: float
    agreeing: int


def leave_out(
    result: Fit,
    groups: Sequence[Sequence[str]] | None = None,
    *,
    done: Sequence[Omission] = (),
    workers: Workers = None,
    progress: Callable[[int, int, Omission], None] | None = None,
) -> tuple[Omission, ...]:
    """Fit again without each group of observations, and foretell them.

    Parameters
    ----------
    result : Fit, with all observations
    groups : ids to leave out together; None leaves out each observation in turn
    done : those of this fit that are there already, and are not made again
    workers : int, processes (default: one for each core), or the address of a Dask scheduler; the
        numbers do not depend on it
    progress : called as (finished, of how many, Omission) after each that is made

    Raises
    ------
    UnknownNameError, InputError
        For an observation that is not there, or if none would be left.
    """
    ids = result.problem.patient.observations.ids
    asked = [tuple(g) for g in groups] if groups is not None else [(name,) for name in ids]
    for group in asked:
        result.problem.patient.observations.without(*group)
        if not group or len(set(group)) == len(ids):
            raise InputError(f"{result.problem.name}: leave out at least one of the {len(ids)} "
                             "observations, and keep one")  # fmt: skip
    ready = {omission.ids: omission for omission in done}
    left = [group for group in dict.fromkeys(asked) if group not in ready]
    count = len(set(asked)) - len(left)

    def report(omission: Omission) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, len(set(asked)), omission)

    made = everywhere(partial(leave_out_one, result), left, workers=workers, finished=report)
    ready |= {omission.ids: omission for omission in made}
    return tuple(ready[group] for group in asked)


def leave_out_one(result: Fit, ids: tuple[str, ...]) -> Omission:
    """The fit without some observations; see `leave_out`."""
    problem = result.problem.leaving_out(*ids)
    start = logs(problem, result.values)
    afar = start_points(problem, 1 + DRAWS, result.seed)[1:]
    ends = (
        _descent(problem, 0, start),
        _descent(problem, 1, _elsewhere(result)),
        descend(problem, (2, afar)),
    )
    best = min(ends, key=lambda end: end.cost)
    again = answer(problem, ends, polish(problem, best), result.seed)
    errors = np.sqrt(np.diag(result.covariance))
    moved = (logs(problem, again.values) - start) / errors
    worst = int(np.argmax(np.abs(moved)))
    return Omission(
        ids, again, _foretold(result, again, ids), problem.names[worst], float(moved[worst]),
        sum(end.cost - again.cost < SAME_OPTIMUM for end in ends),
    )  # fmt: skip


def _elsewhere(result: Fit) -> Array:
    """Another place to begin: the next best optimum that the fit's starts met, or a wide draw."""
    problem = result.problem
    others = [s for s in result.starts if s.cost > result.cost + SAME_OPTIMUM]
    if others:
        return logs(problem, min(others, key=lambda s: s.cost).values)
    _, _, lower, upper = prior_vectors(problem)
    centre = logs(problem, result.values)
    drawn = np.log(laplace_draws(result, 1).to_numpy()[0])
    return np.asarray(np.clip(centre + WIDER * (drawn - centre), lower, upper))


def _descent(problem: FitProblem, number: int, x: Array) -> Start:
    objective = Objective(problem, ROUGH_RTOL)
    end = minimize(objective, x, ROUGH_TOLERANCE, MAX_STEPS)
    again = Objective(problem).residuals(objective.best)
    return Start(
        number, named(problem, x), named(problem, objective.best), float(again @ again),
        str(end.message), bool(end.success), objective.runs, objective.failed,
        objective.first_failure,
    )  # fmt: skip


def _foretold(result: Fit, again: Fit, ids: tuple[str, ...]) -> tuple[Foretold, ...]:
    """The left-out readings against the fit without them, on the days of the whole problem."""
    problem, x = result.problem, logs(result.problem, again.values)
    objective = Objective(problem)
    residuals, slopes = objective.residuals(x), objective.jacobian(x)
    run = curves(problem, again.values, days_needed(problem.patient.observations))
    return tuple(
        _one(o, predicted(o, run), residuals[rows],
             math.sqrt(1.0 + float(slopes[rows][0] @ again.covariance @ slopes[rows][0])),
             problem.noise)
        for o, rows in zip(problem.patient.observations, blocks(result), strict=True)
        if o.id in ids
    )  # fmt: skip


def _one(
    observation: Observation, level: float, residuals: Array, spread: float, noise: Noise
) -> Foretold:
    if observation.kind in EXACT_KINDS:
        off_by, chance, deviance = _reading(residuals, spread, observation, noise)
    else:
        deviance = float(residuals @ residuals)
        off_by, chance = math.nan, math.exp(-0.5 * deviance)
    return Foretold(
        observation.id, observation.observable, observation.kind, when(observation),
        observation.value_unit, observation.value, level, signed(residuals), off_by, chance,
        deviance,
    )  # fmt: skip


def _reading(
    residuals: Array, spread: float, observation: Observation, noise: Noise
) -> tuple[float, float, float]:
    """How far off in sd, the chance of that, and the -2 ln predictive density of a number.

    Of a reading on an unknown day the second residual, for the day, is taken as it stands.
    """
    off_by = float(residuals[0]) / spread
    deviance = off_by**2 + 2.0 * math.log(spread) + float(np.sum(residuals[1:] ** 2))
    chance = 2.0 * float(ndtr(-abs(off_by)))
    return off_by, chance, deviance + density_constant(observation, noise)


def density_constant(observation: Observation, noise: Noise) -> float:
    """What a squared residual lacks to be -2 ln density of the log reading; 0 for a chance."""
    if observation.kind not in EXACT_KINDS:
        return 0.0
    return 2.0 * math.log(noise.sd(observation)) + LOG_2PI


def leave_out_table(result: Fit, omissions: Sequence[Omission]) -> pd.DataFrame:
    """One row for each reading left out: foretold without it, and its residual with it."""
    residuals = {o.id: signed(result.residuals[rows]) for o, rows in zip(
        result.problem.patient.observations, blocks(result), strict=True)}  # fmt: skip
    rows = [
        {
            "left_out": group_name(omission.ids),
            **vars(foretold),
            "residual_with": residuals[foretold.id],
            "cost_without": omission.fit.cost,
            "most_moved": omission.parameter,
            "moved_by": omission.shift,
            "descents_agreeing": omission.agreeing,
        }
        for omission in omissions
        for foretold in omission.foretold
    ]
    return pd.DataFrame(rows)


def group_name(ids: Sequence[str]) -> str:
    """What was left out together, in a few words.

    >>> group_name(["a", "b", "c", "d"])
    'a and 3 more'
    """
    return " and ".join(ids) if len(ids) < 3 else f"{ids[0]} and {len(ids) - 1} more"
