"""A schedule with doses taken out, kept, moved, scaled or replaced: how one "what if" is put.

Each edit picks doses by drug, and by day if one is given; an edit that finds none is an error, so
that a scenario never silently says what was done anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .dosing import Dose, Schedule
from .errors import InputError, unknown_name

SAME_DAY = 1e-6


@dataclass(frozen=True)
class Pick:
    """Which doses of a schedule are meant.

    Parameters
    ----------
    drug : str
    day : float or None, the day on which they begin
    first, last : float, or those that begin from one day up to another, both included

    Examples
    --------
    >>> Pick("rimiducid", day=18).describe()
    'rimiducid on day 18'
    """

    drug: str
    day: float | None = None
    first: float = -math.inf
    last: float = math.inf

    def __post_init__(self) -> None:
        if self.day is not None and (self.first, self.last) != (-math.inf, math.inf):
            raise InputError(f"doses of {self.drug}: give either a day, or first and last")
        if not self.first <= self.last:
            raise InputError(
                f"doses of {self.drug}: the window ends (day {self.last:g}) before it begins "
                f"(day {self.first:g})"
            )

    def meets(self, dose: Dose) -> bool:
        """Whether a dose is meant."""
        if dose.drug != self.drug:
            return False
        if self.day is not None:
            return abs(dose.day - self.day) < SAME_DAY
        return self.first - SAME_DAY < dose.day < self.last + SAME_DAY

    def describe(self) -> str:
        """What is picked, in words."""
        if self.day is not None:
            return f"{self.drug} on day {self.day:g}"
        if math.isinf(self.first) and math.isinf(self.last):
            return self.drug
        return f"{self.drug} from day {self.first:g} to {self.last:g}"


def edited(
    schedule: Schedule, pick: Pick, change: Callable[[Dose], Iterable[Dose]]
) -> Schedule:
    """The schedule with what ``change`` makes of each dose that is picked, in its place.

    Raises
    ------
    UnknownNameError, InputError
        If the schedule has no such dose; it names the days of those it has.
    """
    if not any(pick.meets(dose) for dose in schedule):
        raise _absent(schedule, pick)
    made = [tuple(change(d)) if pick.meets(d) else (d,) for d in schedule]
    return Schedule(tuple(dose for doses in made for dose in doses))


def removed(schedule: Schedule, pick: Pick) -> Schedule:
    """Without the doses that are picked.

    >>> plan = Schedule((Dose(11, "rimiducid", 0.4), Dose(18, "rimiducid", 0.4)))
    >>> [d.day for d in removed(plan, Pick("rimiducid", day=18))]
    [11]
    """
    return edited(schedule, pick, lambda _: ())


def moved(
    schedule: Schedule, pick: Pick, *, to: float | None = None, by: float | None = None
) -> Schedule:
    """With them on another day (the first of them, if they are several), or so many days later.

    >>> plan = Schedule((Dose(24, "emapalumab", 1), Dose(27, "emapalumab", 1)))
    >>> [d.day for d in moved(plan, Pick("emapalumab"), to=13)]
    [13, 16]

    Raises
    ------
    InputError
        Unless just one of ``to`` and ``by`` is given; or if a dose would be given before day 0.
    """
    if (to is None) == (by is None):
        raise InputError(f"to move {pick.describe()}, give either the day 'to' which, or 'by'")
    days = [dose.day for dose in schedule if pick.meets(dose)]
    if not days:
        raise _absent(schedule, pick)
    later = by if by is not None else to - min(days)  # type: ignore[operator]
    if min(days) + later < 0:
        raise InputError(
            f"{pick.describe()} would be given on day {min(days) + later:g}; a run starts on day 0"
        )
    return edited(schedule, pick, lambda d: (replace(d, day=d.day + later),))


def scaled(schedule: Schedule, pick: Pick, factor: float) -> Schedule:
    """With their amounts times a factor; infusions take as long as before.

    >>> plan = Schedule((Dose(18, "rimiducid", 0.4),))
    >>> scaled(plan, Pick("rimiducid"), 0.5).doses[0].amount
    0.2
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise InputError(f"{pick.describe()}: factor is {factor}; give a number from 0 on")
    return edited(schedule, pick, lambda d: (replace(d, amount=d.amount * factor),))


def resized(schedule: Schedule, pick: Pick, amount: float, unit: str = "") -> Schedule:
    """With this amount instead of their own, in ``unit`` (default: as they are)."""
    return edited(schedule, pick, lambda d: (replace(d, amount=amount, unit=unit or d.unit),))


def replaced(schedule: Schedule, pick: Pick, given: Schedule) -> Schedule:
    """With other doses instead: the first of those picked gives way to ``given``.

    The days of ``given`` count from it. The others are left out.
    """
    first = min((d.day for d in schedule if pick.meets(d)), default=0.0)
    return removed(schedule, pick) + given.shifted(first)


def kept(schedule: Schedule, drugs: Iterable[str]) -> Schedule:
    """The doses of these drugs alone.

    Raises
    ------
    UnknownNameError
        If the schedule has none of one of them.
    """
    wanted = tuple(drugs)
    for name in wanted:
        if name not in schedule.drugs:
            raise unknown_name("drug of the schedule", name, schedule.drugs)
    return schedule.only(*wanted)


def _absent(schedule: Schedule, pick: Pick) -> Exception:
    if pick.drug not in schedule.drugs:
        return unknown_name("drug of the schedule", pick.drug, schedule.drugs)
    days = ", ".join(f"{dose.day:g}" for dose in schedule if dose.drug == pick.drug)
    return InputError(f"there is no dose of {pick.describe()}; it is given on day {days}")
