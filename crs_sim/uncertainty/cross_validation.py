"""Cross-validation: fits without some observations, and model structures compared.

The problem is refitted without it, starting at the estimates, at the next best optimum and at the
best of many draws of the priors. The reading left out is compared with its prediction, in standard
deviations of the residual noise and the parameter uncertainty together.

Each prior counts as one more observation, as it does in the fit. Only differences are meaningful,
and only between fits of identical observations: others are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import ndtr

from ..errors import InputError
from ..fitting import (
    DRAWS,
    EXACT_KINDS,
    MAX_STEPS,
    ROUGH_RTOL,
    ROUGH_TOLERANCE,
    SAME_OPTIMUM,
    Fit,
    FitProblem,
    Noise,
    Objective,
    Start,
    agreeing,
    assemble_fit,
    curves,
    days_needed,
    grades_given_others,
    minimize,
    optimise,
    point_of,
    polish,
    predicted,
    prior_vectors,
    residual_slices,
    signed_norm,
    start_points,
    to_scale,
    values_by_name,
    when,
)
from ..model import Array
from ..patients import Observation
from ..simulation import Workers, parallel_map
from .draws import laplace_draws, weighted_draws

WIDER = 2.0
"""Spread of the alternative start, in multiples of the fit's own uncertainty."""
AVERAGED, LEAST_CHANCE = 200, 1e-300
"""Draws over which the probability of a limit or a grade is averaged; the least reported."""


@dataclass(frozen=True)
class HeldOut:
    """One reading that was left out, with its cross-validated prediction.

    Parameters
    ----------
    id, observable, kind, when, unit : str, of the observation
    observed, predicted : float, in the unit; predicted by the fit without it
    residual : float, in sd of the residual noise, at the estimates (limits and grades: root of
        -2 ln probability there)
    off_by : float, in sd of the prediction: noise and parameter uncertainty; nan for a limit or
        a grade
    chance : float, probability of a reading at least as far off; for a limit or grade, of the
        reported one, averaged over draws of the parameters; for a grade given those of other days
    deviance : float, -2 ln of the predictive density (log scale) or probability, to compare models
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
    """A fit without some observations, and its predictions of them.

    Parameters
    ----------
    ids : tuple of str, the observations left out
    fit : Fit, without them
    held_out : tuple of HeldOut, one for each
    parameter, shift : the parameter that changes most, and by how many standard errors of the fit
        to all observations
    agreeing : int, how many local optimisations ended within 0.1 of the best
    """

    ids: tuple[str, ...]
    fit: Fit = field(repr=False)
    held_out: tuple[HeldOut, ...]
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
    """Refit without each group of observations, and predict them.

    Parameters
    ----------
    result : Fit, to all observations
    groups : ids to leave out together; None leaves out each observation in turn
    done : existing results of this fit, which are not recomputed
    workers : int, processes (default: one for each core), or the address of a Dask scheduler; the
        numbers do not depend on it
    progress : called as (finished, of how many, Omission) after each refit

    Raises
    ------
    UnknownNameError, InputError
        For an unknown observation, or if none would remain.
    """
    ids = result.problem.patient.observations.ids
    requested = [tuple(g) for g in groups] if groups is not None else [(name,) for name in ids]
    for group in requested:
        result.problem.patient.observations.without(*group)
        if not group or len(set(group)) == len(ids):
            raise InputError(f"{result.problem.name}: leave out at least one of the {len(ids)} "
                             "observations, and keep one")  # fmt: skip
    ready = {omission.ids: omission for omission in done}
    left = [group for group in dict.fromkeys(requested) if group not in ready]
    count = len(set(requested)) - len(left)

    def report(omission: Omission) -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(count, len(set(requested)), omission)

    made = parallel_map(partial(leave_out_one, result), left, workers=workers, finished=report)
    ready |= {omission.ids: omission for omission in made}
    return tuple(ready[group] for group in requested)


def leave_out_one(result: Fit, ids: tuple[str, ...]) -> Omission:
    """Refit without some observations; see `leave_out`."""
    problem = result.problem.leaving_out(*ids)
    start = point_of(problem, result.values)
    prior_draws = start_points(problem, 1 + DRAWS, result.seed)[1:]
    ends = (
        _local_fit(problem, 0, start),
        _local_fit(problem, 1, _alternative_start(result)),
        optimise(problem, (2, prior_draws)),
    )
    best = min(ends, key=lambda end: end.cost)
    refit = assemble_fit(problem, ends, polish(problem, best), result.seed)
    errors = np.sqrt(np.diag(result.covariance))
    shifts = (point_of(problem, refit.values) - start) / errors
    largest = int(np.argmax(np.abs(shifts)))
    return Omission(
        ids, refit, _predictions(result, refit, ids), problem.names[largest],
        float(shifts[largest]), sum(end.cost - refit.cost < SAME_OPTIMUM for end in ends),
    )  # fmt: skip


def _alternative_start(result: Fit) -> Array:
    """Another start: the next best optimum among the fit's starts, or a wide draw."""
    problem = result.problem
    others = [s for s in result.starts if s.cost > result.cost + SAME_OPTIMUM]
    if others:
        return point_of(problem, min(others, key=lambda s: s.cost).values)
    _, _, lower, upper = prior_vectors(problem)
    centre = point_of(problem, result.values)
    drawn = to_scale(laplace_draws(result, 1).to_numpy()[0], problem.scales)
    return np.asarray(np.clip(centre + WIDER * (drawn - centre), lower, upper))


