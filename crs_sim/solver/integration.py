"""One run, segment by segment, so that no solver steps across a dose, an infusion or a change.

The compiled method runs all segments in one ``solve_ivp`` (see `crs_sim.solver.ode_solver`). The
plain path, which serves to verify it, makes one call a segment. There each state has an absolute
tolerance of its own: a hundredth of ``rtol`` times its typical size, which is the largest of its
values so far, a dose into it, and what its rate at the start of the segment adds in an hour.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, NoReturn

import numpy as np

from ..dosing import (
    APART,
    CYCLE,
    JOIN,
    ONWARD,
    RESET,
    InputTables,
    Timeline,
    amounts,
    input_tables,
    parameters_at_samples,
)
from ..errors import InputError, IntegrationError
from ..model import Array, Code, Model, compile_model
from .kernel import compile_kernel
from .ode_solver import NODES, Pieces, Rosenbrock, Setup, solve_ivp
from .rosenbrock import DONE, MOST_CYCLES, NO_START, NOT_STEADY, WORDS
from .segment_loop import Runs, steady

METHODS = ("Rosenbrock", "LSODA", "BDF", "Radau")
COMPILED = "Rosenbrock"
FRACTION = 0.01
SOON = 1 / 24
"""Days over which a state's rate at the start of a segment is used to estimate its size."""
SMALLEST = 1e-6
"""No typical size is smaller than this: below it is the rounding noise of the other states."""
MOST_EVALUATIONS = 50_000
"""In one segment. LSODA can step without progress for ever before a singularity; this ends it."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a run in which nothing starts, stops or changes.

    ``parameters`` (n_parameters,) hold throughout, ``inflow`` (n_states,) is added per day;
    boluses are given as it begins. ``first`` and ``last`` are on the timeline's clock, ``days``
    are the days; they are one where a steady state is reached.
    """

    number: int
    of: int
    first: float
    last: float
    parameters: Array
    inflow: Array
    days: tuple[float, float]

    def day_at(self, clock: float) -> float:
        """The day at a time of the clock."""
        return min(self.days[0] + (clock - self.first), self.days[1])

    def __str__(self) -> str:
        """As messages name it."""
        first, last = self.days
        when = f"day {first:.6g} to {last:.6g}"
        if first == last:
            when = f"the steady state of day {first:.6g}"
        return f"segment {self.number + 1} of {self.of} ({when})"


class Counts(NamedTuple):
    """What a run cost."""

    method: str
    segments: int
    evaluations: int
    jacobians: int
    factorizations: int


class BrokenRateError(ArithmeticError):
    """The rates could not be evaluated."""


def segments(line: Timeline, tables: InputTables) -> Iterator[Segment]:
    """The segments of a timeline in order."""
    for k in range(line.n_segments):
        first, last = float(line.edges[k]), float(line.edges[k + 1])
        p = tables.parameters[line.version[k + 1]]
        days = (float(line.day[k]), float(line.day[k + 1]))
        yield Segment(k, line.n_segments, first, last, p, tables.inflow[k], days)


def integrate_timeline(
    model: Model, line: Timeline, *, method: str, rtol: float
) -> tuple[Array, Array, Counts, Pieces]:
    """States (n_days, n_states) and quantities (n_days, n_quantities) at the timeline's days.

    And the courses of all states in between.

    Raises
    ------
    IntegrationError
        Naming the day, the segment, the worst states and the solver's message.
    """
    if method == COMPILED:
        return _compiled(model, line, rtol)
    solver = Solver(model, compile_model(model), method, rtol)
    states, counts, pieces = _plain(solver, line)
    parameters = parameters_at_samples(line, _nominal(model))
    return states, solver.code.quantities(states, parameters), counts, pieces


def _nominal(model: Model) -> Array:
    return np.array([p.value for p in model.parameters])


def _compiled(model: Model, line: Timeline, rtol: float) -> tuple[Array, Array, Counts, Pieces]:
    """The whole timeline in one ``solve_ivp``, a segment a step, by the model's kernel."""
    kernel, values = compile_kernel(model), _nominal(model)
    begun = kernel.begun(line, values)
    y, first, last = begun.final[0], float(line.edges[0]), float(line.edges[-1])
    if begun.status[0] != DONE:
        raise IntegrationError(explain(model, line, values, begun))
    if first == last:
        pieces = Pieces.compiled(line, begun.pieces)
        return begun.states[0], begun.quantities[0], Counts(COMPILED, 0, 0, 0, 0), pieces
    setup = Setup(kernel, values, line=line, rtol=rtol, whole=True)
    solution = solve_ivp(None, (first, last), y, method=Rosenbrock, t_eval=line.days, setup=setup)
    runs = setup.runs[0]
    if not solution.success:
        raise IntegrationError(explain(model, line, values, runs))
    rows = np.searchsorted(np.union1d(line.days, line.edges), line.days)
    counts = Counts(COMPILED, line.n_segments, solution.nfev, solution.njev, solution.nlu)
    return solution.y.T, runs.quantities[0, rows], counts, Pieces.compiled(line, runs.pieces)


