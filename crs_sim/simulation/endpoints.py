"""Courses between samples, and one number from each: peaks, areas, days above a level.

The solver's steps are polynomials of degree 4 (`crs_sim.solver.Pieces`), and a dose or a change is
always between two of them: so both sides of every jump are seen, areas are integrals, peaks and
crossings lie between samples, and nothing depends on when a run was sampled. Quantities are
computed from the states at five points of each step. Where one is a step function of the states
(the CRS grade), the steps are cut at its thresholds first.

A run is anything with ``dense``, the `Course` of a name: one run gives a number, many side by side
(n_runs,). A run without it, known at ``days`` only, is taken to be linear between them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from ..dosing import Timeline, parameter_versions
from ..errors import InputError, unknown_name
from ..model import GRADE, Array, Indices, Model, evaluate, names, pretty
from ..solver import NODES, Course, Pieces, Runs, cuts, roots, values_at

Value = Any
"""A float for one run; (n_runs,) for many."""

VASOPRESSOR_GRADE = 3
"""ASTCT: from grade 3 on a vasopressor is needed (Lee 2019, doi:10.1016/j.bbmt.2018.12.758)."""


class Run(Protocol):
    """A run known at its samples; one known in between has ``dense`` too (see the module)."""

    @property
    def days(self) -> Array:
        """Ascending, (n_days,)."""

    def __getitem__(self, name: str) -> Array:
        """The time course of a state or quantity, (..., n_days)."""


def hill(x: Array, K: Array, n: Array) -> Array:
    """As `crs_sim.model.hill`, of arrays."""
    above = np.asarray(x > 0.0)
    ratio = np.where(above, x, 1.0) / K
    return np.asarray(np.where(above, 1.0 / (1.0 + ratio**-n), 0.0))


FORMULAS: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "ln": np.log, "sqrt": np.sqrt, "hill": hill,
}  # fmt: skip


class Levels(dict[str, Any]):
    """Levels by name at the points of some pieces, (5, n); computed when first asked for."""

    def __init__(self, dense: Dense, states: Array, rows: Indices | slice, reached: Any) -> None:
        """From states (n_watched, 5, n) there."""
        super().__init__(zip(dense.watched, states, strict=True))
        self.dense, self.rows, self.functions = dense, rows, {**FORMULAS, "reached": reached}

    def __missing__(self, name: str) -> Any:
        """A parameter, or a quantity."""
        if name in self.dense.model.values:
            value = self.dense.parameter(name, self.rows)
        else:
            with np.errstate(all="ignore"):
                value = evaluate(self.dense.formulas[name], self, self.functions)
        self[name] = value
        return value


@dataclass(frozen=True, eq=False)
class Dense:
    """Some runs in between their samples: what `Course`s are made of.

    Parameters
    ----------
    model : Model
    watched : names of the states that are known
    pieces : Pieces of all runs
    parameters : (n_runs, n_versions, n_parameters)
    version : (n_segments + 2,) the version before day 0, in each segment, and at the end
    several : bool, whether these are runs side by side; else one
    """

    model: Model
    watched: tuple[str, ...]
    pieces: Pieces
    parameters: Array
    version: Indices
    several: bool

    @classmethod
    def of(
        cls, model: Model, watched: Sequence[str], line: Timeline, pieces: Pieces, values: Array
    ) -> Dense:
        """Runs of one timeline with these values, (n_parameters,) or (n_runs, n_parameters)."""
        table = parameter_versions(line, np.atleast_2d(values))
        several = np.ndim(values) > 1
        return cls(model, tuple(watched), pieces, table, line.version, several)

    @classmethod
    def compiled(
        cls, model: Model, watched: Sequence[str], line: Timeline, runs: Runs, values: Array
    ) -> Dense:
        """Compiled runs side by side, with these values (n_runs, n_parameters)."""
        pieces = Pieces.compiled(line, runs.pieces)
        return cls.of(model, watched, line, pieces, values)

    @cached_property
    def formulas(self) -> dict[str, str]:
        """The formula of each quantity."""
        return {quantity.id: quantity.formula for quantity in self.model.quantities}

    @cached_property
    def _known(self) -> dict[str, Course]:
        return {}

    def dense(self, name: str) -> Course:
        """The courses of a state or quantity.

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        if name not in self._known:
            self._known[name] = self._course(name)
        return self._known[name]

    def _course(self, name: str) -> Course:
        pieces = self.pieces
        if name in self.watched:
            nodes = pieces.nodes[self.watched.index(name)]
            return Course(pieces.days, nodes, pieces.first, self.several)
        if name not in self.formulas:
            raise unknown_name("state or quantity", name, self.model.course_ids)
        shape, thresholds = pieces.nodes.shape[1:], list[tuple[Array, Array]]()

        def reached(x: Array, level: Array) -> Array:
            thresholds.append((x, level))
            return np.asarray(x >= level, dtype=float)

        values = Levels(self, pieces.nodes, slice(None), reached)[name]
        nodes = np.broadcast_to(np.asarray(values, dtype=float), shape)
        course = Course(pieces.days, nodes, pieces.first, self.several)
        return self._stepped(name, course, thresholds) if thresholds else course

    def _stepped(
        self, name: str, course: Course, thresholds: Sequence[tuple[Array, Array]]
    ) -> Course:
        """A quantity that steps where something crosses a threshold: its pieces cut there."""
        rows, low, high = cuts(*roots(thresholds, course.nodes.shape))
        shares = low + NODES[:, None] * (high - low)
        states = values_at(self.pieces.nodes[..., rows], shares)

        def reached(x: Array, level: Array) -> Array:
            above = np.broadcast_to(x - level, shares.shape)[2] >= 0.0
            return np.asarray(above, dtype=float)

        values = Levels(self, states, rows, reached)[name]
        parts = np.bincount(rows, minlength=course.days.shape[1])
        piece = np.repeat(np.arange(len(parts)), np.maximum(parts, 1))
        cut = np.flatnonzero(parts[piece])
        nodes, days = (np.take(a, piece, axis=1) for a in (course.nodes, course.days))
        nodes[:, cut] = values
        start, end = days[:, cut]
        days[:, cut] = start + np.array([low, high]) * (end - start)
        return Course(days, nodes, np.searchsorted(piece, course.first), self.several)

    def parameter(self, name: str, rows: Indices | slice) -> Array:
        """The value of a parameter in some pieces, (n,)."""
        column = self.parameters[:, :, self.model.parameter_ids.index(name)]
        if (column == column[0, 0]).all():
            return np.asarray(column[0, 0])
        version = self.version[self.pieces.segment[rows] + 1]
        return np.asarray(column[self._run[rows], version])

    @cached_property
    def _run(self) -> Indices:
        first = self.pieces.first
        counts = np.diff([*first, len(self.pieces.segment)])
        return np.repeat(np.arange(len(first)), counts)


