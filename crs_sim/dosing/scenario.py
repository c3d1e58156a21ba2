"""What is done to a patient: doses, edits of them, changes of parameters, and reactive rules.

A `Trigger` gives a dose when a condition holds; a `Hold` leaves out a planned one;
`crs_sim.dosing.ledger` has their exact meaning. An edit selects doses by drug and optionally by
day; selecting none is an error, so that an edit never silently has no effect.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

from ..errors import InputError, error_location, unknown_name
from ..store import number, text_of
from .doses import Dose, DoseSelection, Schedule


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
    """The schedule without the selected doses."""
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
    """Only the doses of these drugs; UnknownNameError if the schedule has none of one of them."""
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


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
CONDITION_PATTERN = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*(\S+)\s*")
MAX_DOSES = 100


@dataclass(frozen=True)
class Condition:
    """A comparison of a state or quantity with a level; others in ``also`` must hold as well.

    >>> Condition.read("crs_grade >= 2")
    Condition(quantity='crs_grade', side='>=', level=2.0)
    """

    quantity: str
    side: str
    level: float
    also: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if self.side not in COMPARISONS:
            raise InputError(f"{self.side!r} is not a comparison; write {', '.join(COMPARISONS)}")
        if not math.isfinite(self.level):
            raise InputError(f"{self.quantity}: {self.level} is not a finite level")

    @classmethod
    def read(cls, text: str) -> Condition:
        """Parse a condition: a name, a comparison sign, a number.

        Raises
        ------
        InputError
            If the text is not a condition.
        """
        match = CONDITION_PATTERN.fullmatch(text)
        try:
            if match is None:
                raise ValueError("is none")
            return cls(match[1], match[2], number(match[3]))
        except ValueError as error:
            reason = f" ({error})" if match else ""
            raise InputError(
                f"{text!r} is not a condition{reason}; write a quantity, one of "
                f'{", ".join(COMPARISONS)} and a number: "crs_grade >= 2"'
            ) from None

    @classmethod
    def read_all(cls, text: str) -> Condition:
        """Parse conditions joined by ``and``, which must all hold.

        >>> str(Condition.read_all("crs_grade >= 2 and ifng > 500"))
        'crs_grade >= 2 and ifng > 500'
        """
        if re.search(r"\bor\b", text):
            raise InputError(f"{text!r}: conditions are joined by 'and' only; for 'or' write one "
                             "more trigger or hold, with the other condition")  # fmt: skip
        first, *others = (cls.read(part) for part in re.split(r"\band\b", text))
        return replace(first, also=tuple(others))

    @property
    def parts(self) -> tuple[Condition, ...]:
        """The single comparisons that must all hold."""
        return (replace(self, also=()), *self.also)

    def holds(self, values: Any) -> Any:
        """Whether values (a number or an array) meet the comparison, without those in ``also``."""
        return COMPARISONS[self.side](values, self.level)

    def __repr__(self) -> str:
        return text_of(self, "also")

    def __str__(self) -> str:
        """As text that `read_all` accepts."""
        return " and ".join(f"{part.quantity} {part.side} {part.level:g}" for part in self.parts)


@dataclass(frozen=True)
class Trigger:
    """A dose, or a course of doses, given each time a condition is found to be met.

    Parameters
    ----------
    name : str
    when : Condition
    dose : Dose, its day counted from the decision (0: at once)
    at_most : int, maximum number of doses, or of courses
    hours_apart : float, minimum hours from a dose, or the last one of a course, to the next
    every_hours : float or None, hours between evaluations (ward rounds), counted from ``first``;
        None monitors continuously: the dose is given at the first whole minute
    first, last : float, days between which it is evaluated, both included
    course : (number of doses, hours between them), given whatever the condition is later; () is one

    Examples
    --------
    >>> Trigger("rescue", Condition.read("crs_grade >= 2"),
    ...         Dose(0, "tocilizumab", 8, "mg/kg"), at_most=4, hours_apart=8).at_most
    4
    """

    name: str
    when: Condition
    dose: Dose
    at_most: int
    hours_apart: float
    every_hours: float | None = None
    first: float = 0.0
    last: float = math.inf
    course: tuple[int, float] | tuple[()] = ()

    def __repr__(self) -> str:
        return text_of(self, "course")

    @property
    def doses(self) -> Schedule:
        """The doses of one firing, their days counted from the decision."""
        number, every = self.course or (1, 1.0)
        return self.dose.repeated(every, number)

    def __post_init__(self) -> None:
        where = f"trigger {self.name!r}"
        with error_location(where):
            number = len(self.doses)
        if not (self.at_most >= 1 and self.at_most * number <= MAX_DOSES):
            of = f" courses of {number}" if self.course else ""
            raise InputError(f"{where}: at_most is {self.at_most}{of}; give 1 to {MAX_DOSES} doses")
        if not (math.isfinite(self.hours_apart) and self.hours_apart > 0):
            raise InputError(
                f"{where}: hours_apart is {self.hours_apart:g}; give hours above 0 between its "
                "doses, or it would fire for ever"
            )
        if self.every_hours is not None and not self.every_hours > 0:
            raise InputError(f"{where}: every_hours is {self.every_hours:g}; give hours above 0")
        if self.first < 0 or not self.first <= self.last:
            raise InputError(
                f"{where}: it is evaluated from day {self.first:g} to day {self.last:g}; give a "
                "first day of at least 0, and a last one that is not before it"
            )
        if self.dose.day < 0:
            raise InputError(f"{where}: its dose has day {self.dose.day:g}; give 0 or later")


@dataclass(frozen=True)
class Hold:
    """A rule that leaves out doses of a drug if a condition is met when they are due.

    >>> str(Hold("rimiducid", Condition.read("ferritin > 3000")))
    'no rimiducid while ferritin > 3000'
    """

    drug: str
    when: Condition

    def __str__(self) -> str:
        """In words."""
        return f"no {self.drug} while {self.when}"


Number = TypeVar("Number", bound=Any)

AS_GIVEN = "as given"
"""Name of the scenario with the given schedule, to which alternatives are compared."""


@dataclass(frozen=True)
class Change:
    """A parameter set to ``value``, or scaled by ``factor``, from ``first`` until ``last`` (days).

    >>> Change("k_il6", first=13, last=20, factor=0.0).describe()
    'k_il6 x 0 from day 13 to 20'
    """

    parameter: str
    first: float = -math.inf
    last: float = math.inf
    factor: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if (self.factor is None) == (self.value is None):
            raise InputError(f"change of {self.parameter}: give either factor or value")
        number = self.factor if self.value is None else self.value
        if number is None or not math.isfinite(number):
            raise InputError(f"change of {self.parameter}: {number} is not a finite number")
        if not self.first < self.last:
            raise InputError(
                f"change of {self.parameter}: it ends (day {self.last:g}) before it "
                f"starts (day {self.first:g})"
            )

    def apply(self, value: Number) -> Number | float:
        """The parameter's changed value; ``value`` is a number or an array."""
        return value * self.factor if self.value is None else self.value  # type: ignore[operator]

    def describe(self) -> str:
        """The change in words."""
        what = f"x {self.factor:g}" if self.value is None else f"= {self.value:g}"
        return f"{self.parameter} {what} from day {self.first:g} to {self.last:g}"


