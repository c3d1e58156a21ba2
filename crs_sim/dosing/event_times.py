"""When doses arrive, and the days of a run as its solver sees them.

Lags delay a dose, a reset ends what came before, and a steady state takes time of its own.

A reset cancels earlier doses: a running infusion stops, a dose in its lag time never arrives. A
steady state implies an endless series of earlier doses; those still running or in their lag time on
its day continue after it.

Models do not depend on time explicitly. So the doses that lead to a steady state are simulated in
extra segments before the day on which it holds, and the clock is then ahead of the days.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from ..model import Array, Indices, Model
from .doses import HOURS_PER_DAY, Dose, Input, Values, expand
from .scenario import Scenario

SAME_TIME = 1e-9
"""Days (a tenth of a millisecond) within which two times count as equal: 0.1 + 0.2 is 0.3."""
CONSTANT_CYCLE = 30.0
"""Days of a constant infusion between two tests for steady state."""
MAX_CONCURRENT = 1000
"""Maximum number of concurrent infusions of one steady state."""


@dataclass(frozen=True)
class SteadyStateRunIn:
    """Equal doses repeated until steady state, simulated before the day on which it holds.

    Parameters
    ----------
    day : float, when the steady state holds
    added : bool, whether it is added to the states of that day (SS = 2) or replaces them (SS = 1)
    dose : Dose
    cycle : float, dosing interval in days
    rest : float, days from the last arrival to ``day``
    running : int, number of infusions that run throughout the cycle
    part : float, days of the cycle during which one more infusion runs
    length : float, days of one infusion; 0 for a bolus
    """

    day: float
    added: bool
    dose: Dose
    cycle: float
    rest: float = 0.0
    running: int = 0
    part: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class DosingEvents:
    """Dosing events for the solver: inputs, resets (days), steady states, in the order written."""

    inputs: tuple[Input, ...]
    resets: tuple[float, ...]
    run_ins: tuple[SteadyStateRunIn, ...]


def parameters_by_day(model: Model, scenario: Scenario) -> Callable[[float], Values]:
    """A function of the day that returns the parameter values under the scenario's changes.

    Raises
    ------
    ModelError
        For a value of the scenario, or after a change, outside the parameter's bounds.
    """
    nominal = model.values
    model.refuse_outside(scenario.values, f"{scenario.name}:")
    for c in scenario.changes:
        if c.parameter in nominal:
            value = c.apply({**nominal, **scenario.values}[c.parameter])
            model.refuse_outside({c.parameter: value}, f"{scenario.name}: {c.describe()}:")

    def on(day: float) -> Values:
        changes = [
            c for c in scenario.changes
            if c.first <= day + SAME_TIME < c.last and c.parameter in nominal
        ]  # fmt: skip
        values = dict(nominal) if changes else nominal
        for change in changes:
            values[change.parameter] = change.apply(values[change.parameter])
        return values

    return on


def dosing_events(model: Model, scenario: Scenario, last: float) -> DosingEvents:
    """The dosing events up to the last day.

    Parameters
    ----------
    model : Model, with the patient's values
    scenario : Scenario
    last : float, day

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For a dose before day 0, an unknown drug or unit, a lag or duration below 0.
    """
    given = expand(model, scenario.doses, parameters_by_day(model, scenario))
    for item in given:
        if item.dose.day < 0:
            raise InputError(
                f"dose of {item.drug} on day {item.dose.day:g}: the run starts on day 0; "
                "move the dose, or day 0 of the patient"
            )
    run_ins = tuple(_run_in_of(item) for item in given if item.dose.steady)
    resets = {*scenario.resets, *(r.day for r in run_ins if not r.added)}
    with_tails = given
    if run_ins:
        with_tails = tuple(
            part for item in given if not item.dose.constant for part in (*_tails(item), item)
        )
    remaining = _after_resets(with_tails, sorted(resets)) if resets else with_tails
    kept = tuple(item for item in remaining if item.start <= last + SAME_TIME)
    return DosingEvents(kept, tuple(sorted(resets)), tuple(r for r in run_ins if r.day <= last))


def _run_in_of(item: Input) -> SteadyStateRunIn:
    """The run-in to the steady state that a dose specifies."""
    dose, added = item.dose, item.dose.steady == "added"
    if dose.constant:
        return SteadyStateRunIn(dose.day, added, dose, CONSTANT_CYCLE, running=1, length=1.0)
    cycle = dose.every / HOURS_PER_DAY
    running = _whole(item.length, cycle)
    if running > MAX_CONCURRENT:
        raise InputError(
            f"dose of {item.drug} on day {dose.day:g}: each infusion of its steady state lasts "
            f"{item.length:g} days, with a new one every {cycle:g}: {running} at the same time"
        )
    late = item.lag - _whole(item.lag, cycle) * cycle
    rest = cycle - late if late > SAME_TIME else 0.0
    part = item.length - running * cycle
    part = part if part > SAME_TIME else 0.0
    length = item.length if item.length > SAME_TIME else 0.0
    return SteadyStateRunIn(dose.day, added, dose, cycle, rest, running, part, length)


def _whole(time: float, cycle: float) -> int:
    """Number of whole cycles in a time."""
    return math.floor((time + SAME_TIME) / cycle)


def _tails(item: Input) -> Iterable[Input]:
    """The remainder after a steady state's day of the implied earlier doses."""
    day, cycle = item.dose.day, item.dose.every / HOURS_PER_DAY
    if not item.dose.steady:
        return
    for k in range(_whole(item.lag + item.length, cycle), 0, -1):
        start = item.start - k * cycle
        if day - SAME_TIME - item.dose.early <= start < day:  # the one that arrives on the day
            start = day
        earlier = replace(item, start=start, stop=start + item.length)
        if start >= day:
            yield earlier
        elif earlier.stop > day + SAME_TIME:
            yield earlier.between(day, earlier.stop)


