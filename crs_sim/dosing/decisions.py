"""Decisions of triggers and holds from given levels: when to evaluate them, and which doses result.

Nothing is simulated here: `crs_sim.solver.trigger_resolution` does that. `crs_sim.dosing.ledger`
documents the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, unknown_name
from ..model import Array, Model
from .doses import HOURS_PER_DAY, Dose, Schedule, expand
from .event_times import SAME_TIME
from .scenario import Condition, Scenario, Trigger

PLANNED = "planned"
MINUTES_PER_DAY = 1440
MINUTE_TOLERANCE = 1e-6
"""Distance from a whole minute, in minutes, that counts as zero."""


@dataclass(frozen=True)
class Order:
    """An ordered dose, given or held.

    Parameters
    ----------
    dose : Dose
    by : str, "planned" or "trigger NAME"
    held : str, the hold that prevented it, in words; "" if it is given
    """

    dose: Dose
    by: str = PLANNED
    held: str = ""


@dataclass(frozen=True)
class DecisionLog:
    """The decisions made up to a day, that day included.

    Parameters
    ----------
    fired : for each trigger the days on which it fired
    ordered : tuple of Order, the doses of the triggers, in the order they fired
    held : (index in the plan, the hold in words), planned doses that were not given
    decided_until : float, the day up to which decisions are made
    """

    fired: tuple[tuple[float, ...], ...]
    ordered: tuple[Order, ...] = ()
    held: tuple[tuple[int, str], ...] = ()
    decided_until: float = -math.inf


@dataclass(frozen=True, eq=False)
class MonitoredLevels:
    """Levels in one run: ``values`` (n_days, n_names) on ``days`` (n_days,)."""

    names: tuple[str, ...]
    days: Array
    values: Array

    def hold(self, when: Condition, days: Array) -> NDArray[np.bool_]:
        """Whether a condition is met on some of these days; False where the run had failed."""
        rows = np.searchsorted(self.days, days - SAME_TIME)
        met = [part.holds(self.values[rows, self.names.index(part.quantity)])
               for part in when.parts]  # fmt: skip
        return np.asarray(np.all(met, axis=0))

    def cover(self, day: float) -> bool:
        """Whether a day is among these days."""
        return bool((np.abs(self.days - day) <= SAME_TIME).any())


@dataclass(frozen=True)
class Onset:
    """A trigger whose condition is met on day ``at`` and was not at the evaluation ``before``."""

    trigger: int
    before: float
    at: float

    @property
    def between(self) -> Array:
        """The whole minutes between the two."""
        first = math.floor(self.before * MINUTES_PER_DAY + MINUTE_TOLERANCE) + 1
        return (
            np.arange(first, math.ceil(self.at * MINUTES_PER_DAY - MINUTE_TOLERANCE))
            / MINUTES_PER_DAY
        )


@dataclass(frozen=True)
class Rules:
    """The triggers and holds of a scenario, over a run that ends on day ``until``."""

    scenario: Scenario
    until: float

    @property
    def watched(self) -> tuple[str, ...]:
        """The states and quantities in their conditions."""
        conditions = [trigger.when for trigger in self.scenario.triggers]
        conditions += [hold.when for hold in self.scenario.holds]
        return tuple(dict.fromkeys(part.quantity for when in conditions for part in when.parts))

    @property
    def opened(self) -> DecisionLog:
        """The book at the start of a run."""
        return DecisionLog(((),) * len(self.scenario.triggers))

    def orders(self, book: DecisionLog) -> tuple[Order, ...]:
        """All doses, given or held: first the planned ones, then those of triggers."""
        held = dict(book.held)
        planned = [Order(d, held=held.get(i, "")) for i, d in enumerate(self.scenario.doses)]
        return (*planned, *book.ordered)

    def decided(self, book: DecisionLog) -> Scenario:
        """The scenario with the doses of a book, without triggers and holds."""
        given = tuple(order.dose for order in self.orders(book) if not order.held)
        return replace(self.scenario, doses=Schedule(given), triggers=(), holds=())

    @cached_property
    def _may_be_held(self) -> tuple[tuple[int, Dose], ...]:
        """Planned doses of drugs that have a hold, with their index in the plan."""
        return tuple((i, d) for i, d in enumerate(self.scenario.doses) if d.drug in self._on_hold)

    @cached_property
    def _on_hold(self) -> frozenset[str]:
        return frozenset(hold.drug for hold in self.scenario.holds)

    def over(self, book: DecisionLog) -> bool:
        """Whether no trigger or hold remains to be evaluated."""
        for trigger, fired in zip(self.scenario.triggers, book.fired, strict=True):
            last = min(trigger.last, self.until) + SAME_TIME
            earliest = max(_next_allowed(trigger, fired), book.decided_until + 2 * SAME_TIME)
            if len(fired) < trigger.at_most and earliest <= last:
                return False
        return not self._due(book)

    def looks(self, book: DecisionLog) -> Array:
        """The days to evaluate, ascending: ward rounds, whole hours, doses that may be held."""
        days = [self._trigger_days(book, k) for k in range(len(self.scenario.triggers))]
        due = [dose.day for dose in self._due(book)]
        return distinct(np.concatenate([*days, np.array(due, dtype=float)]))

    def minutes(self, book: DecisionLog, seen: MonitoredLevels) -> Array:
        """Further days to evaluate: minutes before the first hour at which a condition is met."""
        onsets = self._onsets(book, seen)
        return distinct(np.concatenate([np.zeros(0), *(onset.between for onset in onsets)]))

    def decide(
        self, book: DecisionLog, seen: MonitoredLevels, closer: MonitoredLevels | None = None
    ) -> DecisionLog | None:
        """The book after the next decision; None if there is none.

        Parameters
        ----------
        book : Book
        seen : Levels on the days of `looks`
        closer : Levels on the days of `minutes`, if any
        """
        fires = []
        for onset in self._onsets(book, seen):
            days = onset.between
            if closer is not None and len(days):
                days = days[closer.hold(self.scenario.triggers[onset.trigger].when, days)]
            fires.append((float(days[0]) if len(days) else onset.at, onset.trigger))
        held = [dose.day for dose in self._due(book) if self._reason(dose, seen)]
        now = min([day for day, _ in fires] + held, default=math.inf)
        if math.isinf(now):
            return None
        for day, k in fires:
            if day <= now + SAME_TIME:
                book = self._fired(book, k, day)
        levels = seen if closer is None or seen.cover(now) else closer
        return self._apply_holds(book, now, levels)

    def _trigger_days(self, book: DecisionLog, k: int) -> Array:
        """The days on which a trigger is evaluated, without the minutes."""
        trigger, fired = self.scenario.triggers[k], book.fired[k]
        if len(fired) == trigger.at_most:
            return np.zeros(0)
        earliest, last = _next_allowed(trigger, fired), min(trigger.last, self.until)
        if trigger.every_hours is None:
            hours = np.arange(math.ceil(earliest * HOURS_PER_DAY), last * HOURS_PER_DAY)
            days = distinct(np.array([earliest, *hours / HOURS_PER_DAY, last]))
        else:
            rounds = (last - trigger.first + SAME_TIME) * HOURS_PER_DAY / trigger.every_hours
            counted = np.arange(math.floor(rounds) + 1)
            days = np.minimum(trigger.first + counted * trigger.every_hours / HOURS_PER_DAY, last)
        after = max(earliest, book.decided_until + 2 * SAME_TIME)
        return np.asarray(days[(days >= after - SAME_TIME) & (days <= last + SAME_TIME)])

    def _due(self, book: DecisionLog) -> list[Dose]:
        """The doses still to come that a hold may leave out."""
        doses = [dose for _, dose in self._may_be_held]
        doses += [order.dose for order in book.ordered if order.dose.drug in self._on_hold]
        first, last = book.decided_until + SAME_TIME, self.until + SAME_TIME
        return [dose for dose in doses if first < dose.day <= last]

    def _reason(self, dose: Dose, levels: MonitoredLevels) -> str:
        """The hold that leaves out a dose; "" if there is none."""
        day = np.array([dose.day])
        reasons = (
            str(hold) for hold in self.scenario.holds
            if hold.drug == dose.drug and levels.hold(hold.when, day)[0]
        )  # fmt: skip
        return next(reasons, "")

    def _onsets(self, book: DecisionLog, seen: MonitoredLevels) -> list[Onset]:
        """The triggers that may fire next."""
        onsets = []
        for k, trigger in enumerate(self.scenario.triggers):
            days = self._trigger_days(book, k)
            holding = np.flatnonzero(seen.hold(trigger.when, days))
            if len(holding) == 0:
                continue
            index, at = int(holding[0]), float(days[int(holding[0])])
            before = float(days[index - 1]) if index else book.decided_until
            earliest = _next_allowed(trigger, book.fired[k])
            if trigger.every_hours is not None or before < earliest - SAME_TIME:
                before = at  # no minutes to evaluate in between
            onsets.append(Onset(k, before, at))
        held = [dose.day for dose in self._due(book) if self._reason(dose, seen)]
        first = min([onset.at for onset in onsets] + held, default=math.inf)
        return [o for o in onsets if o.before < first or o.at <= first + SAME_TIME]

    def _fired(self, book: DecisionLog, k: int, day: float) -> DecisionLog:
        """The book after a trigger fired."""
        trigger = self.scenario.triggers[k]
        by = f"trigger {trigger.name}"
        orders = tuple(Order(dose, by) for dose in trigger.doses.shifted(day))
        fired = tuple((*f, day) if i == k else f for i, f in enumerate(book.fired))
        return replace(book, ordered=book.ordered + orders, fired=fired)

    def _apply_holds(self, book: DecisionLog, now: float, levels: MonitoredLevels) -> DecisionLog:
        """The book with each dose that is due now marked as given or held."""
        held = [
            (i, self._reason(dose, levels))
            for i, dose in self._may_be_held if abs(dose.day - now) <= SAME_TIME
        ]  # fmt: skip
        ordered = tuple(
            replace(order, held=self._reason(order.dose, levels))
            if abs(order.dose.day - now) <= SAME_TIME else order
            for order in book.ordered
        )  # fmt: skip
        kept = tuple((i, reason) for i, reason in held if reason)
        return replace(book, ordered=ordered, held=book.held + kept, decided_until=now)


def _next_allowed(trigger: Trigger, fired: tuple[float, ...]) -> float:
    """The first day on which a trigger may fire next."""
    if not fired:
        return trigger.first
    number, every = trigger.course or (1, 0.0)
    day = fired[-1] + ((number - 1) * every + trigger.hours_apart) / HOURS_PER_DAY
    return (
        day
        if trigger.every_hours
        else math.ceil(day * MINUTES_PER_DAY - MINUTE_TOLERANCE) / MINUTES_PER_DAY
    )


def distinct(days: Array) -> Array:
    """The days in ascending order, without duplicates."""
    ascending = np.sort(days)
    first = np.ones(len(days), dtype=bool)
    first[1:] = ascending[1:] - ascending[:-1] > SAME_TIME
    return np.asarray(ascending[first])


def check_rules(model: Model, scenario: Scenario, until: float) -> None:
    """Check that the triggers and holds are valid for a model and a run to day ``until``.

    Raises
    ------
    UnknownNameError, UnitError, InputError
        Naming the scenario, and the trigger or hold.
    """
    for trigger in scenario.triggers:
        where = f"{scenario.name}: trigger {trigger.name!r}"
        _check(model, trigger.when, trigger.dose.drug, where)
        _check_dose(model, trigger.dose, where)
        every = trigger.every_hours
        if every is not None and every * MINUTES_PER_DAY < HOURS_PER_DAY:
            raise InputError(
                f"{where}: it is evaluated every {every:g} hours; give a minute "
                "or more, or leave every_hours out to monitor continuously"
            )
        if trigger.first > until + SAME_TIME:
            raise InputError(
                f"{where}: it is first evaluated on day {trigger.first:g}, and the run ends on "
                f"day {until:g}; run longer, or give an earlier first day"
            )
    for hold in scenario.holds:
        _check(model, hold.when, hold.drug, f"{scenario.name}: hold '{hold}'")


def _check(model: Model, when: Condition, drug: str, where: str) -> None:
    for part in when.parts:
        if part.quantity not in model.course_ids:
            raise unknown_name("state or quantity", part.quantity, model.course_ids, where)
    drugs = [d.name for d in model.drugs]
    if drug not in drugs and drug not in model.state_ids:
        raise unknown_name("drug", drug, drugs, where)


def _check_dose(model: Model, dose: Dose, where: str) -> None:
    drug = model.drug(dose.drug)
    _, power = drug.conversion(dose.unit, where)
    if power and "weight" not in model.values:
        raise InputError(f"{where}: {dose.unit} needs a body weight; the model has no 'weight'")
    if dose.steady or dose.ordered is not None:
        raise InputError(f"{where}: its dose must be an ordinary one, not a steady state")
    expand(model, Schedule((dose,)))
