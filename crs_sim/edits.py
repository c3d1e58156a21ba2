"""Edits of a schedule that define an alternative scenario: remove, keep, move, scale or replace.

Each edit selects doses by drug and optionally by day; selecting none is an error, so that an edit
never silently has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .dosing import Dose, Schedule
from .errors import InputError, unknown_name

DAY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DoseSelection:
    """A selection of the doses of a schedule.

    Parameters
    ----------
    drug : str
    day : float or None, the day on which the doses begin
    first, last : float, instead of ``day``: the window in which they begin, both ends included

    Examples
    --------
    >>> DoseSelection("rimiducid", day=18).describe()
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
        """Whether a dose is selected."""
        if dose.drug != self.drug:
            return False
        if self.day is not None:
            return abs(dose.day - self.day) < DAY_TOLERANCE
        return self.first - DAY_TOLERANCE < dose.day < self.last + DAY_TOLERANCE

    def describe(self) -> str:
        """The selection in words."""
        if self.day is not None:
            return f"{self.drug} on day {self.day:g}"
        if math.isinf(self.first) and math.isinf(self.last):
            return self.drug
        return f"{self.drug} from day {self.first:g} to {self.last:g}"


def edited(
    schedule: Schedule, pick: DoseSelection, change: Callable[[Dose], Iterable[Dose]]
) -> Schedule:
    """The schedule with each selected dose replaced by the result of ``change``.

    Raises
    ------
    UnknownNameError, InputError
        If no dose is selected; the message gives the days on which the drug is given.
    """
    if not any(pick.meets(dose) for dose in schedule):
        raise _absent(schedule, pick)
    groups = [tuple(change(d)) if pick.meets(d) else (d,) for d in schedule]
    return Schedule(tuple(dose for doses in groups for dose in doses))


def removed(schedule: Schedule, pick: DoseSelection) -> Schedule:
    """The schedule without the selected doses.

    >>> plan = Schedule((Dose(11, "rimiducid", 0.4), Dose(18, "rimiducid", 0.4)))
    >>> [d.day for d in removed(plan, DoseSelection("rimiducid", day=18))]
    [11]
    """
    return edited(schedule, pick, lambda _: ())


def moved(
    schedule: Schedule, pick: DoseSelection, *, to: float | None = None, by: float | None = None
) -> Schedule:
    """The selected doses moved: the first of them to day ``to``, or all ``by`` days later.

    >>> plan = Schedule((Dose(24, "emapalumab", 1), Dose(27, "emapalumab", 1)))
    >>> [d.day for d in moved(plan, DoseSelection("emapalumab"), to=13)]
    [13, 16]

    Raises
    ------
    InputError
        Unless exactly one of ``to`` and ``by`` is given; or if a dose would be before day 0.
    """
    if (to is None) == (by is None):
        raise InputError(f"to move {pick.describe()}, give either the day 'to', or the days 'by'")
    days = [dose.day for dose in schedule if pick.meets(dose)]
    if not days:
        raise _absent(schedule, pick)
    shift = by if by is not None else to - min(days)  # type: ignore[operator]
    if min(days) + shift < 0:
        raise InputError(
            f"{pick.describe()} would be given on day {min(days) + shift:g}; a run starts on day 0"
        )
    return edited(schedule, pick, lambda d: (replace(d, day=d.day + shift),))


def scaled(schedule: Schedule, pick: DoseSelection, factor: float) -> Schedule:
    """The selected amounts times a factor; infusion times stay.

    >>> plan = Schedule((Dose(18, "rimiducid", 0.4),))
    >>> scaled(plan, DoseSelection("rimiducid"), 0.5).doses[0].amount
    0.2
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise InputError(f"{pick.describe()}: factor is {factor}; give a number of at least 0")
    return edited(schedule, pick, lambda d: (replace(d, amount=d.amount * factor),))


def resized(schedule: Schedule, pick: DoseSelection, amount: float, unit: str = "") -> Schedule:
    """The selected doses with this amount, in ``unit`` (default: their own)."""
    return edited(schedule, pick, lambda d: (replace(d, amount=amount, unit=unit or d.unit),))


def replaced(schedule: Schedule, pick: DoseSelection, given: Schedule) -> Schedule:
    """The schedule with ``given`` in place of the selected doses.

    The days of ``given`` count from the first selected dose.
    """
    first = min((d.day for d in schedule if pick.meets(d)), default=0.0)
    return removed(schedule, pick) + given.shifted(first)


def only_drugs(schedule: Schedule, drugs: Iterable[str]) -> Schedule:
    """Only the doses of these drugs.

    Raises
    ------
    UnknownNameError
        If the schedule has no dose of one of them.
    """
    names = tuple(drugs)
    for name in names:
        if name not in schedule.drugs:
            raise unknown_name("drug of the schedule", name, schedule.drugs)
    return schedule.only(*names)


def _absent(schedule: Schedule, pick: DoseSelection) -> Exception:
    if pick.drug not in schedule.drugs:
        return unknown_name("drug of the schedule", pick.drug, schedule.drugs)
    days = ", ".join(f"{dose.day:g}" for dose in schedule if dose.drug == pick.drug)
    return InputError(f"there is no dose of {pick.describe()}; it is given on day {days}")
