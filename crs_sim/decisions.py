"""What triggers and holds decide, given levels: when they look, and what follows from it.

Nothing is run here; `crs_sim.ledger` says what the rules mean, and runs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .arrivals import SAME_TIME
from .dosing import HOURS_PER_DAY, Dose, Schedule, expand
from .errors import InputError, unknown_name
from .model import Model
from .scenario import Scenario
from .triggers import Condition, Trigger
from .units import conversion_factor

Array = NDArray[np.float64]

PLANNED = "planned"
MINUTES = 1440
"""In a day."""
ALMOST = 1e-6
"""Of a minute: as near as this to a whole one is whole."""


@dataclass(frozen=True)
class Order:
    """A dose that somebody ordered.

    Parameters
    ----------
    dose : Dose
    by : str, "planned" or "trigger NAME"
    held : str, the hold that kept it back, in words; "" if it is given
    """

    dose: Dose
    by: str = PLANNED
    held: str = ""


@dataclass(frozen=True)
class Book:
    """What is settled up to a day, that day included.

    Parameters
    ----------
    fired : for each trigger the days on which it fired
    ordered : tuple of Order, what they ordered, in that order
    held : (place in the plan, the hold in words), planned doses that were not given
    settled : float, day
    """

    fired: tuple[tuple[float, ...], ...]
    ordered: tuple[Order, ...] = ()
    held: tuple[tuple[int, str], ...] = ()
    settled: float = -math.inf


@dataclass(frozen=True, eq=False)
class Levels:
    """What was seen of one run: ``values`` (n_days, n_names) on ``days`` (n_days,)."""

    names: tuple[str, ...]
    days: Array
    values: Array

    def hold(self, when: Condition, days: Array) -> NDArray[np.bool_]:
        """Whether a condition holds on days that were looked at; never where a run had failed."""
        rows = np.searchsorted(self.days, days - SAME_TIME)
        return np.asarray(when.holds(self.values[rows, self.names.index(when.quantity)]))

    def cover(self, day: float) -> bool:
        """Whether a day was looked at."""
        return bool((np.abs(self.days - day) <= SAME_TIME).any())


@dataclass(frozen=True)
class Finding:
    """A trigger whose condition holds ``at`` a day, and did not when last seen, ``before``."""

    trigger: int
    before: float
    at: float

    @property
    def between(self) -> Array:
        """The whole minutes between the two."""
        first = math.floor(self.before * MINUTES + ALMOST) + 1
        return np.arange(first, math.ceil(self.at * MINUTES - ALMOST)) / MINUTES


@dataclass(frozen=True)
class Rules:
    """The triggers and holds of a scenario, over a run that ends on day ``until``."""

    scenario: Scenario
    until: float

    @property
    def watched(self) -> tuple[str, ...]:
        """The states and quantities that they ask for."""
        conditions = [trigger.when for trigger in self.scenario.triggers]
        conditions += [hold.when for hold in self.scenario.holds]
        return tuple(dict.fromkeys(when.quantity for when in conditions))

    @property
    def opened(self) -> Book:
        """The book before the run."""
        return Book(((),) * len(self.scenario.triggers))

    def orders(self, book: Book) -> tuple[Order, ...]:
        """All doses, given or held: the plan's first, then those of triggers."""
        held = dict(book.held)
        planned = [Order(d, held=held.get(i, "")) for i, d in enumerate(self.scenario.doses)]
        return (*planned, *book.ordered)

    def decided(self, book: Book) -> Scenario:
        """The scenario with the doses of a book, and nothing left to decide."""
        given = tuple(order.dose for order in self.orders(book) if not order.held)
        return replace(self.scenario, doses=Schedule(given), triggers=(), holds=())

    @cached_property
    def _may_be_held(self) -> tuple[tuple[int, Dose], ...]:
        """Planned doses of drugs that have a hold, and their places."""
        return tuple((i, d) for i, d in enumerate(self.scenario.doses) if d.drug in self._on_hold)

    @cached_property
    def _on_hold(self) -> frozenset[str]:
        return frozenset(hold.drug for hold in self.scenario.holds)

    def over(self, book: Book) -> bool:
        """Whether there is nothing more to look at."""
        for trigger, fired in zip(self.scenario.triggers, book.fired, strict=True):
            last = min(trigger.last, self.until) + SAME_TIME
            opens = max(_opens(trigger, fired), book.settled + 2 * SAME_TIME)
            if len(fired) < trigger.at_most and opens <= last:
                return False
        return not self._due(book)

    def looks(self, book: Book) -> Array:
        """The days to look at, ascending: rounds, whole hours, doses that may be held."""
        days = [self._looks(book, k) for k in range(len(self.scenario.triggers))]
        due = [dose.day for dose in self._due(book)]
        return distinct(np.concatenate([*days, np.array(due, dtype=float)]))

    def minutes(self, book: Book, seen: Levels) -> Array:
        """The days to look at as well: minutes before the first hour at whose end one holds."""
        found = self._found(book, seen)
        return distinct(np.concatenate([np.zeros(0), *(finding.between for finding in found)]))

    def decide(self, book: Book, seen: Levels, closer: Levels | None = None) -> Book | None:
        """The book after the next instant at which something is decided; None if there is none.

        Parameters
        ----------
        book : Book
        seen : Levels on the days of `looks`
        closer : Levels on the days of `minutes`, if there are any
        """
        fires = []
        for finding in self._found(book, seen):
            days = finding.between
            if closer is not None and len(days):
                days = days[closer.hold(self.scenario.triggers[finding.trigger].when, days)]
            fires.append((float(days[0]) if len(days) else finding.at, finding.trigger))
        held = [dose.day for dose in self._due(book) if self._reason(dose, seen)]
        now = min([day for day, _ in fires] + held, default=math.inf)
        if math.isinf(now):
            return None
        for day, k in fires:
            if day <= now + SAME_TIME:
                book = self._fired(book, k, day)
        levels = seen if closer is None or seen.cover(now) else closer
        return self._settled(book, now, levels)

    def _looks(self, book: Book, k: int) -> Array:
        """The days on which a trigger looks, but for the minutes."""
        trigger, fired = self.scenario.triggers[k], book.fired[k]
        if len(fired) == trigger.at_most:
            return np.zeros(0)
        opens, last = _opens(trigger, fired), min(trigger.last, self.until)
        if trigger.every_hours is None:
            hours = np.arange(math.ceil(opens * HOURS_PER_DAY), last * HOURS_PER_DAY)
            days = distinct(np.array([opens, *hours / HOURS_PER_DAY, last]))
        else:
            rounds = (last - trigger.first + SAME_TIME) * HOURS_PER_DAY / trigger.every_hours
            counted = np.arange(math.floor(rounds) + 1)
            days = np.minimum(trigger.first + counted * trigger.every_hours / HOURS_PER_DAY, last)
        after = max(opens, book.settled + 2 * SAME_TIME)
        return np.asarray(days[(days >= after - SAME_TIME) & (days <= last + SAME_TIME)])

    def _due(self, book: Book) -> list[Dose]:
        """The doses that a hold may yet keep back."""
        doses = [dose for _, dose in self._may_be_held]
        doses += [order.dose for order in book.ordered if order.dose.drug in self._on_hold]
        first, last = book.settled + SAME_TIME, self.until + SAME_TIME
        return [dose for dose in doses if first < dose.day <= last]

    def _reason(self, dose: Dose, levels: Levels) -> str:
        """The hold that keeps a dose back; "" if there is none."""
        day = np.array([dose.day])
        reasons = (
            str(hold) for hold in self.scenario.holds
            if hold.drug == dose.drug and levels.hold(hold.when, day)[0]
        )  # fmt: skip
        return next(reasons, "")

    def _found(self, book: Book, seen: Levels) -> list[Finding]:
        """The triggers that may fire next."""
        found = []
        for k, trigger in enumerate(self.scenario.triggers):
            days = self._looks(book, k)
            holding = np.flatnonzero(seen.hold(trigger.when, days))
            if len(holding) == 0:
                continue
            place, at = int(holding[0]), float(days[int(holding[0])])
            before = float(days[place - 1]) if place else book.settled
            opens = _opens(trigger, book.fired[k])
            if trigger.every_hours is not None or before < opens - SAME_TIME:
                before = at  # nothing to look at in between
            found.append(Finding(k, before, at))
        held = [dose.day for dose in self._due(book) if self._reason(dose, seen)]
        first = min([finding.at for finding in found] + held, default=math.inf)
        return [f for f in found if f.before < first or f.at <= first + SAME_TIME]

    def _fired(self, book: Book, k: int, day: float) -> Book:
        """The book after a trigger fired."""
        trigger = self.scenario.triggers[k]
        order = Order(replace(trigger.dose, day=day + trigger.dose.day), f"trigger {trigger.name}")
        fired = tuple((*f, day) if i == k else f for i, f in enumerate(book.fired))
        return replace(book, ordered=(*book.ordered, order), fired=fired)

    def _settled(self, book: Book, now: float, levels: Levels) -> Book:
        """The book with the doses that are due now given or held."""
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
        return replace(book, ordered=ordered, held=book.held + kept, settled=now)


