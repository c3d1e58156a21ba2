"""Diagnostics of a fit: reported beside fitted levels, and warnings.

The acceptance range is set before the fit (``[accept]`` in problem.toml); by default it is the 95 %
error interval of the reading, or for a censored reading its limit.

Warnings (`fit_warnings`) come first in every report, together with `agreement_text` and
`condition_text`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..model import Array
from ..patients import Observation
from ..simulation import Simulation
from .fitting import Fit
from .noise import BOUNDS, NORMAL_95, RATIOS, predicted, residual
from .problem import FitProblem

EXACT_SHARE = 0.9
"""Smallest share of exact grades with which the grades pass together."""
GRADE_RULE = "all_grades"


@dataclass(frozen=True)
class Judged:
    """One row of observations.csv; the verdict is pass, miss, or near (a grade off by one)."""

    id: str
    observable: str
    kind: str
    when: str
    observed: float
    unit: str
    fitted: float
    residual: float
    accept_low: float
    accept_high: float
    verdict: str


def judge(result: Fit) -> tuple[Judged, ...]:
    """Judge every observation; grades also together, in a last row `all_grades`.

    The grades pass together if at least nine in ten are exact and none is off by more than one.
    """
    run = result.simulation()
    rows = tuple(_judged(o, run, result.problem) for o in result.problem.patient.observations)
    grades = [row for row in rows if row.kind == "grade"]
    return (*rows, _together(grades)) if grades else rows


def judged_table(result: Fit) -> pd.DataFrame:
    """`judge` as a table, one row per observation."""
    return pd.DataFrame([vars(row) for row in judge(result)])


def _judged(observation: Observation, run: Simulation, problem: FitProblem) -> Judged:
    fitted = predicted(observation, run)
    low, high = accepted(observation, problem)
    verdict = "pass" if low <= fitted <= high else "miss"
    if verdict == "miss" and observation.kind == "grade" and _off_by(fitted, observation) <= 1:
        verdict = "near"
    return Judged(
        observation.id,
        observation.observable,
        observation.kind,
        when(observation),
        observation.value,
        observation.value_unit,
        fitted,
        residual(observation, run, problem.noise),
        low,
        high,
        verdict,
    )


def accepted(observation: Observation, problem: FitProblem) -> tuple[float, float]:
    """Lowest and highest fitted value that pass, in the observable's unit."""
    value = observation.value
    if observation.id in problem.accept:
        return problem.accept[observation.id]
    if observation.kind == "grade":
        return value, value
    if observation.kind in BOUNDS:
        return (-math.inf, value) if observation.kind.endswith("below") else (value, math.inf)
    spread = math.exp(NORMAL_95 * problem.noise.sd(observation))
    return value / spread, value * spread


def when(observation: Observation) -> str:
    """The day or days of an observation in words.

    >>> nan = math.nan
    >>> when(Observation("a", "psa", "sometime", 20.0, 21.0, nan, 0.29, "ng/mL"))
    'once in days 20 to 21'
    """
    first, last = f"{round(observation.day, 6):g}", f"{round(observation.until, 6):g}"
    if observation.kind in RATIOS:
        return f"day {first} over day {observation.reference:g}"
    if observation.kind == "peak":
        return f"peak of days {first} to {last}"
    if observation.kind == "sometime":
        return f"once in days {first} to {last}"
    return f"day {first}"


def _off_by(fitted: float, observation: Observation) -> float:
    return abs(fitted - observation.value)


def _together(grades: list[Judged]) -> Judged:
    share = sum(row.fitted == row.observed for row in grades) / len(grades)
    worst = max(abs(row.fitted - row.observed) for row in grades)
    good = share >= EXACT_SHARE and worst <= 1
    return Judged(
        GRADE_RULE,
        grades[0].observable,
        "share exact",
        f"{len(grades)} days",
        1.0,
        "1",
        share,
        math.nan,
        EXACT_SHARE,
        1.0,
        "pass" if good else "miss",
    )


SAME_OPTIMUM, NEAR = 0.1, 1.0
"""Cost above the best within which a start has reached the optimum, and is near it."""
ILL_CONDITIONED = 1000.0
"""Condition number of the correlations regarded as severe in pharmacometrics."""


def agreeing(result: Fit, within: float = NEAR) -> int:
    """Number of starts that ended at most ``within`` above the best cost."""
    return sum(start.cost - result.cost <= within for start in result.starts)


def fit_warnings(result: Fit) -> tuple[str, ...]:
    """Warnings about the reliability of the estimates, the most serious first; may be empty.

    Examples
    --------
    ``concerns(best)`` is ``()``, or for instance
    ``("at a bound: d_psa (upper); standard errors are valid only away from bounds: widen the "
    "bound, or state why it is right",)``
    """
    checks = (_few_agreeing_starts, _not_converged, _not_identified, _at_bounds)
    return tuple(text for check in checks if (text := check(result)))


def agreement_text(result: Fit) -> str:
    """A sentence on how many starts reached the best cost."""
    return (
        f"{agreeing(result, SAME_OPTIMUM)} of {len(result.starts)} starts end within "
        f"{SAME_OPTIMUM:g} of the best cost, {agreeing(result)} within {NEAR:g}"
    )


def condition_text(result: Fit) -> str:
    """A sentence on the condition number of the correlations."""
    if result.singular:
        return "the covariance is singular"
    text = f"condition number of the correlations {result.condition:.3g}"
    if result.condition > ILL_CONDITIONED:
        text += f" (above {ILL_CONDITIONED:g}: some parameters can hardly be distinguished)"
    return text


def _few_agreeing_starts(result: Fit) -> str:
    if len(result.starts) == 1:
        return (
            "only one start was made, so this may be a local optimum; fit again with more "
            "(--starts 8)"
        )
    count = agreeing(result)
    if count >= 2:
        return ""
    reached = "none" if count == 0 else "only one"
    return (
        f"{reached} of the {len(result.starts)} starts came within {NEAR:g} of the best cost, so "
        f"there may be a better optimum; fit again with more (--starts {4 * len(result.starts)})"
    )


def _not_converged(result: Fit) -> str:
    if result.polish.converged:
        return ""
    return f"the final optimisation stopped before it had converged: {result.polish.status}"


def _not_identified(result: Fit) -> str:
    if not result.singular:
        return ""
    loose = [e.parameter for e in result.estimates if e.carried_by_prior]
    names = f" ({', '.join(loose)})" if loose else ""
    return (
        "the covariance is singular: neither observations nor priors identify some parameters"
        f"{names}; give them a narrower prior, or fix them"
    )


def _at_bounds(result: Fit) -> str:
    where = {f.name: f for f in result.problem.free}
    at = [
        f"{e.parameter} ({'upper' if e.estimate**2 > f.lower * f.upper else 'lower'})"
        for e in result.estimates
        if e.at_bound and (f := where[e.parameter])
    ]
    if not at:
        return ""
    return (
        f"at a bound: {', '.join(at)}; standard errors are valid only away from bounds: widen "
        "the bound, or state why it is right"
    )


def residual_slices(result: Fit) -> list[slice]:
    """Slices of the residual vector, one per observation."""
    sizes = [1 + (o.kind == "sometime") for o in result.problem.patient.observations]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def signed_norm(residuals: Array) -> float:
    """The norm of an observation's residuals with the sign of the first."""
    return float(np.copysign(np.linalg.norm(residuals), residuals[0]))
