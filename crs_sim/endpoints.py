"""A `Simulation` to one number: peaks, areas, days above a level, worst grade.

Areas and durations take the course as straight lines between samples; sample more often for more
accuracy.
"""

from __future__ import annotations

import math

import numpy as np

from .errors import InputError
from .simulation import Array, Simulation

VASOPRESSOR_GRADE = 3
"""ASTCT: from grade 3 on a vasopressor is needed (Lee 2019, doi:10.1016/j.bbmt.2018.12.758)."""


def _window(sim: Simulation, name: str, first: float, last: float) -> tuple[Array, Array]:
    rows = (sim.days >= first) & (sim.days <= last)
    if not rows.any():
        raise InputError(
            f"{name}: no sample between day {first:g} and {last:g}; the run covers "
            f"day {sim.days[0]:g} to {sim.days[-1]:g}"
        )
    return sim.days[rows], sim[name][rows]


def peak(sim: Simulation, name: str, first: float = -math.inf, last: float = math.inf) -> float:
    """The largest sampled value between two days (ends included), in the unit of ``name``."""
    return float(_window(sim, name, first, last)[1].max())


def day_of_peak(
    sim: Simulation, name: str, first: float = -math.inf, last: float = math.inf
) -> float:
    """The first day on which the largest sampled value is taken."""
    days, values = _window(sim, name, first, last)
    return float(days[values.argmax()])


def auc(sim: Simulation, name: str, first: float = -math.inf, last: float = math.inf) -> float:
    """Area under the curve by trapezia, in the unit of ``name`` times day."""
    days, values = _window(sim, name, first, last)
    return float(np.trapezoid(values, days))


def days_above(sim: Simulation, name: str, level: float) -> float:
    """Days the course spends at or above a level, crossings found on the straight lines between.

    >>> from types import SimpleNamespace
    >>> class Course(SimpleNamespace):
    ...     def __getitem__(self, name): return self.values
    >>> tent = Course(days=np.array([0.0, 1.0, 2.0]), values=np.array([0.0, 2.0, 0.0]))
    >>> days_above(tent, "x", 1.0)
    1.0
    """
    height = sim[name] - level
    left, right, width = height[:-1], height[1:], np.diff(sim.days)
    share = np.where((left >= 0) & (right >= 0), 1.0, 0.0)
    crosses = (left >= 0) != (right >= 0)
    upper, lower = np.maximum(left, right), np.minimum(left, right)
    share[crosses] = upper[crosses] / (upper - lower)[crosses]
    return float(width @ share)


def worst_grade(sim: Simulation) -> int:
    """The highest CRS grade of the run."""
    return int(sim["crs_grade"].max())


def vasopressor_days(sim: Simulation) -> float:
    """Days at grade 3 or above: a sample's grade holds until the next sample."""
    needed = sim["crs_grade"][:-1] >= VASOPRESSOR_GRADE
    return float(np.diff(sim.days) @ needed)