def _after_resets(inputs: Iterable[Input], resets: list[float]) -> Iterable[Input]:
    """The inputs, without the parts cancelled by a later reset."""
    for item in inputs:
        ordered = item.dose.day if item.dose.ordered is None else item.dose.ordered
        later = (day for day in resets if day > ordered + SAME_TIME)
        reset = next(later, math.inf)
        if item.stop <= reset + SAME_TIME and item.start < reset - SAME_TIME:
            yield item
        elif item.start < reset - SAME_TIME:
            yield item.between(item.start, reset)


BEFORE = -1
"""Index of the time before day 0, whose parameters give the initial values."""
JOIN, APART, RESET, CYCLE = 1, 2, 4, 8
"""Flags of what a segment begins with, in this order: add the saved states; save the states and
reset; reset; begin a cycle of equal doses."""
SHORTEST = 1e-12
"""Minimum days between a dose on day 0 and a sample after it."""
ONWARD = -1
"""Continue with the next segment."""


def just_after(day: float) -> float:
    """A sample day just after the doses of a day: a fifth of a millisecond later.

    >>> just_after(3.0) - 3.0 < 1e-8
    True
    """
    return day + 2 * SAME_TIME


@dataclass(frozen=True)
class Edges:
    """The distinct event times of a run, and the lookup of a time among them."""

    days: list[float]

    @classmethod
    def of(cls, times: Iterable[float], last: float) -> Edges:
        """The distinct times in [0, last], both ends included."""
        kept = [0.0]
        for time in sorted(times):
            if kept[-1] + SAME_TIME < time < last - SAME_TIME:
                kept.append(time)
        if last > kept[-1]:
            kept.append(last)
        return cls(kept)

    def indices(self, times: Array) -> Indices:
        """Index of the edge at each time; -1 before the first, one past the end after the last."""
        found = np.searchsorted(self.days, times - SAME_TIME)
        return np.where(times < -SAME_TIME, BEFORE, found).astype(np.int64)

    def holding(self, times: Array) -> Indices:
        """Index of the interval that holds each time; an edge belongs to the interval it begins."""
        return np.searchsorted(self.days, times + SAME_TIME, side="right") - 1

    def snap(self, times: Iterable[float]) -> Array:
        """Each time, replaced by an edge within `SAME_TIME` of it."""
        values = np.array(list(times), dtype=float)
        edges = np.array(self.days)
        nearest = edges[np.searchsorted(edges, values - SAME_TIME).clip(max=len(edges) - 1)]
        return np.where(np.abs(nearest - values) <= SAME_TIME, nearest, values)


@dataclass(frozen=True)
class Row:
    """A row of `Given` before it becomes columns: amounts in the dose's own unit."""

    dose: Dose
    first: int
    after: int
    amount: float
    duration: float


