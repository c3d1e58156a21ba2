"""The clock of a run: its days, and between them the time that steady states take to be reached.

A model does not know what day it is. So the doses that led to a steady state are given on the
way, in segments of their own before the day on which it holds, and the clock runs on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME, Arrivals, RunIn
from .dosing import HOURS_PER_DAY, Dose

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BEFORE = -1
"""The stretch before day 0, which decides the initial values."""
JOIN, APART, RESET, CYCLE = 1, 2, 4, 8
"""What a segment may begin with, in this order: add the states that were put aside; put the states
aside and reset; reset; begin a cycle of equal doses."""
SHORTEST = 1e-12
"""Days of a run after which what was given at its start is sampled."""
ONWARD = -1
"""After a segment comes the next."""


def just_after(day: float) -> float:
    """The day on which to sample what has been given at a moment: a fifth of a millisecond later.

    >>> just_after(3.0) - 3.0 < 1e-8
    True
    """
    return day + 2 * SAME_TIME


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

    def holding(self, times: Array) -> Indices:
        """The stretch each time lies in, an edge in the one it begins."""
        return np.searchsorted(self.days, times + SAME_TIME, side="right") - 1

    def snap(self, times: Iterable[float]) -> Array:
        """Each time, or the edge that is the same time."""
        given = np.array(list(times), dtype=float)
        known = np.array(self.days)
        nearest = known[np.searchsorted(known, given - SAME_TIME).clip(max=len(known) - 1)]
        return np.where(np.abs(nearest - given) <= SAME_TIME, nearest, given)


@dataclass(frozen=True)
class Row:
    """A row of `Given` before it becomes columns: amounts in the dose's own unit."""

    dose: Dose
    first: int
    after: int
    amount: float
    duration: float


@dataclass
class Track:
    """The segments of a run, made one after the other.

    Parameters
    ----------
    edges : Edges, the instants among the days
    clock : when each segment begins, and the last ends
    real : for each segment the stretch of days it is in, or comes before
    begins, back : for each segment its marks, and the segment to go back to or `ONWARD`
    own : for each stretch of days, its segment
    ahead : by how much the clock is ahead, before day 0 and in each stretch of days
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
        """Stretches of days."""
        return len(self.edges.days) - 1

    def add(self, real: int, end: float, begins: int = 0) -> int:
        """One more segment, up to ``end`` on the clock; its number."""
        self.real.append(real)
        self.begins.append(begins)
        self.back.append(ONWARD)
        self.clock.append(end)
        return len(self.real) - 1

    def at(self, real: int) -> int:
        """The segment of a stretch of days; one past the end for the last day."""
        return self.own[real] if real < len(self.own) else len(self.real)

    def spans(self, first: int, after: int) -> Iterator[tuple[int, int]]:
        """Stretches of days as runs of segments, first and after, without the steady states."""
        begin = first
        for k in range(first, after):
            if k + 1 == after or self.own[k + 1] != self.own[k] + 1:
                yield self.own[begin], self.own[k] + 1
                begin = k + 1

    def on_clock(self, days: Array) -> Array:
        """Samples on the clock: at an edge before all that happens there, or just after it."""
        known, ahead = np.array(self.edges.days), np.array(self.ahead)
        snapped = self.edges.snap(days)
        clock = snapped + ahead[np.searchsorted(known, snapped)]
        edge = np.maximum(np.searchsorted(known, snapped) - 1, 0)
        since = snapped - known[edge]
        late = (since > 0) & (since <= 3 * SAME_TIME)
        begun = known[edge] + ahead[np.minimum(edge + 1, len(ahead) - 1)]
        moment = np.maximum(SHORTEST, 4 * np.spacing(begun))
        return np.asarray(np.where(late, begun + moment, clock))


def track(edges: Edges, found: Arrivals) -> Track:
    """The segments of a run whose days are cut at these edges."""
    path = Track(edges)
    resets = set(edges.indices(np.array(found.resets)).tolist())
    starting: dict[int, list[RunIn]] = {}
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


def _run_in(path: Track, real: int, run: RunIn, begins: int, end: float) -> None:
    """One steady state: a cycle of equal doses, over and over, and what follows the last one."""
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
