"""A scenario split into segments at every event time, so that no solver step crosses an event.

Within a segment parameters and infusion rates are constant. Events at the same time are applied in
this order: infusions stop, parameters change, samples are taken, states are reset, steady states
are set, boluses are given, infusions start. A sample at a dose time is therefore taken before the
dose; one on the day `just_after` it, after the dose. A change applies from its first day up to, but
not including, its last.

The clock of a timeline includes steady-state run-ins, so it may be ahead of the days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from ..errors import InputError, unknown_name
from ..model import Array, Indices, Model, plain_number
from .doses import Dose, Input, timing_parameters
from .event_times import (
    BEFORE,
    ONWARD,
    SAME_TIME,
    DosingEvents,
    Edges,
    Row,
    SegmentBuilder,
    build_segments,
    dosing_events,
)
from .scenario import Change, Scenario

NEARLY = 1e-13
"""Times max(1, day): a step ending this close to a segment's end ends there, as in the kernel."""


@dataclass(frozen=True)
class DoseTable:
    """The doses of a timeline as columns, one row per dose or part of a dose.

    Amounts are per unit bioavailability and body weight, so that they apply to all parameter
    values. ``first`` is the segment that begins with the dose (the number of segments if it is
    given on the last day); ``after`` the first segment without it, equal to ``first`` for a bolus;
    ``duration`` in days, ``share`` the index of the bioavailability parameter or -1, ``version``
    the set of parameter changes in force when it was ordered.
    """

    first: Indices
    after: Indices
    state: Indices
    amount: Array
    duration: Array
    share: Indices
    weight_power: Array
    version: Indices


@dataclass(frozen=True)
class Timeline:
    """A scenario split into segments; segment k runs from ``edges[k]`` to ``edges[k + 1]``.

    Parameters
    ----------
    edges : (n_segments + 1,) on the clock, ascending; the first is 0, the last the last sample
    days : (n_days,) sample times on the clock, snapped to equal edges
    given : the doses
    weight : index of the body weight parameter, -1 if the model has none
    versions : sets of simultaneous changes, each as (parameter index, change) pairs
    version : (n_segments + 2,) the version before day 0, in each segment, and at the last edge
    version_at : (n_days,) the version at each sample
    marks : (2, n_segments) flags of what each begins with, and the segment to repeat from after it
        until steady state, or `ONWARD`
    day : (n_segments + 1,) the day of each edge
    moving : indices of the parameters that determine the edges
    cut_at : (n_moving,) their values in this timeline
    source : Source, to rebuild it for other values
    """

    edges: Array
    days: Array
    given: DoseTable
    weight: int
    versions: tuple[tuple[tuple[int, Change], ...], ...]
    version: Indices
    version_at: Indices
    marks: Indices
    day: Array
    moving: Indices
    cut_at: Array
    source: Source | None = None

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return len(self.edges) - 1

    def sampled(self, days: Array) -> Timeline:
        """The same timeline with other sample times, on the clock."""
        version_at = self.version[np.searchsorted(self.edges, days, side="right")]
        return replace(self, days=days, version_at=version_at, source=None)

    def day_at(self, clock: float) -> float:
        """The day at a clock time."""
        return float(np.interp(clock, self.edges, self.day))

    def at(self, values: Array) -> Timeline:
        """The timeline for parameter values (n_parameters,): itself, if no dose time changes.

        Raises
        ------
        InputError
            For a lag or a duration below 0.
        """
        timing = values[self.moving]
        if np.array_equal(timing, self.cut_at):
            return self
        if self.source is None:
            raise InputError("a timeline with other samples cannot change lag, duration or rate")
        model, scenario, days = self.source.model, self.source.scenario, self.source.days
        names = [model.parameter_ids[k] for k in self.moving]
        moved = model.with_values(**dict(zip(names, map(float, timing), strict=True)))
        return build_timeline(moved, scenario, days)[0]

    def onward(self, day: float) -> Timeline:
        """The rest of the timeline from a day on, for states before the doses of that day.

        Only for a timeline without steady states and without timing parameters.
        """
        k = max(0, int(np.searchsorted(self.edges, day + SAME_TIME)) - 1)
        inside = day - self.edges[k] > SAME_TIME  # the doses at the start of segment k were given
        bolus = self.given.first == self.given.after
        rows = (self.given.after > k) | (bolus & (self.given.after == k) & (not inside))
        columns = {f.name: getattr(self.given, f.name)[rows] for f in fields(DoseTable)}
        first, after = columns["first"], columns["after"]
        given = DoseTable(**{**columns, "first": np.maximum(first - k, 0), "after": after - k})
        edges, marks, days = self.edges[k:].copy(), self.marks[:, k:].copy(), self.day[k:].copy()
        version = self.version[k:].copy()
        if inside:
            edges[0], days[0], marks[0, 0], version[0] = day, day, 0, version[1]
        rest = replace(self, edges=edges, given=given, marks=marks, day=days, version=version)
        return rest.sampled(self.days[self.days > day + SAME_TIME])

    def carried(self, steps: Array, other: Timeline) -> Array | None:
        """Solver steps for this timeline, rescaled to the segments of another.

        None if the segments do not correspond: the doses are in another order.
        """
        if self.marks.shape != other.marks.shape or (self.marks != other.marks).any():
            return None
        scale = np.diff(other.edges) / np.diff(self.edges)
        carried, used, k = steps.copy(), 0, 0
        while k < self.n_segments:
            day, last = self.edges[k], self.edges[k + 1]
            while day < last and used < len(steps):
                h = steps[used]
                carried[used] *= scale[k]
                end = day + h
                day = end if last - end > 1e-9 * h + NEARLY * max(1.0, day) else last
                used += 1
            back = int(self.marks[1, k])
            if back == ONWARD:
                k += 1
            elif used < len(steps) and steps[used] > 0:
                k = back
            else:
                used, k = used + 1, k + 1  # a step of length 0 marks steady state
        return carried