def check_overlap(changes: Iterable[Change]) -> None:
    """Raise an InputError if two changes of one parameter overlap, as their order would decide."""
    ordered = sorted(changes, key=lambda change: (change.parameter, change.first))
    # of any that overlap, two are neighbours in this order
    for one, other in pairwise(ordered):
        if one.parameter == other.parameter and other.first < one.last:
            raise InputError(
                f"{other.describe()} overlaps with {one.describe()}; end one before the other"
            )


@dataclass(frozen=True)
class Scenario:
    """The treatment of one patient, and the patient's own parameter values.

    Parameters
    ----------
    name : str
    doses : Schedule
    changes : tuple of Change; those of one parameter do not overlap
    values : mapping of parameter id to value, the patient's own (body weight, ...)
    resets : tuple of float, days on which all states return to their initial values; running
        infusions and doses still in their lag time are cancelled
    triggers : tuple of Trigger, doses decided during the run, in order of precedence
    holds : tuple of Hold, doses left out if a condition is met
    """

    name: str
    doses: Schedule = field(default_factory=Schedule)
    changes: tuple[Change, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    resets: tuple[float, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    holds: tuple[Hold, ...] = ()

    def __post_init__(self) -> None:
        for day in self.resets:
            if not (math.isfinite(day) and day >= 0):
                raise InputError(f"{self.name}: reset on day {day:g}; a run starts on day 0")
        names = [trigger.name for trigger in self.triggers]
        if len(set(names)) < len(names):
            raise InputError(f"{self.name}: two triggers have the same name; give each its own")
        with error_location(self.name):
            check_overlap(self.changes)
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def decided(self) -> bool:
        """Whether all doses are known before the run: no triggers, no holds."""
        return not (self.triggers or self.holds)

    def check_decided(self) -> None:
        """Raise an error for a scenario with unresolved triggers or holds.

        Raises
        ------
        InputError
            Naming them.
        """
        if not self.decided:
            rules = [f"trigger {trigger.name!r}" for trigger in self.triggers]
            rules += [f"hold '{hold}'" for hold in self.holds]
            raise InputError(
                f"{self.name}: {', '.join(rules)}: these are decided during a run, and here all "
                "doses must be known beforehand; pass the scenario through "
                "crs_sim.resolve_triggers, or remove its triggers and holds"
            )

    def with_doses(self, doses: Schedule, name: str = "") -> Scenario:
        """The same patient under another schedule."""
        return replace(self, doses=doses, name=name or self.name)

    def with_changes(self, *changes: Change, name: str = "") -> Scenario:
        """The same scenario with further changes."""
        return replace(self, changes=self.changes + changes, name=name or self.name)

    def with_values(self, **values: float) -> Scenario:
        """The same scenario for a patient with these parameter values."""
        return replace(self, values={**self.values, **values})

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "values": dict(self.values)}

    def __setstate__(self, state: dict[str, object]) -> None:
        values = MappingProxyType(dict(state.pop("values")))  # type: ignore[call-overload]
        for name, value in {**state, "values": values}.items():
            object.__setattr__(self, name, value)