def _opens(trigger: Trigger, fired: tuple[float, ...]) -> float:
    """The first day on which a trigger may fire next."""
    if not fired:
        return trigger.first
    day = fired[-1] + trigger.hours_apart / HOURS_PER_DAY
    return day if trigger.every_hours else math.ceil(day * MINUTES - ALMOST) / MINUTES


def distinct(days: Array) -> Array:
    """The days ascending, each instant once."""
    ascending = np.sort(days)
    first = np.ones(len(days), dtype=bool)
    first[1:] = ascending[1:] - ascending[:-1] > SAME_TIME
    return np.asarray(ascending[first])


def check_rules(model: Model, scenario: Scenario, until: float) -> None:
    """Refuse triggers and holds that a run to day ``until`` cannot serve.

    Raises
    ------
    UnknownNameError, UnitError, InputError
        Naming the scenario, and the trigger or hold.
    """
    for trigger in scenario.triggers:
        where = f"{scenario.name}: trigger {trigger.name!r}"
        _check(model, trigger.when, trigger.dose.drug, where)
        _check_dose(model, trigger.dose, where)
        if trigger.every_hours is not None and trigger.every_hours * MINUTES < HOURS_PER_DAY:
            raise InputError(
                f"{where}: it looks every {trigger.every_hours:g} hours; give a minute or more, "
                "or leave every_hours out: it then watches all the time"
            )
        if trigger.first > until + SAME_TIME:
            raise InputError(
                f"{where}: it is first looked at on day {trigger.first:g}, and the run ends on "
                f"day {until:g}; run longer, or let it begin earlier"
            )
    for hold in scenario.holds:
        _check(model, hold.when, hold.drug, f"{scenario.name}: hold '{hold}'")


def _check(model: Model, when: Condition, drug: str, where: str) -> None:
    if when.quantity not in model.course_ids:
        raise unknown_name("state or quantity", when.quantity, model.course_ids, where)
    drugs = [d.name for d in model.drugs]
    if drug not in drugs and drug not in model.state_ids:
        raise unknown_name("drug", drug, drugs, where)


def _check_dose(model: Model, dose: Dose, where: str) -> None:
    drug = model.drug(dose.drug)
    _, power = conversion_factor(dose.unit or drug.unit, drug.unit, where)
    if power and "weight" not in model.values:
        raise InputError(f"{where}: {dose.unit} needs a body weight; the model has no 'weight'")
    if dose.steady or dose.ordered is not None:
        raise InputError(f"{where}: its dose must be one like any other, given when it is decided")
    expand(model, Schedule((dose,)))
