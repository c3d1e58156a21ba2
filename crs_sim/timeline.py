"""A scenario cut at every instant at which something happens, so that no solver steps across it.

Between two neighbouring edges nothing starts, stops or changes: parameters and inflow are
constant. At one instant things happen in this order: an infusion stops, parameters change, the
patient is observed, a bolus is given, an infusion starts. A sample at a dose time is therefore
taken before the dose, and a change holds from its first day up to, not including, its last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    version : (n_segments + 2,) the version before day 0, in each segment, and at the last edge
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

    def sampled(self, days: Array) -> Timeline:
        """The same timeline with other sample days."""
        at = np.searchsorted(self.edges, days, side="right")
        return replace(self, days=days, version_at=self.version[at])


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

    def indices(self, times: Array) -> Indices:
        """The edge at each time; -1 before the first, one past the end after the last."""
        found = np.searchsorted(self.days, times - SAME_TIME)
        return np.where(times < -SAME_TIME, BEFORE, found).astype(np.int64)

    def snap(self, times: Iterable[float]) -> Array:
        """Each time, or the edge that is the same time."""
        given = np.array(list(times), dtype=float)
        known = np.array(self.days)
        nearest = known[np.searchsorted(known, given - SAME_TIME).clip(max=len(known) - 1)]
        return np.where(np.abs(nearest - given) <= SAME_TIME, nearest, given)


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
    moved = edges.snap(days)
    parameter = {name: k for k, name in enumerate(model.parameter_ids)}
    weight = parameter.get("weight", -1)
    versions, version = _versions(scenario, edges, parameter)
    line = Timeline(
        edges=np.array(edges.days),
        days=moved,
        given=_given(model, inputs, edges, parameter),
        weight=weight,
        versions=versions,
        version=np.array(version),
        version_at=np.zeros(0, dtype=np.int64),
    )
    return line.sampled(moved), inputs


def stretch(first: float, last: float, longest: float = np.inf) -> Timeline:
    """A timeline with nothing in it but edges, at most ``longest`` days apart."""
    pieces = max(1, int(np.ceil((last - first) / longest)))
    edges = np.linspace(first, last, pieces + 1)
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    given = Given(none, none, none, nothing, nothing, none, nothing)
    version = np.zeros(pieces + 2, dtype=np.int64)
    return Timeline(edges, nothing, given, -1, ((),), version, none)


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
    units: dict[tuple[str, str], tuple[float, int, int]] = {}
    rows = []
    for item in inputs:
        kind = (item.dose.drug, item.dose.unit)
        if kind not in units:
            units[kind] = _conversion(model, item, parameter)
        factor, power, share = units[kind]
        rows.append((state[item.state], item.dose.amount * factor, share, power))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 4
    starts, stops = edges.snap([i.start for i in inputs]), edges.snap([i.stop for i in inputs])
    first, after = edges.indices(starts), edges.indices(stops)
    return Given(
        first,
        after,
        np.array(columns[0], dtype=np.int64),
        np.array(columns[1], dtype=float),
        np.where(after > first, stops - starts, 0.0),
        np.array(columns[2], dtype=np.int64),
        np.array(columns[3], dtype=float),
    )


def _conversion(model: Model, item: Input, parameter: dict[str, int]) -> tuple[float, int, int]:
    """Factor into the drug's unit, power of body weight, index of the bioavailability."""
    drug = model.drug(item.dose.drug)
    where = f"dose of {drug.name} on day {item.start:g}"
    factor, power = conversion_factor(item.dose.unit or drug.unit, drug.unit, where)
    return factor, power, parameter[drug.bioavailability] if drug.bioavailability else -1


def _versions(
    scenario: Scenario, edges: Edges, parameter: dict[str, int]
) -> tuple[tuple[tuple[tuple[int, Change], ...], ...], list[int]]:
    """The distinct sets of changes; which holds before day 0, in each segment, and at the end."""
    spans = []
    for change in scenario.changes:
        if change.parameter not in parameter:
            where = f"{scenario.name}: change from day {change.first:g}"
            raise unknown_name("parameter", change.parameter, parameter, where)
        first, last = edges.indices(np.array([change.first, change.last]))
        span = range(int(first), int(last))
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
    """What arrives of each dose, in the unit of the state it enters.

    ``nominal`` (..., n_parameters) gives (..., n_inputs), one row for each set of values.
    """
    given = line.given
    amount = np.broadcast_to(given.amount, (*nominal.shape[:-1], len(given.amount)))
    if (given.share >= 0).any():
        amount = amount * np.where(given.share >= 0, nominal[..., given.share], 1.0)
    if (given.weight_power != 0).any():
        amount = amount * nominal[..., [line.weight]] ** given.weight_power
    return np.ascontiguousarray(amount, dtype=float)


def parameter_versions(line: Timeline, nominal: Array) -> Array:
    """Parameters under each set of changes, in the order written.

    ``nominal`` (..., n_parameters) gives (..., n_versions, n_parameters).
    """
    table = np.repeat(nominal[..., None, :], len(line.versions), axis=-2)
    for row, version in enumerate(line.versions):
        for k, change in version:
            table[..., row, k] = change.apply(table[..., row, k])
    return table


def parameters_at_samples(line: Timeline, nominal: Array) -> Array:
    """Parameters at each sample: (n_days, n_parameters), or (n_parameters,) if none changes."""
    if len(line.versions) == 1:
        return np.asarray(parameter_versions(line, nominal)[0], dtype=float)
    return np.asarray(parameter_versions(line, nominal)[line.version_at], dtype=float)
