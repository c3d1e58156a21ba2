"""The compiled step loop as a method of SciPy's ``solve_ivp``, and courses as pieces of its steps.

The only door to scipy.integrate. One step of this solver goes to the next edge of a timeline; the
steps in between are the kernel's. States on days given beforehand are computed on the way, all
others by replaying the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from math import comb
from typing import Any

import numpy as np
from scipy.integrate import DenseOutput, OdeSolver, solve_ivp

from ..dosing import SAME_TIME, Timeline, empty_timeline
from ..errors import InputError
from ..model import Array, Indices
from .kernel import Kernel
from .rosenbrock import DONE, HEAD, SHARES, STAGES, WORDS
from .segment_loop import Runs

__all__ = [
    "NODES", "Course", "Pieces", "Rosenbrock", "Setup", "cuts", "roots", "solve_ivp", "values_at",
]  # fmt: skip

NODES = np.array(SHARES)
"""The shares of a step at which its polynomial is known."""
WEIGHTS = np.array([9.0, 49.0, 64.0, 49.0, 9.0]) / 180.0
"""Of `NODES` in Lobatto's rule, which is exact up to degree 7."""
POWERS = np.linalg.inv(np.vander(NODES, increasing=True))
"""From values at the nodes to coefficients of powers."""
BERNSTEIN = np.array([[comb(j, i) / comb(4, i) for i in range(5)] for j in range(5)]) @ POWERS
"""From values at the nodes to Bernstein coefficients, whose hull holds the polynomial."""
SIGNED = {n + 1: np.array([[comb(n, k) * comb(k, j) * (-1) ** (j + k) for k in range(n + 1)]
                           for j in range(n + 1)], dtype=float) for n in (3, 4)}  # fmt: skip
"""By their number, from Bernstein coefficients to those of powers."""
HALF = {n + 1: np.array([[comb(k, j) / 2**k for k in range(n + 1)] for j in range(n + 1)])
        for n in (3, 4)}  # fmt: skip
"""By their number, from Bernstein coefficients to those of the first half."""
HULL = 0.5 * float(np.abs(BERNSTEIN).sum(axis=1).max() - 1.0)
"""By which share of their range the values at the nodes may be exceeded between them."""
MOST_STEPS, MOST_HALVED = 60, 40
"""Of Newton's method; halvings before two zeros are one that is no crossing."""
ROUNDING = 1e-13
"""Of a share of a step, and of peaks: of two that differ less, the first is the day of the peak."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The courses of some states step by step, each step a polynomial of degree 4.

    ``days`` (2, n_pieces) are its ends, ``segment`` (n_pieces,) the one it is in, and ``nodes``
    (n_states, 5, n_pieces) the states at shares `NODES` of it, for runs one after the other;
    ``first`` (n_runs,) is each run's first piece, which is day 0 before any dose.
    """

    days: Array
    segment: Indices
    nodes: Array
    first: Indices

    @classmethod
    def of(cls, line: Timeline, ends: Array, segment: Indices, nodes: Array) -> Pieces:
        """From ``ends`` (2, n_pieces) on the clock, without those before a steady state."""
        begun = np.maximum(segment, 0)
        after = np.minimum(begun + 1, len(line.edges) - 1)
        day, until = line.day[begun], line.day[after]
        days = day + (ends - line.edges[begun])
        days[1] = np.where(ends[1] == line.edges[after], until, days[1])
        days[:, segment < 0] = line.day[0]
        kept = (segment < 0) | (until > day)
        if not kept.all():
            days, segment, nodes = (a.compress(kept, axis=-1) for a in (days, segment, nodes))
        return cls(days, segment, nodes, np.flatnonzero(segment < 0))

    @classmethod
    def compiled(cls, line: Timeline, tables: Sequence[Array]) -> Pieces:
        """From the pieces of some compiled runs (`rosenbrock.HEAD`)."""
        table = np.empty((len(tables[0]), sum(one.shape[1] for one in tables)))
        np.concatenate(tables, axis=1, out=table)
        nodes = table[HEAD:].reshape(-1, len(NODES), table.shape[1])
        return cls.of(line, table[:2], table[2].astype(np.int64), nodes)


def extremes(nodes: Array) -> tuple[Array, Array]:
    """Between which levels polynomials (5, n_pieces) are sure to stay, each (n_pieces,)."""
    top, bottom = nodes.max(axis=0), nodes.min(axis=0)
    slack = HULL * (top - bottom)
    return bottom - slack, top + slack


