"""Compare each observation with its fitted value, and judge it as pass or miss.

The acceptance range is set before the fit (``[accept]`` in problem.toml); by default it is the 95 %
error interval of the reading, or for a censored reading its limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from .fitting import Fit
from .noise import BOUNDS, NORMAL_95, RATIOS, predicted, residual
from .patient import Observation
from .problem import FitProblem
from .simulation import Simulation

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
    first, last = f"{observation.day:g}", f"{observation.until:g}"
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
