"""One run, segment by segment, so that no solver steps across a dose, an infusion or a change.

The compiled method walks the segments inside one ``solve_ivp`` (see `crs_sim.odesolver`). For the
plain path, its referee, each segment is one call. There each state has an absolute tolerance of
its own: a hundredth of ``rtol`` times its typical size, which is the largest of the values it has
taken so far, a dose into it, and what its rate at the start of the segment brings in an hour.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .codegen import Code, compile_model
from .errors import InputError, IntegrationError
from .kernel import Runs, compile_kernel
from .model import Model
from .odesolver import Rosenbrock, solve_ivp
from .rosenbrock import DONE, NO_START, WORDS
from .timeline import Course, Timeline, amounts, course, parameters_at_samples

Array = NDArray[np.float64]

METHODS = ("Rosenbrock", "LSODA", "BDF", "Radau")
COMPILED = "Rosenbrock"
FRACTION = 0.01
SOON = 1 / 24
"""Days over which a state's rate at the start of a segment says how large it is going to be."""
SMALLEST = 1e-6
"""No state is taken as typically smaller than this: below lies the rounding noise of the others."""
MOST_EVALUATIONS = 50_000
"""In one segment. LSODA can step on the spot for ever before a singularity; this ends it."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a run in which nothing starts, stops or changes.

    ``parameters`` (n_parameters,) hold throughout, ``inflow`` (n_states,) is added per day;
    boluses are given as it begins.
    """

    number: int
    of: int
    first: float
    last: float
    parameters: Array
    inflow: Array

    def __str__(self) -> str:
        """As messages name it."""
        return f"segment {self.number + 1} of {self.of} (day {self.first:.6g} to {self.last:.6g})"


class Counts(NamedTuple):
    """What a run cost."""

    method: str
    segments: int
    evaluations: int
    jacobians: int
    factorizations: int


class BrokenRateError(ArithmeticError):
    """The rates could not be evaluated."""


def segments(line: Timeline, tables: Course) -> Iterator[Segment]:
    """The segments of a timeline in order."""
    for k in range(line.n_segments):
        first, last = float(line.edges[k]), float(line.edges[k + 1])
        p = tables.parameters[line.version[k + 1]]
        yield Segment(k, line.n_segments, first, last, p, tables.inflow[k])


def integrate(
    model: Model, line: Timeline, *, method: str, rtol: float
) -> tuple[Array, Array, Counts]:
    """States (n_days, n_states) and quantities (n_days, n_quantities) at the timeline's days.

    Raises
    ------
    IntegrationError
        Naming the day, the segment, the worst states and what the solver said.
    """
    if method == COMPILED:
        return _compiled(model, line, rtol)
    code = compile_model(model)
    states, counts = _plain(model, code, line, method, rtol)
    parameters = parameters_at_samples(line, _nominal(model))
    return states, code.quantities(states, parameters), counts


def _nominal(model: Model) -> Array:
    return np.array([p.value for p in model.parameters])


def _compiled(model: Model, line: Timeline, rtol: float) -> tuple[Array, Array, Counts]:
    """The whole timeline in one ``solve_ivp``, a segment a step, by the model's kernel."""
    kernel, values = compile_kernel(model), _nominal(model)
    begun = kernel.begun(line, values)
    y, first, last = begun.final[0], float(line.edges[0]), float(line.edges[-1])
    if begun.status[0] != DONE:
        raise IntegrationError(explain(model, line, values, begun))
    if first == last:
        return begun.states[0], begun.quantities[0], Counts(COMPILED, 0, 0, 0, 0)
    seen: list[Runs] = []
    solution = solve_ivp(
        None, (first, last), y, method=Rosenbrock, t_eval=line.days, rtol=rtol,
        kernel=kernel, values=values, line=line, seen=seen, whole=True,
    )  # fmt: skip
    runs = seen[0]
    if not solution.success:
        raise IntegrationError(explain(model, line, values, runs))
    rows = np.searchsorted(np.union1d(line.days, line.edges), line.days)
    counts = Counts(COMPILED, line.n_segments, solution.nfev, solution.njev, solution.nlu)
    return solution.y.T, runs.quantities[0, rows], counts


