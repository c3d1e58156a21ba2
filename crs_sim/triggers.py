"""Rules decided during a run: a trigger gives a dose, a hold leaves one out, on a condition.

Their exact meaning is in `crs_sim.ledger`, which lists every dose that was given or held.
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

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION_PATTERN = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|>|<)\s*(\S+)\s*")
MAX_DOSES = 100


@dataclass(frozen=True)
class Condition:
    """A comparison of a state or quantity with a level.

    >>> Condition.read("crs_grade >= 2")
    Condition(quantity='crs_grade', side='>=', level=2.0)
    """

    quantity: str
    side: str
    level: float

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
            level = float(match[3].replace(",", "") if match else "")
        except ValueError:
            raise InputError(
                f"{text!r} is not a condition; write a quantity, one of {', '.join(COMPARISONS)} "
                'and a number: "crs_grade >= 2"'
            ) from None
        assert match is not None
        return cls(match[1], match[2], level)

    def holds(self, values: Any) -> Any:
        """Whether values (a number or an array) meet the condition."""
        return COMPARISONS[self.side](values, self.level)

    def __str__(self) -> str:
        """As text that `read` accepts."""
        return f"{self.quantity} {self.side} {self.level:g}"


@dataclass(frozen=True)
class Trigger:
    """A dose given each time a condition is found to be met.

    Parameters
    ----------
    name : str
    when : Condition
    dose : Dose, its day counted from the decision (0: at once)
    at_most : int, maximum number of doses
    hours_apart : float, minimum hours between its doses
    every_hours : float or None, hours between evaluations (ward rounds), counted from ``first``;
        None monitors continuously: the dose is given at the first whole minute
    first, last : float, days between which it is evaluated, both included

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
        if not 1 <= self.at_most <= MAX_DOSES:
            raise InputError(f"{where}: at_most is {self.at_most}; give 1 to {MAX_DOSES} doses")
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