def roots(
    thresholds: Sequence[tuple[Array, Array | float]], shape: tuple[int, ...]
) -> tuple[Indices, Array]:
    """Where polynomials cross levels inside their pieces: the pieces, and the shares of them.

    ``thresholds`` are nodes and levels that broadcast to ``shape`` (5, n_pieces).
    """
    rows, shifted, known = list[Indices](), list[Array](), dict[int, tuple[Array, Array]]()
    for x, given in thresholds:
        nodes, level = np.broadcast_to(x, shape), np.asarray(given)
        if level.ndim > 1:  # itself a course: where their difference is 0
            nodes, level = np.broadcast_to(x - level, shape), np.zeros(())
            bottom, top = extremes(nodes)
        else:
            bottom, top = known[id(x)] = known.get(id(x)) or extremes(nodes)
        rows.append(np.flatnonzero((bottom < level) & (top > level)))
        shifted.append(nodes[:, rows[-1]] - (level[rows[-1]] if level.ndim else level))
    which, shares = _zeros((BERNSTEIN @ np.hstack(shifted)).T)
    return np.concatenate(rows)[which], shares


def _zeros(bernstein: Array, halved: int = 0) -> tuple[Indices, Array]:
    """The zeros between 0 and 1 of polynomials, (n, degree + 1): which one's, and where.

    As many as changes of sign, or fewer by an even number; so those of several are halved.
    """
    changes = np.diff(bernstein > 0.0, axis=1).sum(axis=1)
    single, several = np.flatnonzero(changes == 1), np.flatnonzero(changes > 1)
    rows, shares = [single], [_single_zero(bernstein[single])]
    if len(several) and halved < MOST_HALVED:
        b, half = bernstein[several], HALF[bernstein.shape[1]]
        for share, part in ((0.0, b @ half), (0.5, (b[:, ::-1] @ half)[:, ::-1])):
            which, places = _zeros(part, halved + 1)
            rows.append(several[which])
            shares.append(share + 0.5 * places)
    return np.concatenate(rows), np.concatenate(shares)