@dataclass(frozen=True)
class Solver:
    """How the plain path runs a model: its code, and one of SciPy's methods."""

    model: Model
    code: Code
    method: str
    rtol: float


def _plain(solver: Solver, line: Timeline) -> tuple[Array, Counts, Pieces]:
    """States (n_days, n_states) at the timeline's days, and their courses in between."""
    nominal, n_states = _nominal(solver.model), solver.code.n_states
    tables = input_tables(line, nominal, n_states)
    pieces = list(segments(line, tables))
    y = _start(solver.model, solver.code, tables.parameters[line.version[0]])
    table = np.empty((len(line.days), n_states))
    table[line.days == 0.0] = y
    typical = np.maximum(np.abs(y), largest_doses(line, nominal, n_states))
    counts, k = np.zeros(3, dtype=int), 0
    steps = {-1: (np.zeros((2, 1)), np.repeat(y[:, None, None], len(NODES), axis=1))}
    cycles = Cycles(solver, y)
    while k < len(pieces):
        segment, (begins, back) = pieces[k], line.marks[:, k]
        y = cycles.start(y, begins, segment.parameters) + tables.bolus[k]
        np.maximum(typical, np.abs(y), out=typical)
        rows = (line.days > segment.first) & (line.days <= segment.last)
        solved, cost, steps[k] = _solve(solver, segment, y=y, days=line.days[rows], typical=typical)
        table[rows] = solved[: rows.sum()]
        y = solved[-1]
        np.maximum(typical, np.abs(solved).max(axis=0), out=typical)
        counts += cost
        k = k + 1 if back == ONWARD or cycles.over(segment, y, typical) else back
    ends, nodes = (np.concatenate(parts, axis=-1) for parts in zip(*steps.values(), strict=True))
    numbers = np.repeat(list(steps), [one.shape[1] for one, _ in steps.values()])
    cost_of_all = Counts(solver.method, line.n_segments, *(int(c) for c in counts))
    return table, cost_of_all, Pieces.of(line, ends, numbers, nodes)


class Cycles:
    """Where the plain path is on its way to a steady state."""

    def __init__(self, solver: Solver, y: Array) -> None:
        """At the start of a run, with states (n_states,)."""
        self.solver, self.before, self.aside = solver, y, np.zeros_like(y)
        self.number, self.change = 0, np.inf

    def start(self, y: Array, begins: int, parameters: Array) -> Array:
        """The states as a segment with these parameters starts (`crs_sim.dosing.event_times`)."""
        if self.number == 0:
            y = self._arranged(y, begins, parameters)
        if begins & CYCLE:
            self.before = y
        return y

    def _arranged(self, y: Array, begins: int, parameters: Array) -> Array:
        if begins & JOIN:
            y = y + self.aside
        if begins & APART:
            self.aside = y
        if begins & (APART | RESET):
            return _start(self.solver.model, self.solver.code, parameters)
        return y

    def over(self, segment: Segment, y: Array, typical: Array) -> bool:
        """Whether the states are steady, after the cycle that ended with ``y``."""
        sizes = np.maximum(np.abs(y), np.abs(self.before)) + FRACTION * typical
        changes = np.abs(y - self.before) / np.maximum(sizes, SMALLEST * FRACTION)
        change = float(changes.max())
        is_steady = steady(change, self.change, self.solver.rtol)
        self.number, self.change = self.number + 1, change
        if is_steady:
            self.number, self.change = 0, np.inf
        elif self.number == MOST_CYCLES:
            moving, day, words = int(changes.argmax()), segment.days[0], WORDS[NOT_STEADY]
            raise IntegrationError(_never_steady(self.solver.model, day, y, words, moving))
        return is_steady


def _start(model: Model, code: Code, parameters: Array) -> Array:
    """The initial states under these parameters."""
    try:
        y = code.initial(parameters)
    except (ArithmeticError, ValueError) as error:
        raise IntegrationError(
            f"{model.name}: the initial states cannot be computed: {error}; "
            "check the parameter values"
        ) from None
    if not np.all(np.isfinite(y)):
        raise IntegrationError(_no_start(model, y))
    return y


def _no_start(model: Model, y: Array) -> str:
    bad = ", ".join(model.state_ids[k] for k in np.flatnonzero(~np.isfinite(y)))
    return (
        f"{model.name}: the initial states cannot be computed: {bad} is not finite; "
        "check the parameter values"
    )


def largest_doses(line: Timeline, nominal: Array, n_states: int) -> Array:
    """The largest dose into each state, (n_states,)."""
    largest = np.zeros(n_states)
    np.maximum.at(largest, line.given.state, amounts(line, nominal))
    return largest


