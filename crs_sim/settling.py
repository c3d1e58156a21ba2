"""Triggers and holds settled: runs are made until there is nothing more to decide.

A member of a table goes from window to window of `WINDOW` days, and starts each from the states it
ended the last with. Where something is decided it goes on from there. Members to whom the same is
given in a window run side by side, so that only a window with a decision is run for few. SciPy's
methods run the whole from day 0 after each decision; so does the compiled one where parameters move
doses, or the plan has resets or steady states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME, values_on
from .decisions import Book, Levels, Order, Rules, check_rules, distinct
from .dosing import Dose, Schedule, expand
from .integrate import COMPILED, integrate
from .kernel import compile_kernel
from .ledger import Ledger, ledger_of, timed_by_parameters
from .model import Model
from .rosenbrock import DONE
from .scenario import Scenario
from .timeline import timeline

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

DECIDING = 1e-6
"""Relative tolerance of the runs that decide: levels are right to a fraction of a second."""
DECIDING_PLAIN = 1e-8
"""The same for SciPy's methods: BDF is a hundred times less accurate than its tolerance."""
WINDOW = 2.0
"""Days; whole ones, so that each ends on a whole hour."""


@dataclass(frozen=True, eq=False)
class Course:
    """Members of a table that came to one ledger, and the scenario it makes.

    ``members`` (n,) are their rows in the table.
    """

    members: Indices
    scenario: Scenario
    orders: tuple[Order, ...]


def settled(
    model: Model, scenario: Scenario, *, until: float,
    method: str = COMPILED, rtol: float = DECIDING,
) -> tuple[Scenario, Ledger]:  # fmt: skip
    """What triggers and holds come to: a scenario that is decided, and its dose ledger.

    Parameters
    ----------
    model : Model
    scenario : Scenario, its values are put into the model first
    until : float, last day of the run
    method, rtol : as of `crs_sim.simulate`; never less accurate than `DECIDING`, or for a method of
        SciPy `DECIDING_PLAIN`

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For a trigger or hold that names what the model has not, a dose that cannot be converted, or
        a trigger that is first looked at after the end of the run.
    IntegrationError
        When a method of SciPy gives up. The compiled one decides all that comes before that.

    Examples
    --------
    >>> from crs_sim import Condition, Trigger
    >>> from crs_sim.model import Parameter, State
    >>> growth = Model(
    ...     "growth", (State("A", "1", "k*A", "mg", "", ""), State("B", "0", "-B", "mg", "", "")),
    ...     (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> late = Trigger("late", Condition.read("A >= 4"), Dose(0, "B", 5), at_most=2, hours_apart=24)
    >>> print(settled(growth, Scenario("watched", triggers=(late,)), until=3)[1])
    day 2.00069: B 5 mg (trigger late)
    """
    patient = model.with_values(**scenario.values)
    if scenario.decided:
        return scenario, ledger_of(patient, scenario.doses, scenario, until=until)
    check_rules(patient, scenario, until)
    rules, runner = Rules(scenario, until), None
    if method == COMPILED:
        values = np.array([list(patient.values.values())])
        runner = Compiled(patient, rules, values, min(rtol, DECIDING))
    found = _courses(rules, 1, runner or Plain(patient, rules, method, min(rtol, DECIDING_PLAIN)))
    return found[0].scenario, ledger_of(patient, found[0].orders, scenario, until=until)


def settled_members(
    model: Model, scenario: Scenario, values: Array, *, until: float, rtol: float = DECIDING
) -> list[Course]:
    """The same for many members at once: those that came to one ledger, together.

    Parameters
    ----------
    model : Model, with the scenario's values
    scenario : Scenario, that has passed `check_rules`
    values : (n_members, n_parameters)
    until, rtol : as of `settled`
    """
    rules = Rules(scenario, until)
    runner = Compiled(model, rules, values, min(rtol, DECIDING))
    return _courses(rules, len(values), runner)