def _local_fit(problem: FitProblem, number: int, x: Array) -> Start:
    """A local optimisation from x."""
    objective = Objective(problem, ROUGH_RTOL)
    end = minimize(objective, x, ROUGH_TOLERANCE, MAX_STEPS)
    again = Objective(problem).residuals(objective.best)
    return Start(
        number, values_by_name(problem, x), values_by_name(problem, objective.best),
        float(again @ again),
        str(end.message), bool(end.success), objective.runs, objective.failed,
        objective.first_failure,
    )  # fmt: skip


def _predictions(result: Fit, refit: Fit, ids: tuple[str, ...]) -> tuple[HeldOut, ...]:
    """The readings left out and their predictions, on the days of the complete problem."""
    problem, x = result.problem, point_of(result.problem, refit.values)
    objective = Objective(problem)
    residuals, slopes = objective.residuals(x), objective.jacobian(x)
    run = curves(problem, refit.values, days_needed(problem.patient.observations))
    left_out = [
        (o, rows)
        for o, rows in zip(problem.patient.observations, residual_slices(result), strict=True)
        if o.id in ids
    ]
    drawn, found = residuals[None], dict[str, tuple[Array, Array]]()
    if any(o.kind not in EXACT_KINDS for o, _ in left_out):
        points = to_scale(weighted_draws(refit, AVERAGED, workers=1).values, problem.scales)
        drawn = objective.observed(points)
        if problem.noise.grade and problem.noise.grade.persistence:
            given = [grades_given_others(problem.patient.observations, ids, objective.courses(p),
                                         problem.noise) for p in (x[None], points)]  # fmt: skip
            found = {id: (given[0][id], given[1][id][:, None]) for id in given[0]}
    return tuple(
        _one(o, predicted(o, run), found.get(o.id, (residuals[rows], drawn[:, rows])),
             math.sqrt(1.0 + float(slopes[rows][0] @ refit.covariance @ slopes[rows][0])),
             problem.noise.at(refit.values))
        for o, rows in left_out
    )  # fmt: skip


def _one(
    observation: Observation, level: float, found: tuple[Array, Array], spread: float, noise: Noise
) -> HeldOut:
    """From the residuals at the estimates (n_own,) and at draws of the parameters (n, n_own)."""
    residuals, drawn = found
    if observation.kind in EXACT_KINDS:
        off_by, chance, deviance = _reading(residuals, spread)
        deviance += density_constant(observation, level, noise)
    else:
        chance = float(np.mean(np.exp(-0.5 * np.sum(drawn**2, axis=1))))
        off_by, deviance = math.nan, -2.0 * math.log(max(chance, LEAST_CHANCE))
    return HeldOut(
        observation.id, observation.observable, observation.kind, when(observation),
        observation.value_unit, observation.value, level, signed_norm(residuals), off_by, chance,
        deviance,
    )  # fmt: skip


def _reading(residuals: Array, spread: float) -> tuple[float, float, float]:
    """Error in sd, probability of one as large, and -2 ln predictive density up to a constant.

    For a reading on an unknown day, the second residual (of the day) enters unchanged.
    """
    off_by = float(residuals[0]) / spread
    deviance = off_by**2 + 2.0 * math.log(spread) + float(np.sum(residuals[1:] ** 2))
    return off_by, 2.0 * float(ndtr(-abs(off_by))), deviance


def density_constant(observation: Observation, level: float, noise: Noise) -> float:
    """What turns a squared residual into -2 ln density of the log reading, given the prediction.

    0 for limits and grades, which have a probability.
    """
    if observation.kind not in EXACT_KINDS:
        return 0.0
    spread, value = noise.spread(observation), observation.value
    scale = float(spread.scale(value if observation.kind == "sometime" else level, value))
    return spread.density_constant(scale, value)


def leave_out_table(result: Fit, omissions: Sequence[Omission]) -> pd.DataFrame:
    """One row for each reading left out: its prediction, and its residual in the complete fit."""
    residuals = {o.id: signed_norm(result.residuals[rows]) for o, rows in zip(
        result.problem.patient.observations, residual_slices(result), strict=True)}  # fmt: skip
    rows = [
        {
            "left_out": group_name(omission.ids),
            **vars(prediction),
            "residual_with": residuals[prediction.id],
            "cost_without": omission.fit.cost,
            "most_moved": omission.parameter,
            "moved_by": omission.shift,
            "descents_agreeing": omission.agreeing,
        }
        for omission in omissions
        for prediction in omission.held_out
    ]
    return pd.DataFrame(rows)


