"""Resolve triggers and holds: simulate until every conditional dose is decided.

Each member of a table is simulated in windows of `WINDOW` days, each starting from the final states
of the one before. After a decision its run resumes from that day. Members given the same doses in a
window run side by side, so only windows with a decision are run for few members. SciPy's methods
rerun everything from day 0 after each decision; so does the compiled one where parameters move
doses, or the schedule has resets or steady states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..dosing import (
    SAME_TIME,
    DecisionLog,
    Dose,
    Ledger,
    MonitoredLevels,
    Order,
    Rules,
    Scenario,
    Schedule,
    build_timeline,
    check_rules,
    distinct,
    expand,
    ledger_of,
    parameters_by_day,
    timed_by_parameters,
)
from ..model import Array, Indices, Model
from .integration import COMPILED, integrate_timeline
from .kernel import compile_kernel
from .rosenbrock import DONE

DECISION_RTOL = 1e-6
"""Relative tolerance of the runs that decide: crossings are right to a fraction of a second."""
SCIPY_DECISION_RTOL = 1e-8
"""The same for SciPy's methods: BDF is a hundred times less accurate than its tolerance."""
WINDOW = 2.0
"""Days; a whole number, so that each window ends on a whole hour."""


@dataclass(frozen=True, eq=False)
class MemberGroup:
    """Members of a table with the same dose ledger, and their scenario with its doses decided.

    ``members`` (n,) are their rows in the table.
    """

    members: Indices
    scenario: Scenario
    orders: tuple[Order, ...]


def resolve_triggers(
    model: Model, scenario: Scenario, *, until: float,
    method: str = COMPILED, rtol: float = DECISION_RTOL,
) -> tuple[Scenario, Ledger]:  # fmt: skip
    """Resolve the triggers and holds of a scenario: the decided scenario and its dose ledger.

    Parameters
    ----------
    model : Model
    scenario : Scenario, its values replace those of the model
    until : float, last day of the run
    method, rtol : as in `crs_sim.simulate`; rtol is at most `DECISION_RTOL`
        (`SCIPY_DECISION_RTOL` for a method of SciPy)

    Raises
    ------
    InputError, UnknownNameError, UnitError
        For a trigger or hold that names something not in the model, a dose whose unit cannot be
        converted, or a trigger that is first checked after the end of the run.
    IntegrationError
        If a method of SciPy fails. The compiled one resolves everything before the failure.

    Examples
    --------
    >>> from crs_sim import Condition, Trigger
    >>> from crs_sim import Parameter, State
    >>> growth = Model(
    ...     "growth", (State("A", "1", "k*A", "mg", "", ""), State("B", "0", "-B", "mg", "", "")),
    ...     (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> late = Trigger("late", Condition.read("A >= 4"), Dose(0, "B", 5), at_most=2, hours_apart=24)
    >>> print(resolve_triggers(growth, Scenario("watched", triggers=(late,)), until=3)[1])
    day 2.00069: B 5 mg (trigger late)
    """
    patient = model.with_values(**scenario.values)
    if scenario.decided:
        return scenario, ledger_of(patient, scenario.doses, scenario, until=until)
    check_rules(patient, scenario, until)
    rules = Rules(scenario, until)
    runner: Runner
    if method == COMPILED:
        values = np.array([list(patient.values.values())])
        runner = CompiledRunner(patient, rules, values, min(rtol, DECISION_RTOL))
    else:
        runner = SciPyRunner(patient, rules, method, min(rtol, SCIPY_DECISION_RTOL))
    groups = _resolve(rules, 1, runner)
    return groups[0].scenario, ledger_of(patient, groups[0].orders, scenario, until=until)


def resolve_members(
    model: Model, scenario: Scenario, values: Array, *, until: float, rtol: float = DECISION_RTOL
) -> list[MemberGroup]:
    """Resolve the triggers and holds of many members at once, grouped by dose ledger.

    Parameters
    ----------
    model : Model, with the scenario's values
    scenario : Scenario, already checked by `check_rules`
    values : (n_members, n_parameters)
    until, rtol : as in `resolve_triggers`
    """
    rules = Rules(scenario, until)
    runner = CompiledRunner(model, rules, values, min(rtol, DECISION_RTOL))
    return _resolve(rules, len(values), runner)