@dataclass(frozen=True)
class Source:
    """What a timeline was built from; ``days`` (n_days,) are days, not clock times."""

    model: Model
    scenario: Scenario
    days: Array


@dataclass(frozen=True)
class InputTables:
    """The inputs of a timeline for given parameter values.

    ``parameters`` (n_versions, n_parameters); ``bolus`` and ``inflow`` (n_segments, n_states):
    amounts given as each segment begins, and per day from running infusions.
    """

    parameters: Array
    bolus: Array
    inflow: Array


def build_timeline(
    model: Model, scenario: Scenario, days: Array
) -> tuple[Timeline, tuple[Input, ...]]:
    """Split a scenario into segments; also return its dose inputs.

    Parameters
    ----------
    model : Model, with the patient's values
    scenario : Scenario
    days : (n_days,), strictly ascending, not before 0

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For days that do not ascend, unresolved triggers or holds, a dose before day 0, an unknown
        drug, unit or parameter.
    """
    check_days(days)
    scenario.check_decided()
    found = dosing_events(model, scenario, float(days[-1]))
    times = [t for i in found.inputs for t in (i.start, i.stop)]
    times += [t for c in scenario.changes if c.factor != 1.0 for t in (c.first, c.last)]
    times += [*found.resets, *(r.day for r in found.run_ins)]
    edges = Edges.of(times, float(days[-1]))
    parameter = {name: k for k, name in enumerate(model.parameter_ids)}
    versions, version = _versions(scenario, edges, parameter)
    path = build_segments(edges, found)
    kinds = {
        (d.drug, d.hours is None, d.rate is None, d.modelled, d.constant): d for d in scenario.doses
    }
    moving = sorted({parameter[n] for d in kinds.values() for n in timing_parameters(model, d)})
    line = Timeline(
        edges=np.array(path.clock),
        days=path.on_clock(days),
        given=_given(model, found, path, parameter, version),
        weight=parameter.get("weight", -1),
        versions=versions,
        version=np.array([version[0], *(version[k + 1] for k in path.real), version[-1]]),
        version_at=np.zeros(0, dtype=np.int64),
        marks=np.array([path.begins, path.back], dtype=np.int64).reshape(2, -1),
        day=np.array([*(edges.days[k] for k in path.real), edges.days[-1]]),
        moving=np.array(moving, dtype=np.int64),
        cut_at=np.array([model.parameters[k].value for k in moving]),
    )
    return replace(line.sampled(line.days), source=Source(model, scenario, days)), found.inputs


def empty_timeline(first: float, last: float, longest: float = np.inf) -> Timeline:
    """A timeline without doses, changes or samples, its edges at most ``longest`` days apart."""
    pieces = max(1, int(np.ceil((last - first) / longest)))
    edges = np.linspace(first, last, pieces + 1)
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    given = DoseTable(none, none, none, nothing, nothing, none, nothing, none)
    version = np.zeros(pieces + 2, dtype=np.int64)
    marks = np.array([[0], [ONWARD]], dtype=np.int64).repeat(pieces, axis=1)
    return Timeline(edges, nothing, given, -1, ((),), version, none, marks, edges, none, nothing)