def group_name(ids: Sequence[str]) -> str:
    """A short name of the observations left out together.

    >>> group_name(["a", "b", "c", "d"])
    'a and 3 more'
    """
    return " and ".join(ids) if len(ids) < 3 else f"{ids[0]} and {len(ids) - 1} more"


def compare_fits(
    fits: Mapping[str, Fit], left_out: Mapping[str, Sequence[Omission]] | None = None
) -> pd.DataFrame:
    """One row per fit, the best AIC first.

    ==================  =======================================================================
    minus_2_ln_l        -2 ln likelihood of the observations (densities of the log readings)
    prior_penalty       sum of the squared shifts from the priors
    free, effective     free parameters, and the effective number the observations determine
    aic                 minus_2_ln_l + prior_penalty + 2 free
    bic                 minus_2_ln_l + prior_penalty + free ln(observations)
    aic_effective       minus_2_ln_l + 2 effective: without the part of the priors (as DIC)
    held_out            sum of the cross-validated -2 ln density of each reading
    agreeing            starts that ended within 1 of the best cost
    delta_...           above the lowest of the column
    ==================  =======================================================================

    Parameters
    ----------
    fits : name to Fit; two or more
    left_out : name to the result of `leave_out` for that fit, each observation in turn

    Raises
    ------
    InputError
        If there is only one fit, the observations differ, or an observation was not left out.
    """
    if len(fits) < 2:
        raise InputError("compare_fits: give two fits or more")
    first, *others = fits
    for name in others:
        _check_same_observations(first, fits[first], name, fits[name])
    rows = [_row(name, fit, (left_out or {}).get(name)) for name, fit in fits.items()]
    table = pd.DataFrame(rows).sort_values("aic", kind="stable", ignore_index=True)
    for column in ("aic", "bic", "aic_effective", "held_out"):
        table[f"delta_{column}"] = table[column] - table[column].min()
    return table


def minus_2_ln_likelihood(result: Fit) -> float:
    """-2 ln likelihood with all constants, so that fits with other noise can be compared."""
    observed, noise = result.problem.patient.observations, result.problem.noise.at(result.values)
    run, readings = result.simulation(), slice(None, residual_slices(result)[-1].stop)
    constants = (density_constant(o, predicted(o, run), noise) for o in observed)
    return float(np.sum(result.residuals[readings] ** 2)) + sum(constants)


def _row(name: str, result: Fit, omissions: Sequence[Omission] | None) -> dict[str, object]:
    problem, n_free = result.problem, len(result.problem.free)
    n_observations = len(problem.patient.observations)
    likelihood, penalty = minus_2_ln_likelihood(result), result.prior_penalty
    return {
        "fit": name,
        "model": problem.model.name,
        "observations": n_observations,
        "free": n_free,
        "effective": result.effective_parameters,
        "minus_2_ln_l": likelihood,
        "prior_penalty": penalty,
        "aic": likelihood + penalty + 2 * n_free,
        "bic": likelihood + penalty + n_free * math.log(n_observations),
        "aic_effective": likelihood + 2.0 * result.effective_parameters,
        "held_out": math.nan if omissions is None else _held_out(name, result, omissions),
        "agreeing": agreeing(result),
    }


def _held_out(name: str, result: Fit, omissions: Sequence[Omission]) -> float:
    """Cross-validated deviance: the sum over all observations, each left out on its own."""
    single = {o.ids[0]: o.held_out[0].deviance for o in omissions if len(o.ids) == 1}
    missing = [id for id in result.problem.patient.observations.ids if id not in single]
    if missing:
        raise InputError(f"compare_fits: {name}: {missing[0]} was not left out; leave out each "
                         "observation in turn (leave_out without groups)")  # fmt: skip
    return sum(single[id] for id in result.problem.patient.observations.ids)


def _check_same_observations(first: str, one: Fit, name: str, other: Fit) -> None:
    mine, theirs = (
        {_content(o): o.id for o in fit.problem.patient.observations} for fit in (one, other)
    )
    if differing := [*(mine.keys() ^ theirs.keys())]:
        ids = sorted({mine.get(key) or theirs[key] for key in differing})
        raise InputError(
            f"compare_fits: {first} and {name} are fits of different observations "
            f"({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}); fit the same ones"
        )


def _content(o: Observation) -> tuple[object, ...]:
    """The content of an observation, without its notes; as text, so that nan equals itself."""
    return (o.id, o.observable, o.kind, *(repr(v) for v in (o.day, o.until, o.reference, o.value)),
            o.unit)  # fmt: skip