@dataclass(frozen=True)
class Interval:
    """A simulated interval, ``first`` (-inf: day 0, initial states) to ``last``, and its doses."""

    first: float
    last: float
    doses: tuple[Dose, ...]
    held: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled levels (n_members, n_days, n_names) and states (n_members, n_days, n_states).

    ``failed`` (n_members,) marks the runs that did not reach the end.
    """

    days: Array
    levels: Array
    states: Array
    failed: NDArray[np.bool_]


class Runner(Protocol):
    """Simulates members over an interval."""

    def interval(self, book: DecisionLog) -> Interval:
        """The interval to simulate next for a member with these decisions."""

    def run(self, interval: Interval, members: Indices, start: Array, days: Array) -> Samples:
        """Simulate it for members with the initial states ``start`` (n_members, n_states)."""


@dataclass(frozen=True, eq=False)
class SciPyRunner:
    """One member simulated by a method of SciPy, always from day 0."""

    model: Model
    rules: Rules
    method: str
    rtol: float

    def interval(self, book: DecisionLog) -> Interval:
        """The whole run."""
        return Interval(-math.inf, self.rules.until, _doses_given(self.rules, book))

    def run(self, interval: Interval, members: Indices, start: Array, days: Array) -> Samples:
        """Simulate it."""
        decided = replace(self.rules.decided(self.rules.opened), doses=Schedule(interval.doses))
        line, _ = build_timeline(self.model, decided, days)
        states, quantities, *_ = integrate_timeline(
            self.model, line, method=self.method, rtol=self.rtol
        )
        columns = [self.model.course_ids.index(name) for name in self.rules.watched]
        levels = np.hstack([states, quantities])[None, :, columns]
        return Samples(days, levels, states[None], np.zeros(1, dtype=bool))


@dataclass(frozen=True, eq=False)
class CompiledRunner:
    """Many members simulated by the compiled kernel; ``values`` (n_members, n_parameters)."""

    model: Model
    rules: Rules
    values: Array
    rtol: float

    @cached_property
    def in_windows(self) -> bool:
        """Whether a run may start on any day."""
        scenario = self.rules.scenario
        steady = any(dose.steady for dose in scenario.doses)
        return not (steady or scenario.resets or timed_by_parameters(self.model, scenario))

    def interval(self, book: DecisionLog) -> Interval:
        """The next window or the rest of one; the whole run where windows cannot be used."""
        until, first = self.rules.until, book.decided_until
        if not self.in_windows:
            return Interval(-math.inf, until, _doses_given(self.rules, book))
        windows = math.floor((max(first, 0.0) + SAME_TIME) / WINDOW) + 1
        last = min(until, windows * WINDOW)
        ordered = tuple(order.dose for order in book.ordered if not order.held)
        running = self._active(self._start_and_end(ordered), first, last)
        planned = set(self._active(self._planned, first, last)) if book.held else ()
        held = tuple(i for i, _ in book.held if i in planned)
        return Interval(first, last, tuple(ordered[i] for i in running), held)

    @cached_property
    def _planned(self) -> tuple[Array, Array]:
        """Start and end days of the planned doses, (n_doses,) each."""
        return self._start_and_end(self.rules.scenario.doses)

    def _start_and_end(self, doses: Iterable[Dose]) -> tuple[Array, Array]:
        scenario, given = self.rules.scenario, Schedule(tuple(doses))
        inputs = expand(self.model, given, parameters_by_day(self.model, scenario))
        return np.array([i.start for i in inputs]), np.array([i.stop for i in inputs])

    @staticmethod
    def _active(times: tuple[Array, Array], first: float, last: float) -> list[int]:
        """Indices of the doses that start or still run between two days."""
        starts, stops = times
        found = (starts <= last + SAME_TIME) & (stops >= first - SAME_TIME)
        return [int(i) for i in np.flatnonzero(found)]

    def _doses(self, interval: Interval) -> Schedule:
        """The doses given in an interval."""
        if not self.in_windows:
            return Schedule(interval.doses)
        planned = self._active(self._planned, interval.first, interval.last)
        doses = self.rules.scenario.doses.doses
        kept = tuple(doses[i] for i in planned if i not in interval.held)
        return Schedule(kept + interval.doses)

    def run(self, interval: Interval, members: Indices, start: Array, days: Array) -> Samples:
        """Simulate it."""
        decided = replace(self.rules.scenario, doses=self._doses(interval), triggers=(), holds=())
        line, _ = build_timeline(self.model, decided, days)
        start_states = None
        if interval.first >= 0:
            line, start_states = line.onward(interval.first), start
        runs = compile_kernel(self.model).run(
            line, self.values[members], rtol=self.rtol, start=start_states
        )
        ids, n_states = self.model.course_ids, len(self.model.states)
        columns = [ids.index(name) for name in self.rules.watched]
        levels = [
            runs.states[:, :, k] if k < n_states else runs.quantities[:, :, k - n_states]
            for k in columns
        ]
        return Samples(days, np.stack(levels, axis=-1), runs.states, runs.status != DONE)


def _doses_given(rules: Rules, book: DecisionLog) -> tuple[Dose, ...]:
    return rules.decided(book).doses.doses


@dataclass(frozen=True, eq=False)
class Member:
    """A member in progress: row in the table, decisions so far, states (n_states,) at that day."""

    row: int
    book: DecisionLog
    states: Array


def _resolve(rules: Rules, n_members: int, runner: Runner) -> list[MemberGroup]:
    """Resolve all members, side by side for as long as their doses are the same."""
    waiting = [Member(row, rules.opened, np.zeros(0)) for row in range(n_members)]
    finished: dict[DecisionLog, list[int]] = {}
    while waiting:
        by_interval: dict[Interval, list[Member]] = {}
        for member in waiting:
            if rules.over(member.book):
                book = replace(member.book, decided_until=rules.until)
                finished.setdefault(book, []).append(member.row)
            else:
                by_interval.setdefault(runner.interval(member.book), []).append(member)
        waiting = [
            advanced for interval, members in by_interval.items()
            for advanced in _advance(replace(rules, until=interval.last), members, runner, interval)
        ]  # fmt: skip
    groups = [
        MemberGroup(np.array(sorted(rows)), rules.decided(book), rules.orders(book))
        for book, rows in finished.items()
    ]
    return sorted(groups, key=lambda group: int(group.members[0]))


def _advance(
    rules: Rules, members: list[Member], runner: Runner, interval: Interval
) -> list[Member]:
    """Advance each member to its next decision in an interval, or to its end."""
    days = _union([*(rules.looks(member.book) for member in members), np.array([interval.last])])
    samples = _simulate(members, runner, interval, days)
    levels = [MonitoredLevels(rules.watched, days, own) for own in samples.levels]
    minutes = [rules.minutes(m.book, own) for m, own in zip(members, levels, strict=True)]
    rows = [i for i, own in enumerate(minutes) if len(own)]
    by_minute: dict[int, tuple[MonitoredLevels, Array]] = {}
    if rows:
        fine_days = _union(minutes)
        fine = _simulate([members[i] for i in rows], runner, interval, fine_days)
        for place, i in enumerate(rows):
            by_minute[i] = (
                MonitoredLevels(rules.watched, fine_days, fine.levels[place]),
                fine.states[place],
            )
    following = []
    for i, member in enumerate(members):
        book = rules.decide(member.book, levels[i], by_minute[i][0] if i in by_minute else None)
        if book is None:
            end = math.inf if samples.failed[i] else interval.last
            book, states = replace(member.book, decided_until=end), samples.states[i, -1]
        elif levels[i].cover(book.decided_until):
            states = samples.states[i, np.searchsorted(days, book.decided_until - SAME_TIME)]
        else:
            at = np.searchsorted(by_minute[i][0].days, book.decided_until - SAME_TIME)
            states = by_minute[i][1][at]
        following.append(Member(member.row, book, states))
    return following


def _simulate(members: list[Member], runner: Runner, interval: Interval, days: Array) -> Samples:
    rows, start = np.array([m.row for m in members]), np.array([m.states for m in members])
    return runner.run(interval, rows, start, days)


def _union(days: Iterable[Array]) -> Array:
    return distinct(np.concatenate(list(days)))