def _single_zero(b: Array) -> Array:
    """The zero of polynomials of one change of sign: Newton's steps, halved where they go astray.

    By Descartes' rule there is no other zero between 0 and 1.
    """
    c, degree = (b @ SIGNED[b.shape[1]]).T, b.shape[1] - 1
    low, high, x = np.zeros(len(b)), np.ones(len(b)), np.full(len(b), 0.5)
    for _ in range(MOST_STEPS):
        value, slope = c[degree], np.zeros(len(b))
        for k in range(degree - 1, -1, -1):
            value, slope = value * x + c[k], slope * x + value
        after = (value > 0.0) == (b[:, -1] > 0.0)
        low, high = np.where(after, low, x), np.where(after, x, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = x - value / slope
        step = np.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        moved, x = np.abs(step - x), step
        if moved.max(initial=0.0) <= ROUNDING:
            break
    return x


def cuts(rows: Indices, shares: Array) -> tuple[Indices, Array, Array]:
    """Pieces cut at some shares of them: the pieces of the parts, and where these begin and end."""
    ascending = np.sort(rows)
    whole = ascending[np.diff(ascending, prepend=-1) > 0]
    row = np.concatenate([whole, rows, whole])
    share = np.concatenate([np.zeros(len(whole)), shares, np.ones(len(whole))])
    order = np.lexsort((share, row))
    row, share = row[order], share[order]
    same = row[1:] == row[:-1]
    return row[:-1][same], share[:-1][same], share[1:][same]


def values_at(nodes: Array, shares: Array) -> Array:
    """Polynomials (..., 5, n) at shares of them, (n,) or (m, n)."""
    powers = np.moveaxis(POWERS @ nodes, -2, 0)
    if shares.ndim > 1:
        powers = powers[..., None, :]
    p0, p1, p2, p3, p4 = powers
    return np.asarray(p0 + shares * (p1 + shares * (p2 + shares * (p3 + shares * p4))))


@dataclass(frozen=True, eq=False)
class Course:
    """The courses of one output in some runs, piece by piece.

    Parameters
    ----------
    days : (2, n_pieces), start and end of each piece; those of a run follow each other
    nodes : (5, n_pieces), values at shares `NODES` of a piece
    first : (n_runs,), each run's first piece
    several : bool, whether results are arrays; else the only run's number
    """

    days: Array
    nodes: Array
    first: Indices
    several: bool

    @classmethod
    def sampled(cls, days: Array, values: Array) -> Course:
        """Linear between samples, (n_days,) or (n_runs, n_days)."""
        table, n = np.atleast_2d(values), max(1, len(days) - 1)
        left, right = table[:, :n].ravel(), table[:, -n:].ravel()
        ends = np.tile(np.array([days[:n], days[-n:]]), (1, len(table)))
        nodes = left + NODES[:, None] * (right - left)
        return cls(ends, nodes, np.arange(len(table)) * n, np.ndim(values) > 1)

    @classmethod
    def joined(cls, parts: Sequence[Course]) -> Course:
        """The runs of several courses side by side."""
        sizes = [0, *(part.days.shape[1] for part in parts)]
        first = [part.first + at for part, at in zip(parts, np.cumsum(sizes), strict=False)]
        days, nodes = np.hstack([p.days for p in parts]), np.hstack([p.nodes for p in parts])
        return cls(days, nodes, np.concatenate(first), True)

    @cached_property
    def run(self) -> Indices:
        """The run of each piece, (n_pieces,)."""
        return np.repeat(np.arange(len(self.first)), np.diff([*self.first, self.days.shape[1]]))

    def within(self, name: str, first: float, last: float) -> Course:
        """The part from one day to another, each before the doses of its day; ends may be infinite.

        Raises
        ------
        InputError
            If the run does not cover these days.
        """
        if first == -math.inf and last == math.inf:
            return self
        begun, ended = float(self.days[0, 0]), float(self.days[1, -1])
        first = begun if first == -math.inf else first
        last = ended if last == math.inf else last
        if not begun - SAME_TIME <= first <= last <= ended + SAME_TIME:
            raise InputError(
                f"{name}: day {first:g} to {last:g} is asked for, but the run covers day "
                f"{begun:g} to {ended:g}; run longer, or ask for days inside"
            )
        start, end = self.days
        inside = (start < last - SAME_TIME) & (end > first + SAME_TIME)
        rows = np.flatnonzero(inside | (np.abs(end - first) <= SAME_TIME))
        width = np.where(end > start, end - start, 1.0)[rows]
        low = np.clip((first - start[rows]) / width, 0.0, 1.0)
        high = np.clip((last - start[rows]) / width, low, 1.0)
        return self._cut(rows, low, high)

    def _cut(self, rows: Indices, low: Array, high: Array) -> Course:
        """Parts of pieces, from one share to another; each run keeps at least one."""
        part = np.flatnonzero((low > 0.0) | (high < 1.0))
        nodes, days = self.nodes[:, rows], self.days[:, rows]
        shares = low[part] + NODES[:, None] * (high - low)[part]
        nodes[:, part] = values_at(nodes[:, part], shares)
        start, end = days[:, part]
        days[:, part] = start + np.array([low[part], high[part]]) * (end - start)
        first = np.searchsorted(self.run[rows], np.arange(len(self.first)))
        return Course(days, nodes, first, self.several)

    def peak(self) -> tuple[Array, Array]:
        """The largest value of each run, and the first day on which it is reached."""
        _, top = extremes(self.nodes)
        largest = np.maximum.reduceat(np.maximum(self.nodes[0], self.nodes[-1]), self.first)
        near = np.flatnonzero(top >= largest[self.run])
        nodes, run = self.nodes[:, near], self.run[near]
        rows, shares = _zeros(np.diff(BERNSTEIN @ nodes, axis=0).T)
        which = np.concatenate([np.arange(len(near)), rows])
        share = np.concatenate([NODES[nodes.argmax(axis=0)], shares])
        values = np.concatenate([nodes.max(axis=0), values_at(nodes[:, rows], shares)])
        np.maximum.at(largest, run[which], values)
        high = values >= (largest - ROUNDING * np.abs(largest))[run[which]]
        start, end = self.days[:, near[which[high]]]
        days = np.full(len(largest), np.inf)
        np.minimum.at(days, run[which[high]], start + share[high] * (end - start))
        return largest, days

    def area(self) -> Array:
        """The integral over the days of each run."""
        pieces = (self.days[1] - self.days[0]) * (WEIGHTS @ self.nodes)
        return np.asarray(np.add.reduceat(pieces, self.first))

    def time_above(self, level: float) -> Array:
        """Days of each run at or above a level."""
        width = self.days[1] - self.days[0]
        above = np.where(self.nodes[2] >= level, width, 0.0)
        rows, low, high = cuts(*roots([(self.nodes, level)], self.nodes.shape))
        above[rows] = 0.0
        middle = values_at(self.nodes[:, rows], 0.5 * (low + high))
        np.add.at(above, rows, np.where(middle >= level, (high - low) * width[rows], 0.0))
        return np.asarray(np.add.reduceat(above, self.first))

    def at(self, day: float) -> Array:
        """Each run's value on a day, before the doses of that day."""
        late = (self.days[1] < day - SAME_TIME).astype(np.int64)
        rows = self.first + np.add.reduceat(late, self.first)
        start, end = self.days[:, rows]
        width = np.where(end > start, end - start, 1.0)
        return values_at(self.nodes[:, rows], np.clip((day - start) / width, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Setup:
    """What a kernel is to run under ``solve_ivp``.

    Parameters
    ----------
    kernel : Kernel, from `crs_sim.solver.compile_kernel`
    values : (n_parameters,)
    line : Timeline over the days of ``solve_ivp``; without one no dose is given
    rtol : float
    max_step : float, days; without a timeline no step is longer (for events in between)
    whole : bool, go to the last day in one step (no events in between)
    runs : list, receives the kernel's `Runs`, which ``solve_ivp`` does not give back
    """

    kernel: Kernel
    values: Array
    _: KW_ONLY
    line: Timeline | None = None
    rtol: float = 1e-6
    max_step: float = np.inf
    whole: bool = False
    runs: list[Runs] = field(default_factory=list)


class Rosenbrock(OdeSolver):  # type: ignore[misc]
    """Rodas5P with the model's own compiled Jacobian and LU (see `crs_sim.solver.rosenbrock`).

    Parameters
    ----------
    fun, t0, y0, t_bound, vectorized : as for every SciPy solver; ``fun`` is not called, the
        kernel has the rates. ``y0`` are the states before any dose at ``t0``.
    setup : Setup, used for one ``solve_ivp``; the options of SciPy's own methods are fields of it

    Examples
    --------
    >>> from scipy.integrate import solve_ivp
    >>> from crs_sim.solver import compile_kernel
    >>> from crs_sim import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> setup = Setup(compile_kernel(decay), [0.693147])
    >>> run = solve_ivp(None, (0, 3), [8.0], method=Rosenbrock, setup=setup)
    >>> run.y[:, -1].round(3).tolist()
    [1.0]
    """

    def __init__(
        self, fun: Any, t0: float, y0: Array, t_bound: float, vectorized: bool = False, *,
        setup: Setup,
    ) -> None:  # fmt: skip
        """See the class."""
        super().__init__(fun, t0, y0, t_bound, vectorized)
        line = empty_timeline(t0, t_bound, setup.max_step) if setup.line is None else setup.line
        self.setup, self.line = setup, line.sampled(np.union1d(line.days, line.edges))
        self.values = np.asarray(setup.values, dtype=float)[None]
        self.start = np.asarray(y0, dtype=float)[None]
        self.edge = 0
        self.runs: Runs | None = None

    def _step_impl(self) -> tuple[bool, str | None]:
        if self.runs is None:
            self.runs = self._run()
        self.edge = len(self.line.edges) - 1 if self.setup.whole else self.edge + 1
        end = self.line.edges[self.edge]
        if self.runs.status[0] != DONE and self.edge > self.runs.segment[0]:
            self.t, self.y = self.runs.reached[0], self.runs.final[0]
            return False, WORDS[self.runs.status[0]]
        self.t, self.y = end, self.runs.states[0, np.searchsorted(self.line.days, end)]
        return True, None

    def _run(self) -> Runs:
        setup = self.setup
        runs = setup.kernel.run(self.line, self.values, rtol=setup.rtol, start=self.start,
                                watched=range(setup.kernel.n_states))  # fmt: skip
        setup.runs.append(runs)
        tried = int(runs.accepted[0] + runs.rejected[0])
        self.nfev, self.nlu, self.njev = STAGES * tried, tried, int(runs.accepted[0])
        return runs

    def _dense_output_impl(self) -> DenseOutput:
        return Between(self, self.t_old, self.t)


class Between(DenseOutput):  # type: ignore[misc]
    """The states between two edges, the first edge excluded: there they are those before a dose."""

    def __init__(self, solver: Rosenbrock, first: float, last: float) -> None:
        """Between the last two edges the solver reached."""
        super().__init__(first, last)
        self.solver = solver

    def _call_impl(self, t: Array) -> Array:
        solver, days = self.solver, np.atleast_1d(t)
        assert solver.runs is not None
        rows = np.searchsorted(solver.line.days, days).clip(max=len(solver.line.days) - 1)
        if np.array_equal(solver.line.days[rows], days):
            states = solver.runs.states[0, rows]
        else:
            distinct, rows = np.unique(days, return_inverse=True)
            line = solver.line.sampled(distinct)
            replay, steps = solver.setup.kernel.replay, solver.runs.steps
            again = replay(line, solver.values, steps, start=solver.start)
            states = again.states[0, rows]
        return np.asarray(states[0] if np.ndim(t) == 0 else states.T)