@dataclass
class SegmentBuilder:
    """The segments of a run, built one after the other.

    Parameters
    ----------
    edges : Edges, the event times in days; intervals of days lie between them
    clock : start of each segment, and end of the last, on the clock
    real : for each segment the interval of days it covers or, in a run-in, precedes
    begins, back : for each segment its flags, and the segment to repeat from or `ONWARD`
    own : for each interval of days, its segment
    ahead : days by which the clock is ahead, before day 0 and in each interval of days
    rows : the doses of the steady states
    """

    edges: Edges
    clock: list[float] = field(default_factory=lambda: [0.0])
    real: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    ahead: list[float] = field(default_factory=lambda: [0.0])
    rows: list[Row] = field(default_factory=list)

    @property
    def n_real(self) -> int:
        """Number of intervals of days."""
        return len(self.edges.days) - 1

    def add(self, real: int, end: float, begins: int = 0) -> int:
        """Append a segment up to ``end`` on the clock; return its index."""
        self.real.append(real)
        self.begins.append(begins)
        self.back.append(ONWARD)
        self.clock.append(end)
        return len(self.real) - 1

    def at(self, real: int) -> int:
        """The segment of an interval of days; one past the end for the last day."""
        return self.own[real] if real < len(self.own) else len(self.real)

    def spans(self, first: int, after: int) -> Iterator[tuple[int, int]]:
        """Intervals of days as ranges of segments [first, after), split at steady-state run-ins."""
        begin = first
        for k in range(first, after):
            if k + 1 == after or self.own[k + 1] != self.own[k] + 1:
                yield self.own[begin], self.own[k] + 1
                begin = k + 1

    def on_clock(self, days: Array) -> Array:
        """Sample times on the clock: a sample at an edge is before its events, or just after."""
        edges, ahead = np.array(self.edges.days), np.array(self.ahead)
        snapped = self.edges.snap(days)
        clock = snapped + ahead[np.searchsorted(edges, snapped)]
        edge = np.maximum(np.searchsorted(edges, snapped) - 1, 0)
        since = snapped - edges[edge]
        late = (since > 0) & (since <= 3 * SAME_TIME)
        begun = edges[edge] + ahead[np.minimum(edge + 1, len(ahead) - 1)]
        moment = np.maximum(SHORTEST, 4 * np.spacing(begun))
        return np.asarray(np.where(late, begun + moment, clock))


def build_segments(edges: Edges, found: DosingEvents) -> SegmentBuilder:
    """The segments of a run with these edges, steady-state run-ins included."""
    path = SegmentBuilder(edges)
    resets = set(edges.indices(np.array(found.resets)).tolist())
    starting: dict[int, list[SteadyStateRunIn]] = {}
    for run, at in zip(found.run_ins, edges.indices(np.array([r.day for r in found.run_ins])),
                       strict=True):  # fmt: skip
        starting.setdefault(int(at), []).append(run)
    ahead = 0.0
    for k in range(path.n_real):
        day, waiting, reset = edges.days[k], 0, k in resets
        for run in starting.get(k, ()):
            ahead += run.cycle + run.rest
            if reset or not run.added:
                _run_in(path, k, run, RESET, day + ahead)
                waiting = 0
            else:
                _run_in(path, k, run, APART | waiting, day + ahead)
                waiting = JOIN
            reset = False
        path.ahead.append(ahead)
        path.own.append(path.add(k, edges.days[k + 1] + ahead, RESET if reset else waiting))
    return path


def _run_in(
    path: SegmentBuilder, real: int, run: SteadyStateRunIn, begins: int, end: float
) -> None:
    """Add the segments of one steady state: a repeated dosing cycle, and the rest up to its day."""
    start, dose = path.clock[-1], run.dose
    whole = len(path.real)
    inner = [run.part] if run.part else []
    for offset in (*inner, run.cycle):
        last = offset == run.cycle and not run.rest
        path.add(real, end if last else start + offset, 0)
    path.begins[whole] |= begins | CYCLE
    path.back[-1] = whole
    starts = [whole]
    if run.rest:
        starts.append(len(path.real))
        for offset in (*(part for part in inner if part < run.rest - SAME_TIME), run.rest):
            path.add(real, end if offset == run.rest else start + run.cycle + offset)
    amount = HOURS_PER_DAY * (dose.rate or 0.0) if dose.constant else dose.amount
    for k in starts:
        if run.length == 0:
            path.rows.append(Row(dose, k, k, amount, 0.0))
        elif run.part:
            path.rows.append(Row(dose, k, k + 1, amount, run.length))
    if run.running:
        path.rows.append(Row(dose, whole, len(path.real), amount * run.running, run.length))