def check_days(days: Array) -> None:
    """Check the sample days of a run.

    Raises
    ------
    InputError
        If there are none, one is not finite or before day 0, or they are not strictly ascending.
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
    model: Model,
    found: DosingEvents,
    path: SegmentBuilder,
    parameter: dict[str, int],
    version: list[int],
) -> DoseTable:
    rows = [*_rows(found.inputs, path), *path.rows]
    state = {name: k for k, name in enumerate(model.state_ids)}
    units: dict[tuple[str, str, bool], tuple[float, int, int, int]] = {}
    columns: list[tuple[float, ...]] = []
    ordered = [r.dose.day if r.dose.ordered is None else r.dose.ordered for r in rows]
    holds = path.edges.holding(np.array(ordered, dtype=float))
    for row, at in zip(rows, holds, strict=True):
        dose = row.dose
        kind = (dose.drug, dose.unit, dose.constant)
        if kind not in units:
            into = state[model.drug(dose.drug).into]
            units[kind] = (*_conversion(model, dose, parameter), into)
        factor, power, share, into = units[kind]
        columns.append((row.first, row.after, into, row.amount * factor, row.duration, share,
                        power, version[int(at) + 1]))  # fmt: skip
    table = np.ascontiguousarray(np.array(columns, dtype=float).reshape(-1, 8).T)
    first, after, into, share, changes = table[[0, 1, 2, 5, 7]].astype(np.int64)
    amount, duration, power = table[[3, 4, 6]]
    return DoseTable(first, after, into, amount, duration, share, power, changes)


def _rows(inputs: tuple[Input, ...], path: SegmentBuilder) -> Iterator[Row]:
    """The rows of the inputs; an infusion is split at steady-state run-ins."""
    edges = path.edges
    starts, stops = edges.snap(i.start for i in inputs), edges.snap(i.stop for i in inputs)
    for item, start, stop, first, after in zip(
        inputs, starts, stops, edges.indices(starts), edges.indices(stops), strict=True
    ):
        amount = item.dose.amount
        if first >= after or first == path.n_real:
            if item.length <= SAME_TIME or item.stop - item.start >= item.length - SAME_TIME:
                segment = path.at(int(first))
                yield Row(item.dose, segment, segment, amount, 0.0)
            continue
        whole = abs(item.stop - item.start - item.length) <= SAME_TIME
        duration = stop - start if whole else item.length
        for begin, end in path.spans(int(first), int(min(after, path.n_real))):
            yield Row(item.dose, begin, end, amount, duration)


def _conversion(model: Model, dose: Dose, parameter: dict[str, int]) -> tuple[float, int, int]:
    """Factor into the drug's unit, power of body weight, index of the bioavailability.

    Without bioavailability for a constant infusion: as in NONMEM, a bioavailable fraction shortens
    an infusion of given rate and does not reduce its rate.
    """
    drug = model.drug(dose.drug)
    where = f"dose of {drug.name} on day {dose.day:g}"
    factor, power = drug.conversion(dose.unit, where)
    name = drug.bioavailability
    if not name or (dose.constant and plain_number(model[name].unit, model.units)):
        return factor, power, -1
    return factor, power, parameter[name]


def _versions(
    scenario: Scenario, edges: Edges, parameter: dict[str, int]
) -> tuple[tuple[tuple[tuple[int, Change], ...], ...], list[int]]:
    """The distinct sets of changes; the set before day 0, in each segment, and at the end."""
    spans = []
    for change in scenario.changes:
        if change.parameter not in parameter:
            where = f"{scenario.name}: change from day {change.first:g}"
            raise unknown_name("parameter", change.parameter, parameter, where)
        if change.factor == 1.0:  # no effect: without an edge, results stay equal to the last digit
            continue
        first, last = edges.indices(np.array([change.first, change.last]))
        span = range(int(first), int(last))
        spans.append((span, (parameter[change.parameter], change)))
    found: dict[tuple[tuple[int, Change], ...], int] = {}
    holds = []
    for segment in range(BEFORE, len(edges.days)):
        together = tuple(change for span, change in spans if segment in span)
        holds.append(found.setdefault(together, len(found)))
    return tuple(found), holds


def input_tables(line: Timeline, nominal: Array, n_states: int) -> InputTables:
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
    return InputTables(parameter_versions(line, nominal), bolus, inflow)


def amounts(line: Timeline, nominal: Array) -> Array:
    """The bioavailable amount of each dose, in the unit of the state it enters.

    ``nominal`` (..., n_parameters) gives (..., n_inputs), one row per set of values.
    """
    given = line.given
    table = parameter_versions(line, nominal)
    amount = np.broadcast_to(given.amount, (*nominal.shape[:-1], len(given.amount)))
    if (given.share >= 0).any():
        share = table[..., given.version, given.share]
        amount = amount * np.where(given.share >= 0, share, 1.0)
    if (given.weight_power != 0).any():
        amount = amount * table[..., given.version, line.weight] ** given.weight_power
    return np.ascontiguousarray(amount, dtype=float)


def parameter_versions(line: Timeline, nominal: Array) -> Array:
    """Parameter values under each set of changes, applied in the order written.

    ``nominal`` (..., n_parameters) gives (..., n_versions, n_parameters).
    """
    table = np.repeat(nominal[..., None, :], len(line.versions), axis=-2)
    for row, version in enumerate(line.versions):
        for k, change in version:
            table[..., row, k] = change.apply(table[..., row, k])
    return table


def parameters_at_samples(line: Timeline, nominal: Array) -> Array:
    """Parameter values at each sample: (n_days, n_parameters); (n_parameters,) if all constant."""
    if len(line.versions) == 1:
        return np.asarray(parameter_versions(line, nominal)[0], dtype=float)
    return np.asarray(parameter_versions(line, nominal)[line.version_at], dtype=float)