def _plain(
    model: Model, code: Code, line: Timeline, method: str, rtol: float
) -> tuple[Array, Counts]:
    nominal = _nominal(model)
    tables = course(line, nominal, code.n_states)
    y = _start(model, code, line, tables)
    table = np.empty((len(line.days), code.n_states))
    table[line.days == 0.0] = y
    typical = np.maximum(np.abs(y), largest_doses(line, nominal, code.n_states))
    counts = np.zeros(3, dtype=int)
    for segment in segments(line, tables):
        y = y + tables.bolus[segment.number]
        np.maximum(typical, np.abs(y), out=typical)
        rows = (line.days > segment.first) & (line.days <= segment.last)
        solved, cost = _solve(model, code, segment, y, line.days[rows], method, rtol, typical)
        table[rows] = solved[: rows.sum()]
        y = solved[-1]
        np.maximum(typical, np.abs(solved).max(axis=0), out=typical)
        counts += cost
    return table, Counts(method, line.n_segments, *(int(c) for c in counts))


def _start(model: Model, code: Code, line: Timeline, tables: Course) -> Array:
    """States at day 0, before any dose, under the parameters that held just before."""
    try:
        y = code.initial(tables.parameters[line.version[0]])
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
    model: Model,
    code: Code,
    segment: Segment,
    y: Array,
    days: Array,
    method: str,
    rtol: float,
    typical: Array,
) -> tuple[Array, tuple[int, int, int]]:
    """One segment: states at its sample days and, last, at its end."""
    wanted = np.unique(np.append(days, segment.last))
    rates = Rates(code, segment)
    try:
        soon = np.abs(rates(segment.first, y)) * min(segment.last - segment.first, SOON)
        atol = FRACTION * rtol * np.maximum(np.maximum(typical, soon), SMALLEST)
        with warnings.catch_warnings(record=True) as said, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            solution = solve_ivp(
                rates,
                (segment.first, segment.last),
                y,
                method=method,
                t_eval=wanted,
                rtol=rtol,
                atol=atol,
                jac=rates.jacobian,
            )
    except (BrokenRateError, ValueError) as broken:
        fail(model, segment, rates.day, rates.states, str(broken))
    if not solution.success or not np.all(np.isfinite(solution.y)):
        words = str(said[-1].message) if said else solution.message
        fail(model, segment, rates.day, rates.states, words)
    return solution.y.T, (solution.nfev, solution.njev, solution.nlu)


class Rates:
    """The right-hand side of one segment, and the point it was last asked for."""

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


def fail(model: Model, segment: Segment, day: float, states: Array, words: str) -> NoReturn:
    """Raise the error of a failed run: day, segment, worst states, the solver's words."""
    raise IntegrationError(_failed(model, segment, day, states, words))


def explain(model: Model, line: Timeline, values: Array, runs: Runs, i: int = 0) -> str:
    """Why the i-th of many compiled runs failed, given its parameters ``values``: as `fail`."""
    if runs.status[i] == NO_START:
        return _no_start(model, runs.final[i])
    tables = course(line, values, len(model.states))
    broken = next(islice(segments(line, tables), int(runs.segment[i]), None))
    return _failed(model, broken, runs.reached[i], runs.final[i], WORDS[runs.status[i]])


def _failed(model: Model, segment: Segment, day: float, states: Array, words: str) -> str:
    bad = np.flatnonzero(~np.isfinite(states))
    worst = bad if len(bad) else np.argsort(-np.abs(states), kind="stable")
    values = ", ".join(f"{model.state_ids[k]} = {states[k]:.4g}" for k in worst[:3])
    return (
        f"{model.name}: the run failed on day {day:.6g}, {segment}; {values}; the solver says: "
        f"{words}. A state grows without bound or a formula leaves its range: check the values of "
        "the parameters these states depend on"
    )


def check_method(method: str, known: tuple[str, ...] = METHODS) -> None:
    """Refuse a method that is not one of the known."""
    if method not in known:
        raise InputError(f"method {method!r} is not known: choose {', '.join(known)}")