def _solve(
    solver: Solver, segment: Segment, *, y: Array, days: Array, typical: Array
) -> tuple[Array, tuple[int, int, int], tuple[Array, Array]]:
    """One segment: states at its sample days and, last, at its end; its steps (see `Pieces`)."""
    rates = Rates(solver.code, segment)
    span, rtol = (segment.first, segment.last), solver.rtol
    try:
        soon = np.abs(rates(segment.first, y)) * min(segment.last - segment.first, SOON)
        atol = FRACTION * rtol * np.maximum(np.maximum(typical, soon), SMALLEST)
        with warnings.catch_warnings(record=True) as warned, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            solution = solve_ivp(
                rates, span, y, method=solver.method, rtol=rtol, atol=atol, jac=rates.jacobian,
                t_eval=np.unique(np.append(days, segment.last)), dense_output=True,
            )  # fmt: skip
    except (BrokenRateError, ValueError) as broken:
        fail(solver.model, rates, str(broken))
    if not solution.success or not np.all(np.isfinite(solution.y)):
        fail(solver.model, rates, str(warned[-1].message) if warned else solution.message)
    times = np.asarray(solution.sol.ts)
    ends = np.array([times[:-1], times[1:]])
    points = ends[0] + NODES[:, None] * (ends[1] - ends[0])
    nodes = solution.sol(points.ravel()).reshape(len(y), len(NODES), -1)
    cost = (solution.nfev, solution.njev, solution.nlu)
    return solution.y.T, cost, (ends, nodes)


class Rates:
    """The right-hand side of one segment, and the point at which it was last evaluated."""

    def __init__(self, code: Code, segment: Segment) -> None:
        """For the parameters and the inflow of the segment."""
        self.code, self.segment = code, segment
        self.run = code.functions.rates
        self.p, self.c = segment.parameters.tolist(), code.constants(segment.parameters)
        self.evaluations = 0
        self.day, self.states = segment.first, np.zeros(code.n_states)

    def __call__(self, day: float, y: Array) -> Array:
        """Change per day, (n_states,)."""
        self.day, self.states = day, y
        self.evaluations += 1
        if self.evaluations > MOST_EVALUATIONS:
            raise BrokenRateError(f"no end after {MOST_EVALUATIONS} evaluations")
        change = [0.0] * self.code.n_states
        try:
            self.run(y.tolist(), self.p, self.c, change)
        except (ArithmeticError, ValueError) as error:
            raise BrokenRateError(f"a rate cannot be computed: {error}") from None
        total = np.array(change, dtype=float) + self.segment.inflow
        if not np.isfinite(total).all():
            raise BrokenRateError("a rate is not finite")
        return total

    def jacobian(self, day: float, y: Array) -> Array:
        """Its derivative by the states, (n_states, n_states)."""
        self.day, self.states = day, y
        try:
            matrix = self.code.jacobian(y, self.segment.parameters)
        except (ArithmeticError, ValueError) as error:
            raise BrokenRateError(f"the Jacobian cannot be computed: {error}") from None
        if not np.isfinite(matrix).all():
            raise BrokenRateError("the Jacobian is not finite")
        return matrix


def fail(model: Model, rates: Rates, words: str) -> NoReturn:
    """Raise the error of a run that failed where its rates were last evaluated.

    It names the day, the segment, the worst states and the solver's message, ``words``.
    """
    segment = rates.segment
    raise IntegrationError(_failed(model, segment, segment.day_at(rates.day), rates.states, words))


def explain(model: Model, line: Timeline, values: Array, runs: Runs, i: int = 0) -> str:
    """Why the i-th of many compiled runs failed, given its parameters ``values``: as `fail`."""
    if runs.status[i] == NO_START:
        return _no_start(model, runs.final[i])
    own = line.at(values)
    broken = next(islice(segments(own, input_tables(own, values, len(model.states))),
                         int(runs.segment[i]), None))  # fmt: skip
    day, words = broken.day_at(float(runs.reached[i])), WORDS[runs.status[i]]
    if runs.status[i] == NOT_STEADY:
        return _never_steady(model, day, runs.final[i], words, int(runs.moving[i]))
    return _failed(model, broken, day, runs.final[i], words)


def _never_steady(model: Model, day: float, states: Array, words: str, moving: int) -> str:
    name = model.state_ids[moving]
    return (
        f"{model.name}: {name} never becomes steady: {words} for day {day:.6g}, with "
        f"{name} = {states[moving]:.4g} after them. Give the doses one by one, or check what "
        f"removes {name}"
    )


def _failed(model: Model, segment: Segment, day: float, states: Array, words: str) -> str:
    bad = np.flatnonzero(~np.isfinite(states))
    worst = bad if len(bad) else np.argsort(-np.abs(states), kind="stable")
    values = ", ".join(f"{model.state_ids[k]} = {states[k]:.4g}" for k in worst[:3])
    return (
        f"{model.name}: the run failed on day {day:.6g}, {segment}; {values}; the solver says: "
        f"{words}. A state grows without bound or a formula leaves its range: check the values of "
        "the parameters these states depend on"
    )


def check_method(method: str) -> None:
    """Refuse a method that is not one of `METHODS`."""
    if method not in METHODS:
        raise InputError(f"method {method!r} is not known: choose {', '.join(METHODS)}")
