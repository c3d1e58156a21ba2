"""Endpoints of a run, one number each: peaks, areas, days above a level, worst grade.

A run is anything with ``days`` and curves by name: a `crs_sim.simulation.Simulation`, whose curves
are (n_days,) and give a number; or many side by side (`Members`), whose curves are (n_members,
n_days) and give (n_members,). Areas and durations interpolate linearly between samples; sample more
often for more accuracy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, unknown_name
from ..model import GRADE, Array, Model
from .ensemble import Ensemble

Value = Any
"""A float for one run; (n_members,) for many."""

VASOPRESSOR_GRADE = 3
"""ASTCT: from grade 3 on a vasopressor is needed (Lee 2019, doi:10.1016/j.bbmt.2018.12.758)."""


class Run(Protocol):
    """A run from which an endpoint is computed."""

    @property
    def days(self) -> Array:
        """Ascending, (n_days,)."""

    def __getitem__(self, name: str) -> Array:
        """The time course of a state or quantity, (..., n_days)."""


@dataclass(frozen=True, eq=False)
class Members:
    """The members of an ensemble under one of its scenarios, as a `Run`."""

    ensemble: Ensemble
    scenario: str

    @property
    def days(self) -> Array:
        """Ascending, (n_days,)."""
        return self.ensemble.days

    def __getitem__(self, name: str) -> Array:
        """The courses of an output, (n_members, n_days)."""
        return self.ensemble.course(name, self.scenario)


@dataclass(frozen=True)
class Endpoint:
    """A number computed from a run, with its name, label and unit for tables.

    Parameters
    ----------
    name : str, used in tables and searches
    label, unit : str
    needs : str, the state or quantity it is computed from
    of : callable of a `Run`
    log : bool, whether differences are reported as ratios

    Examples
    --------
    >>> Endpoint("peak_il6", "IL-6 peak", "pg/mL", "il6", lambda run: peak(run, "il6")).name
    'peak_il6'
    """

    name: str
    label: str
    unit: str
    needs: str
    of: Callable[[Run], Value] = field(repr=False)
    log: bool = False


def _window(run: Run, name: str, first: float, last: float) -> tuple[Array, Array]:
    rows = (run.days >= first) & (run.days <= last)
    if not rows.any():
        raise InputError(
            f"{name}: no sample between day {first:g} and {last:g}; the run covers "
            f"day {run.days[0]:g} to {run.days[-1]:g}"
        )
    return run.days[rows], run[name][..., rows]


def _scalar(values: Any) -> Value:
    """A float for a single run, else the array."""
    return values if np.ndim(values) else float(values)


def peak(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """The largest sampled value between two days (ends included), in the unit of ``name``."""
    return _scalar(_window(run, name, first, last)[1].max(axis=-1))


def day_of_peak(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """The first day of the largest sampled value."""
    days, values = _window(run, name, first, last)
    return _scalar(days[values.argmax(axis=-1)])


def auc(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """Area under the curve by the trapezoidal rule, in the unit of ``name`` times day."""
    days, values = _window(run, name, first, last)
    return _scalar(np.trapezoid(values, days, axis=-1))


def level_on(run: Run, name: str, day: float) -> Value:
    """The value on one day, interpolated linearly between samples.

    Raises
    ------
    InputError
        If the run does not cover the day.
    """
    if not run.days[0] <= day <= run.days[-1]:
        raise InputError(
            f"{name}: day {day:g} is outside the run, which covers day {run.days[0]:g} to "
            f"{run.days[-1]:g}"
        )
    after = max(1, int(np.searchsorted(run.days, day)))
    left, right = run.days[after - 1], run.days[after]
    share = (day - left) / (right - left)
    values = run[name]
    return _scalar((1.0 - share) * values[..., after - 1] + share * values[..., after])


def days_above(run: Run, name: str, level: float) -> Value:
    """Days at or above a level, with crossings interpolated linearly between samples.

    >>> from types import SimpleNamespace
    >>> class Course(SimpleNamespace):
    ...     def __getitem__(self, name): return self.values
    >>> tent = Course(days=np.array([0.0, 1.0, 2.0]), values=np.array([0.0, 2.0, 0.0]))
    >>> days_above(tent, "x", 1.0)
    1.0
    """
    height = run[name] - level
    left, right, width = height[..., :-1], height[..., 1:], np.diff(run.days)
    share = np.where((left >= 0) & (right >= 0), 1.0, 0.0)
    crosses = (left >= 0) != (right >= 0)
    upper, lower = np.maximum(left, right), np.minimum(left, right)
    share[crosses] = upper[crosses] / (upper - lower)[crosses]
    return _scalar(share @ width)


def worst_grade(run: Run) -> Value:
    """The highest CRS grade of the run."""
    worst = run[GRADE].max(axis=-1)
    return worst if np.ndim(worst) else int(worst)


def vasopressor_days(run: Run) -> Value:
    """Days at grade 3 or above: a sample's grade holds until the next sample."""
    needed = run[GRADE][..., :-1] >= VASOPRESSOR_GRADE
    return _scalar(needed @ np.diff(run.days))