@dataclass(frozen=True)
class Stretch:
    """Days from ``first`` (-inf: day 0, from the initial states) to ``last``, and what is given."""

    first: float
    last: float
    doses: tuple[Dose, ...]
    held: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Seen:
    """Some members' levels (n_members, n_days, n_names) and states (n_members, n_days, n_states).

    ``failed`` (n_members,) tells whose run did not reach the end.
    """

    days: Array
    levels: Array
    states: Array
    failed: NDArray[np.bool_]


class Runner(Protocol):
    """Runs members over a stretch."""

    def stretch(self, book: Book) -> Stretch:
        """What to run next for a member with this book."""

    def see(self, stretch: Stretch, members: Indices, start: Array, days: Array) -> Seen:
        """Run it for members that begin it with the states ``start`` (n_members, n_states)."""


@dataclass(frozen=True, eq=False)
class Plain:
    """One run of a model by a method of SciPy, from day 0."""

    model: Model
    rules: Rules
    method: str
    rtol: float

    def stretch(self, book: Book) -> Stretch:
        """All of it."""
        return Stretch(-math.inf, self.rules.until, _given(self.rules, book))

    def see(self, stretch: Stretch, members: Indices, start: Array, days: Array) -> Seen:
        """Run it."""
        decided = replace(self.rules.decided(self.rules.opened), doses=Schedule(stretch.doses))
        line, _ = timeline(self.model, decided, days)
        states, quantities, _ = integrate(self.model, line, method=self.method, rtol=self.rtol)
        columns = [self.model.course_ids.index(name) for name in self.rules.watched]
        levels = np.hstack([states, quantities])[None, :, columns]
        return Seen(days, levels, states[None], np.zeros(1, dtype=bool))


@dataclass(frozen=True, eq=False)
class Compiled:
    """Runs of many members by the compiled kernel; ``values`` (n_members, n_parameters)."""

    model: Model
    rules: Rules
    values: Array
    rtol: float

    @cached_property
    def in_windows(self) -> bool:
        """Whether a run may begin anywhere."""
        scenario = self.rules.scenario
        steady = any(dose.steady for dose in scenario.doses)
        return not (steady or scenario.resets or timed_by_parameters(self.model, scenario))

    def stretch(self, book: Book) -> Stretch:
        """The next window, or the rest of one; all of it where there are no windows."""
        until, first = self.rules.until, book.settled
        if not self.in_windows:
            return Stretch(-math.inf, until, _given(self.rules, book))
        whole = math.floor((max(first, 0.0) + SAME_TIME) / WINDOW) + 1
        last = min(until, whole * WINDOW)
        ordered = tuple(order.dose for order in book.ordered if not order.held)
        running = self._running(self._times(ordered), first, last)
        planned = set(self._running(self._planned, first, last)) if book.held else ()
        held = tuple(i for i, _ in book.held if i in planned)
        return Stretch(first, last, tuple(ordered[i] for i in running), held)

    @cached_property
    def _planned(self) -> tuple[Array, Array]:
        """When the planned doses arrive and end, (n_doses,) each."""
        return self._times(self.rules.scenario.doses)

    def _times(self, doses: Iterable[Dose]) -> tuple[Array, Array]:
        scenario, given = self.rules.scenario, Schedule(tuple(doses))
        inputs = expand(self.model, given, values_on(self.model, scenario))
        return np.array([i.start for i in inputs]), np.array([i.stop for i in inputs])

    @staticmethod
    def _running(times: tuple[Array, Array], first: float, last: float) -> list[int]:
        """Which doses arrive, or still run, between two days."""
        starts, stops = times
        found = (starts <= last + SAME_TIME) & (stops >= first - SAME_TIME)
        return [int(i) for i in np.flatnonzero(found)]

    def _doses(self, stretch: Stretch) -> Schedule:
        """What is given in a stretch."""
        if not self.in_windows:
            return Schedule(stretch.doses)
        planned = self._running(self._planned, stretch.first, stretch.last)
        doses = self.rules.scenario.doses.doses
        left = tuple(doses[i] for i in planned if i not in stretch.held)
        return Schedule(left + stretch.doses)

    def see(self, stretch: Stretch, members: Indices, start: Array, days: Array) -> Seen:
        """Run it."""
        decided = replace(self.rules.scenario, doses=self._doses(stretch), triggers=(), holds=())
        line, _ = timeline(self.model, decided, days)
        begin = None
        if stretch.first >= 0:
            line, begin = line.onward(stretch.first), start
        runs = compile_kernel(self.model).run(
            line, self.values[members], rtol=self.rtol, start=begin
        )
        ids, n_states = self.model.course_ids, len(self.model.states)
        columns = [ids.index(name) for name in self.rules.watched]
        levels = [
            runs.states[:, :, k] if k < n_states else runs.quantities[:, :, k - n_states]
            for k in columns
        ]
        return Seen(days, np.stack(levels, axis=-1), runs.states, runs.status != DONE)


