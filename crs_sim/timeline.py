"""A scenario cut at every instant at which something happens, so that no solver steps across it.

Between two neighbouring edges nothing starts, stops or changes: parameters and inflow are
constant. At one instant things happen in this order: an infusion stops, parameters change, the
patient is observed, a bolus is given, an infusion starts. A sample at a dose time is therefore
taken before the dose, and a change holds from its first day up to, not including, its last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dosing import Input, expand
from .errors import InputError, unknown_name
from .model import Model
from .scenario import Change, Scenario
from .units import conversion_factor

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SAME_TIME = 1e-9
"""Days (a tenth of a millisecond) within which two times are one: 0.1 + 0.2 is 0.3."""
BEFORE = -1
"""The stretch before day 0, which decides the initial values."""


@dataclass(frozen=True)
class Given:
    """The doses of a timeline as columns, one row a dose.

    Amounts are per unit bioavailability and body weight, so that they serve all parameter values.
    ``first`` is the segment that begins with the dose (the number of segments if it is given on
    the last day); ``after`` the first segment without it, equal to ``first`` for a bolus;
    ``duration`` in days, ``share`` the index of the bioavailability parameter or -1.
    """

    first: Indices
    after: Indices
    state: Indices
    amount: Array
    duration: Array
    share: Indices
    weight_power: Array


@dataclass(frozen=True)
class Timeline:
    """A scenario cut into segments; segment k runs from ``edges[k]`` to ``edges[k + 1]``.

    Parameters
    ----------
    edges : (n_segments + 1,) days; the first is 0, the last the last sample
    days : (n_days,) sample days, moved onto an edge where they are the same time
    given : the doses
    weight : index of the body weight parameter, -1 if the model has none
    versions : sets of changes that hold together, each as (parameter index, change) pairs
    version : (n_segments + 1,) the version that holds before day 0, then in each segment
    version_at : (n_days,) the version that holds at each sample
    """

    edges: Array
    days: Array
    given: Given
    weight: int
    versions: tuple[tuple[tuple[int, Change], ...], ...]
    version: Indices
    version_at: Indices

    @property
    def n_segments(self) -> int:
        """Stretches between edges."""
        return len(self.edges) - 1


@dataclass(frozen=True)
class Course:
    """A timeline under given parameter values, as plain tables.

    Parameters
    ----------
    parameters : (n_versions, n_parameters)
    bolus : (n_segments, n_states) amounts given as each segment begins
    inflow : (n_segments, n_states) amounts per day from running infusions
    """

    parameters: Array
    bolus: Array
    inflow: Array


@dataclass(frozen=True)
class Edges:
    """The distinct instants of a run, and where a given time lies among them."""

    days: list[float]

    @classmethod
    def of(cls, times: Iterable[float], last: float) -> Edges:
        """The distinct times in [0, last], both ends among them."""
        kept = [0.0]
        for time in sorted(times):
            if kept[-1] + SAME_TIME < time < last - SAME_TIME:
                kept.append(time)
        if last > kept[-1]:
            kept.append(last)
        return cls(kept)

    def index(self, time: float) -> int:
        """The edge at this time; -1 before the first, one past the end after the last."""
        return bisect_left(self.days, time - SAME_TIME) if time >= -SAME_TIME else BEFORE

    def snapped(self, time: float) -> float:
        """The edge that is the same time, or the time itself."""
        k = bisect_left(self.days, time - SAME_TIME)
        same = k < len(self.days) and abs(self.days[k] - time) <= SAME_TIME
        return self.days[k] if same else time


def timeline(model: Model, scenario: Scenario, days: Array) -> tuple[Timeline, tuple[Input, ...]]:
    """The scenario cut into segments, and the doses that were given.

    Parameters
    ----------
    model : Model, with the patient's values
    scenario : Scenario
    days : (n_days,), strictly ascending, not before 0

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For days that do not ascend, a dose before day 0, an unknown drug, unit or parameter.
    """
    check_days(days)
    inputs = tuple(i for i in expand(model, scenario.doses) if i.start <= days[-1] + SAME_TIME)
    for item in inputs:
        if item.start < 0:
            raise InputError(
                f"dose of {item.drug} on day {item.start:g}: the run starts on day 0; "
                "move the dose, or the day 0 of the patient"
            )
    times = [t for i in inputs for t in (i.start, i.stop)]
    times += [t for c in scenario.changes for t in (c.first, c.last)]
    edges = Edges.of(times, float(days[-1]))
    moved = np.array([edges.snapped(day) for day in days.tolist()])
    parameter = {name: k for k, name in enumerate(model.parameter_ids)}
    weight = parameter.get("weight", -1)
    versions, version = _versions(scenario, edges, parameter)
    at = np.searchsorted(edges.days, moved, side="right")
    line = Timeline(
        edges=np.array(edges.days),
        days=moved,
        given=_given(model, inputs, edges, parameter),
        weight=weight,
        versions=versions,
        version=np.array(version[:-1]),
        version_at=np.array(version)[at],
    )
    return line, inputs


def check_days(days: Array) -> None:
    """Refuse sample days that cannot be run.

    Raises
    ------
    InputError
        If there are none, one is not finite or before day 0, or they do not ascend.
    """
    if len(days) == 0 or not np.all(np.isfinite(days)):
        raise InputError("days: give at least one sample day, all of them finite numbers")
    if days[0] < 0:
        raise InputError(f"days: the first is {days[0]:g}; a run starts on day 0")
    late = np.flatnonzero(np.diff(days) <= 0)
    if len(late):
        k = int(late[0])
        raise InputError(f"days: {days[k + 1]:g} follows {days[k]:g}; give them in ascending order")


def _given(
    model: Model, inputs: tuple[Input, ...], edges: Edges, parameter: dict[str, int]
) -> Given:
    state = {name: k for k, name in enumerate(model.state_ids)}
    rows = []
    for item in inputs:
        drug = model.drug(item.dose.drug)
        where = f"dose of {drug.name} on day {item.start:g}"
        factor, power = conversion_factor(item.dose.unit or drug.unit, drug.unit, where)
        start, stop = edges.snapped(item.start), edges.snapped(item.stop)
        first, after = edges.index(start), edges.index(stop)
        duration = stop - start if after > first else 0.0
        share = parameter[drug.bioavailability] if drug.bioavailability else -1
        amount = item.dose.amount * factor
        rows.append((first, after, state[item.state], amount, duration, share, power))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    first_, after_, state_, amount_, duration_, share_, power_ = columns
    return Given(
        first=np.array(first_, dtype=np.int64),
        after=np.array(after_, dtype=np.int64),
        state=np.array(state_, dtype=np.int64),
        amount=np.array(amount_, dtype=np.float64),
        duration=np.array(duration_, dtype=np.float64),
        share=np.array(share_, dtype=np.int64),
        weight_power=np.array(power_, dtype=np.float64),
    )


def _versions(
    scenario: Scenario, edges: Edges, parameter: dict[str, int]
) -> tuple[tuple[tuple[tuple[int, Change], ...], ...], list[int]]:
    """The distinct sets of changes; which holds before day 0, in each segment, and at the end."""
    spans = []
    for change in scenario.changes:
        if change.parameter not in parameter:
            where = f"{scenario.name}: change from day {change.first:g}"
            raise unknown_name("parameter", change.parameter, parameter, where)
        span = range(edges.index(change.first), edges.index(change.last))
        spans.append((span, (parameter[change.parameter], change)))
    found: dict[tuple[tuple[int, Change], ...], int] = {}
    holds = []
    for segment in range(BEFORE, len(edges.days)):
        together = tuple(change for span, change in spans if segment in span)
        holds.append(found.setdefault(together, len(found)))
    return tuple(found), holds


def course(line: Timeline, nominal: Array, n_states: int) -> Course:
    """The timeline's tables for parameter values ``nominal`` (n_parameters,)."""
    given, amount = line.given, amounts(line, nominal)
    bolus = np.zeros((line.n_segments, n_states))
    inflow = np.zeros((line.n_segments, n_states))
    for k in range(len(amount)):
        first, after = given.first[k], given.after[k]
        if first == after and first < line.n_segments:
            bolus[first, given.state[k]] += amount[k]
        elif first < after:
            inflow[first:after, given.state[k]] += amount[k] / given.duration[k]
    return Course(parameter_versions(line, nominal), bolus, inflow)


def amounts(line: Timeline, nominal: Array) -> Array:
    """What arrives of each dose, (n_inputs,), in the unit of the state it enters."""
    given = line.given
    share = np.where(given.share >= 0, nominal[given.share], 1.0) if len(nominal) else 1.0
    heavy = given.weight_power != 0
    weight = nominal[line.weight] ** given.weight_power if heavy.any() else 1.0
    return np.asarray(given.amount * share * weight, dtype=float)


def parameter_versions(line: Timeline, nominal: Array) -> Array:
    """Parameters under each set of changes, (n_versions, n_parameters), in the order written."""
    table = np.tile(nominal, (len(line.versions), 1))
    for row, version in zip(table, line.versions, strict=True):
        for k, change in version:
            row[k] = change.apply(row[k])
    return table


def parameters_at_samples(line: Timeline, nominal: Array) -> Array:
    """Parameters at each sample: (n_days, n_parameters), or (n_parameters,) if none changes."""
    versions = parameter_versions(line, nominal)
    at_samples: Array = versions[0] if len(versions) == 1 else versions[line.version_at]
    return at_samples