def peak_of(model: Model, name: str) -> Endpoint:
    """The endpoint: peak of a state or quantity."""
    part = model[name]
    return Endpoint(f"peak_{name}", f"{part.label}: peak", part.unit, name,
                    partial(peak, name=name), log=True)  # fmt: skip


def day_of_peak_of(model: Model, name: str) -> Endpoint:
    """The endpoint: day of the peak of a state or quantity."""
    return Endpoint(f"day_of_peak_{name}", f"{model[name].label}: day of peak", "day", name,
                    partial(day_of_peak, name=name))  # fmt: skip


def auc_of(model: Model, name: str) -> Endpoint:
    """The endpoint: area under the curve of a state or quantity."""
    part = model[name]
    return Endpoint(f"auc_{name}", f"{part.label}: area under the curve", f"{part.unit} * day",
                    name, partial(auc, name=name), log=True)  # fmt: skip


def level_of(model: Model, name: str, day: float) -> Endpoint:
    """The endpoint: level of a state or quantity on a day."""
    part = model[name]
    return Endpoint(f"{name}_d{day:g}", f"{part.label} on day {day:g}", part.unit, name,
                    partial(level_on, name=name, day=day), log=True)  # fmt: skip


def grade_endpoints() -> tuple[Endpoint, ...]:
    """The endpoints computed from the grade: worst grade, and days that need a vasopressor."""
    return (
        Endpoint("worst_grade", "Worst CRS grade", "1", GRADE, worst_grade),
        Endpoint("vasopressor_days", f"Days at grade {VASOPRESSOR_GRADE} or more (vasopressor)",
                 "day", GRADE, vasopressor_days),
    )  # fmt: skip


KINDS = {"peak": peak_of, "day_of_peak": day_of_peak_of, "auc": auc_of}
ON_A_DAY = re.compile(r"(\w+)_d(\d+(?:\.\d+)?)")


def endpoint(model: Model, name: str, until: float = math.inf) -> Endpoint:
    """The endpoint named worst_grade, vasopressor_days, peak_X, day_of_peak_X, auc_X or X_dDAY.

    ``until`` is the last day of the runs.

    Raises
    ------
    InputError
        If DAY is after the end of the runs.
    UnknownNameError
        If X is neither a state nor a quantity of the model, or there is no such endpoint; names
        the closest match.

    Examples
    --------
    >>> from crs_sim import load_model
    >>> endpoint(load_model("crs"), "psa_d30").label
    'PSA, serum on day 30'
    """
    available = model.course_ids
    single = {e.name: e for e in grade_endpoints()} if GRADE in available else {}
    if name in single:
        return single[name]
    on_day = ON_A_DAY.fullmatch(name)
    if on_day:
        of, day = _checked(on_day[1], available, name), float(on_day[2])
        if day > until:
            raise InputError(
                f"{name} is after the end of the runs on day {until:g}; extend the runs"
            )
        return level_of(model, of, day)
    for kind in sorted(KINDS, key=len, reverse=True):
        if name.startswith(f"{kind}_"):
            return KINDS[kind](model, _checked(name.removeprefix(f"{kind}_"), available, name))
    all_of = [f"{kind}_{x}" for kind in KINDS for x in available]
    all_of += [f"{x}_d30" for x in available]
    raise unknown_name("endpoint", name, [*single, *all_of])


def _checked(part: str, available: tuple[str, ...], name: str) -> str:
    if part not in available:
        raise unknown_name(f"state or quantity (of endpoint {name})", part, available)
    return part
