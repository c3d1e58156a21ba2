"""One run, segment by segment: each stretch of a timeline is one call of SciPy's ``solve_ivp``.

No solver ever steps across a dose, an infusion's start or stop, or a change of a parameter.
Each state has an absolute tolerance of its own: a hundredth of ``rtol`` times its typical size,
which is the largest of the values it has taken so far, a dose into it, and what its rate at the
start of the segment brings in an hour.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from . import rosenbrock
from .codegen import Code
from .errors import InputError, IntegrationError
from .model import Model
from .timeline import Course, Timeline, amounts, course, parameters_at_samples

Array = NDArray[np.float64]

COMPILED = "Rosenbrock"
METHODS = (COMPILED, "LSODA", "BDF", "Radau")
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
    model: Model, code: Code, line: Timeline, *, method: str, rtol: float
) -> tuple[Array, Array, Counts]:
    """States (n_days, n_states) and quantities (n_days, n_quantities) at the timeline's days.

    What they cost comes third.

    Raises
    ------
    IntegrationError
        Naming the day, the segment, the worst states and what the solver said.
    """
    nominal = np.array([p.value for p in model.parameters])
    tables = course(line, nominal, code.n_states)
    y = _start(model, code, line, tables)
    if method == COMPILED:
        return _compiled(model, line, tables, rtol)
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
    quantities = code.quantities(table, parameters_at_samples(line, nominal))
    return table, quantities, Counts(method, line.n_segments, *(int(c) for c in counts))


WORDS = {
    rosenbrock.TOO_SMALL: "the step size fell to nothing",
    rosenbrock.TOO_MANY: "too many steps",
    rosenbrock.NO_START: "the initial states are not finite",
    rosenbrock.NOT_FINITE: "the rates are not finite",
}


def _compiled(
    model: Model, line: Timeline, tables: Course, rtol: float
) -> tuple[Array, Array, Counts]:
    """The whole timeline in one compiled call; numba is imported here, when it is wanted."""
    from .kernel import run

    ran = run(model, line, rtol)
    if ran.status != rosenbrock.DONE:
        segment = list(segments(line, tables))[ran.segment]
        fail(model, segment, ran.day, ran.last, WORDS[ran.status])
    steps = ran.steps + ran.rejected
    return ran.states, ran.quantities, Counts(COMPILED, line.n_segments, 8 * steps, steps, steps)


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
        bad = ", ".join(model.state_ids[k] for k in np.flatnonzero(~np.isfinite(y)))
        raise IntegrationError(
            f"{model.name}: the initial value of {bad} is not finite; check the parameter values"
        )
    return y


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
    bad = np.flatnonzero(~np.isfinite(states))
    worst = bad if len(bad) else np.argsort(-np.abs(states), kind="stable")
    values = ", ".join(f"{model.state_ids[k]} = {states[k]:.4g}" for k in worst[:3])
    raise IntegrationError(
        f"{model.name}: the run failed on day {day:.6g}, {segment}; {values}; the solver says: "
        f"{words}. A state grows without bound or a formula leaves its range: check the values of "
        "the parameters these states depend on"
    )


def check_method(method: str, known: tuple[str, ...] = METHODS) -> None:
    """Refuse a method that is not one of the known."""
    if method not in known:
        raise InputError(f"method {method!r} is not known: choose {', '.join(known)}")
