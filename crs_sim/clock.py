"""Segments of a run on the solver's clock: the days, plus the time to reach steady states.

Models do not depend on time explicitly. So the doses that lead to a steady state are simulated in
extra segments before the day on which it holds, and the clock is then ahead of the days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME, DosingEvents, SteadyStateRunIn
from .dosing import HOURS_PER_DAY, Dose

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

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