def states_of(model: Model, wanted: Sequence[str]) -> tuple[str, ...]:
    """The states from which some states and quantities are computed, at least one."""
    formulas = {q.id: q.formula for q in model.quantities}
    found, waiting, seen = set[str](), list(wanted), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in model.state_ids:
            found.add(name)
        elif name in formulas:
            waiting += names(formulas[name])
    return tuple(n for n in model.state_ids if n in found) or model.state_ids[:1]


def course_of(run: Any, name: str, first: float = -math.inf, last: float = math.inf) -> Course:
    """The course of an output of a run between two days, cut exactly."""
    dense = getattr(run, "dense", None)
    course = dense(name) if dense is not None else Course.sampled(run.days, run[name])
    return course.within(name, first, last)


def _result(course: Course, values: Array) -> Value:
    """A float for a single run, else the array."""
    return values if course.several else float(values[0])


def peak(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """The largest value between two days, just after a dose included, in the unit of ``name``.

    Raises
    ------
    InputError
        If the run does not cover these days; so do the other functions.
    """
    course = course_of(run, name, first, last)
    return _result(course, course.peak()[0])


def day_of_peak(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """The first day of the largest value."""
    course = course_of(run, name, first, last)
    return _result(course, course.peak()[1])


def auc(run: Run, name: str, first: float = -math.inf, last: float = math.inf) -> Value:
    """Area under the curve between two days, in the unit of ``name`` times day."""
    course = course_of(run, name, first, last)
    return _result(course, course.area())


def level_on(run: Run, name: str, day: float) -> Value:
    """The value on one day, before the doses of that day.

    Raises
    ------
    InputError
        If the run does not cover the day.
    """
    course_of(run, name, day, day)
    course = course_of(run, name)
    return _result(course, course.at(day))


def days_above(run: Run, name: str, level: float) -> Value:
    """Days at or above a level.

    >>> from types import SimpleNamespace
    >>> class Table(SimpleNamespace):
    ...     def __getitem__(self, name): return self.values
    >>> tent = Table(days=np.array([0.0, 1.0, 2.0]), values=np.array([0.0, 2.0, 0.0]))
    >>> days_above(tent, "x", 1.0)
    1.0
    """
    if math.isnan(level):
        raise InputError(f"days above a level of {name}: the level is nan; give a number")
    course = course_of(run, name)
    return _result(course, course.time_above(level))


def worst_grade(run: Run) -> Value:
    """The highest CRS grade of the run."""
    worst = peak(run, GRADE)
    return worst if np.ndim(worst) else int(worst)


def vasopressor_days(run: Run) -> Value:
    """Days at grade 3 or above."""
    return days_above(run, GRADE, VASOPRESSOR_GRADE)


@dataclass(frozen=True)
class Endpoint:
    """A number computed from a run, with its name, label and unit for tables.

    Parameters
    ----------
    name : str, used in tables and searches
    label, unit : str
    needs : str, the state or quantity it is computed from
    of : callable of a run with ``dense`` (see the module); side by side, it gives (n_runs,)
    log : bool, whether differences are reported as ratios
    day : float, the only day on which the run is read, or None

    Examples
    --------
    >>> Endpoint("peak_il6", "IL-6 peak", "pg/mL", "il6", lambda run: peak(run, "il6")).name
    'peak_il6'
    """

    name: str
    label: str
    unit: str
    needs: str
    of: Callable[[Any], Value] = field(repr=False)
    log: bool = False
    day: float | None = None


def peak_of(model: Model, name: str) -> Endpoint:
    """The endpoint: peak of a state or quantity."""
    part = model[name]
    return Endpoint(f"peak_{name}", f"{part.label}: peak", pretty(part.unit), name,
                    partial(peak, name=name), log=True)  # fmt: skip


def day_of_peak_of(model: Model, name: str) -> Endpoint:
    """The endpoint: day of the peak of a state or quantity."""
    return Endpoint(f"day_of_peak_{name}", f"{model[name].label}: day of peak", "day", name,
                    partial(day_of_peak, name=name))  # fmt: skip


def auc_of(model: Model, name: str) -> Endpoint:
    """The endpoint: area under the curve of a state or quantity."""
    label, unit = f"{model[name].label}: area under the curve", f"{pretty(model[name].unit)} * day"
    return Endpoint(f"auc_{name}", label, unit, name, partial(auc, name=name), log=True)


def level_of(model: Model, name: str, day: float) -> Endpoint:
    """The endpoint: level of a state or quantity on a day."""
    part = model[name]
    return Endpoint(f"{name}_d{day:g}", f"{part.label} on day {day:g}", pretty(part.unit), name,
                    partial(level_on, name=name, day=day), log=True, day=day)  # fmt: skip


def grade_endpoints() -> tuple[Endpoint, ...]:
    """The endpoints computed from the grade: worst grade, and days that need a vasopressor."""
    return (
        Endpoint("worst_grade", "Worst CRS grade", "1", GRADE, worst_grade),
        Endpoint("vasopressor_days", f"Days at grade {VASOPRESSOR_GRADE} or more (vasopressor)",
                 "day", GRADE, vasopressor_days),
    )  # fmt: skip


KINDS = {"peak": peak_of, "day_of_peak": day_of_peak_of, "auc": auc_of}
ON_A_DAY = re.compile(r"(.+)_d(\d+(?:\.\d+)?)")


def kinds_of_endpoint(model: Model, name: str) -> tuple[Endpoint, ...]:
    """One endpoint of each kind of a state or quantity."""
    return (*(make(model, name) for make in KINDS.values()), level_of(model, name, 30.0))


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
        of, day = _checked(on_day[1], model, name), float(on_day[2])
        if day > until:
            raise InputError(
                f"{name} is after the end of the runs on day {until:g}; extend the runs"
            )
        return level_of(model, of, day)
    for kind in sorted(KINDS, key=len, reverse=True):
        if name.startswith(f"{kind}_"):
            return KINDS[kind](model, _checked(name.removeprefix(f"{kind}_"), model, name))
    all_of = [f"{kind}_{x}" for kind in KINDS for x in available]
    all_of += [f"{x}_d30" for x in available]
    raise unknown_name("endpoint", name, [*single, *all_of])


def _checked(part: str, model: Model, name: str) -> str:
    part = model.usual.understood("level", part, model.course_ids)
    if part not in model.course_ids:
        what = f"state or quantity (of endpoint {name})"
        raise model.usual.refuse("level", part, model.course_ids, words=what)
    return part
