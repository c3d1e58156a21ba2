"""What is decided as a patient goes: a dose when a level is reached, a dose held back while one is.

`crs_sim.ledger` runs them, and writes down every dose that was given or held.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .dosing import Dose
from .errors import InputError

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
WRITTEN = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*(\S+)\s*")
MOST_GIVEN = 100


@dataclass(frozen=True)
class Condition:
    """A level of a state or quantity, and the side of it that counts.

    >>> Condition.read("crs_grade >= 2")
    Condition(quantity='crs_grade', side='>=', level=2.0)
    """

    quantity: str
    side: str
    level: float

    def __post_init__(self) -> None:
        if self.side not in COMPARED:
            raise InputError(f"{self.side!r} compares nothing; write one of {', '.join(COMPARED)}")
        if not math.isfinite(self.level):
            raise InputError(f"{self.quantity}: {self.level} is not a finite level")

    @classmethod
    def read(cls, text: str) -> Condition:
        """A condition as a person writes it: a name, a sign, a number.

        Raises
        ------
        InputError
            If it is none.
        """
        found = WRITTEN.fullmatch(text)
        try:
            level = float(found[3].replace(",", "") if found else "")
        except ValueError:
            raise InputError(
                f"{text!r} is no condition; write a quantity, one of {', '.join(COMPARED)} and a "
                'number: "crs_grade >= 2"'
            ) from None
        assert found is not None
        return cls(found[1], found[2], level)

    def holds(self, values: Any) -> Any:
        """Whether values (a number or an array) are on that side."""
        return COMPARED[self.side](values, self.level)

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.quantity} {self.side} {self.level:g}"


@dataclass(frozen=True)
class Trigger:
    """A dose given each time a condition is found to hold.

    Parameters
    ----------
    name : str
    when : Condition
    dose : Dose, its day counted from the moment of the decision (0: at once)
    at_most : int, how often
    hours_apart : float, at least so many hours from one of its doses to the next
    every_hours : float or None, hours between looks (a ward round), counted from ``first``; None
        watches all the time: the dose is then given at the first whole minute
    first, last : float, days between which it is looked at, both included

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

    def __post_init__(self) -> None:
        where = f"trigger {self.name!r}"
        if not 1 <= self.at_most <= MOST_GIVEN:
            raise InputError(f"{where}: at_most is {self.at_most}; give 1 to {MOST_GIVEN} doses")
        if not (math.isfinite(self.hours_apart) and self.hours_apart > 0):
            raise InputError(
                f"{where}: hours_apart is {self.hours_apart:g}; without hours above 0 from one "
                "dose to the next it would fire for ever"
            )
        if self.every_hours is not None and not self.every_hours > 0:
            raise InputError(f"{where}: every_hours is {self.every_hours:g}; give hours above 0")
        if self.first < 0 or not self.first <= self.last:
            raise InputError(
                f"{where}: it is looked at from day {self.first:g} to day {self.last:g}; give a "
                "first day from 0 on, and a last one that is not before it"
            )
        if self.dose.day < 0:
            raise InputError(f"{where}: its dose is given {-self.dose.day:g} days too early")


@dataclass(frozen=True)
class Hold:
    """Doses of a drug that are left out if a condition holds when they are due.

    >>> str(Hold("rimiducid", Condition.read("ferritin > 3000")))
    'no rimiducid while ferritin > 3000'
    """

    drug: str
    when: Condition

    def __str__(self) -> str:
        """In words."""
        return f"no {self.drug} while {self.when}"