def _given(rules: Rules, book: Book) -> tuple[Dose, ...]:
    return rules.decided(book).doses.doses


@dataclass(frozen=True, eq=False)
class Member:
    """Where a member stands: its row in the table, its book, its states (n_states,) by then."""

    row: int
    book: Book
    states: Array


def _courses(rules: Rules, n_members: int, runner: Runner) -> list[Course]:
    """All members decided, side by side as long as the same is given to them."""
    waiting = [Member(row, rules.opened, np.zeros(0)) for row in range(n_members)]
    over: dict[Book, list[int]] = {}
    while waiting:
        together: dict[Stretch, list[Member]] = {}
        for member in waiting:
            if rules.over(member.book):
                book = replace(member.book, settled=rules.until)
                over.setdefault(book, []).append(member.row)
            else:
                together.setdefault(runner.stretch(member.book), []).append(member)
        waiting = [
            after for stretch, members in together.items()
            for after in _advanced(replace(rules, until=stretch.last), members, runner, stretch)
        ]  # fmt: skip
    courses = [
        Course(np.array(sorted(rows)), rules.decided(book), rules.orders(book))
        for book, rows in over.items()
    ]
    return sorted(courses, key=lambda course: int(course.members[0]))


def _advanced(
    rules: Rules, members: list[Member], runner: Runner, stretch: Stretch
) -> list[Member]:
    """The members after the next decision of each in a stretch, or at its end."""
    days = _union([*(rules.looks(member.book) for member in members), np.array([stretch.last])])
    seen = _seen(members, runner, stretch, days)
    levels = [Levels(rules.watched, days, own) for own in seen.levels]
    minutes = [rules.minutes(m.book, own) for m, own in zip(members, levels, strict=True)]
    rows = [i for i, asked in enumerate(minutes) if len(asked)]
    near: dict[int, tuple[Levels, Array]] = {}
    if rows:
        asked = _union(minutes)
        closer = _seen([members[i] for i in rows], runner, stretch, asked)
        for place, i in enumerate(rows):
            near[i] = Levels(rules.watched, asked, closer.levels[place]), closer.states[place]
    following = []
    for i, member in enumerate(members):
        book = rules.decide(member.book, levels[i], near[i][0] if i in near else None)
        if book is None:
            end = math.inf if seen.failed[i] else stretch.last
            book, states = replace(member.book, settled=end), seen.states[i, -1]
        elif levels[i].cover(book.settled):
            states = seen.states[i, np.searchsorted(days, book.settled - SAME_TIME)]
        else:
            at = np.searchsorted(near[i][0].days, book.settled - SAME_TIME)
            states = near[i][1][at]
        following.append(Member(member.row, book, states))
    return following


def _seen(members: list[Member], runner: Runner, stretch: Stretch, days: Array) -> Seen:
    rows, start = np.array([m.row for m in members]), np.array([m.states for m in members])
    return runner.see(stretch, rows, start, days)


def _union(days: Iterable[Array]) -> Array:
    return distinct(np.concatenate(list(days)))
