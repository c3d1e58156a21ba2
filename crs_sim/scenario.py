"""What is done to a patient: doses, triggers, resets, changes of a parameter, patient values.

A `Scenario` says nothing of what is measured, and nothing of how it is solved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from .dosing import Schedule
from .errors import InputError
from .triggers import Hold, Trigger

Number = TypeVar("Number", bound=Any)

AS_GIVEN = "as given"
"""The name of what was done, beside what might have been."""


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
        given = self.factor if self.value is None else self.value
        if given is None or not math.isfinite(given):
            raise InputError(f"change of {self.parameter}: {given} is not a finite number")
        if not self.first < self.last:
            raise InputError(
                f"change of {self.parameter}: it ends (day {self.last:g}) before it "
                f"starts (day {self.first:g})"
            )

    def apply(self, value: Number) -> Number | float:
        """The parameter's value (a number, or an array of them) while the change lasts."""
        return value * self.factor if self.value is None else self.value  # type: ignore[operator]

    def describe(self) -> str:
        """The change in words."""
        what = f"x {self.factor:g}" if self.value is None else f"= {self.value:g}"
        return f"{self.parameter} {what} from day {self.first:g} to {self.last:g}"


@dataclass(frozen=True)
class Scenario:
    """What one patient is given and how that patient differs from the model's nominal one.

    Parameters
    ----------
    name : str
    doses : Schedule
    changes : tuple of Change
    values : mapping of parameter id to value, the patient's own (body weight, ...)
    resets : tuple of float, days on which all states go back to their initial values; what was
        given before is gone, whether it still runs or has yet to arrive
    triggers : tuple of Trigger, doses decided on as the patient goes, the first before the next
    holds : tuple of Hold, doses left out where a condition holds
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
            raise InputError(f"{self.name}: two triggers have one name; give each its own")
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def decided(self) -> bool:
        """Whether all that is given is known beforehand."""
        return not (self.triggers or self.holds)

    def check_decided(self) -> None:
        """Refuse a scenario whose triggers and holds have not been settled.

        Raises
        ------
        InputError
            Naming them.
        """
        if not self.decided:
            rules = [f"trigger {trigger.name!r}" for trigger in self.triggers]
            rules += [f"hold '{hold}'" for hold in self.holds]
            raise InputError(
                f"{self.name}: {', '.join(rules)}: what is given is decided in the course of a "
                "run, and here all doses must be known beforehand; take what crs_sim.settled "
                "makes of the scenario, or leave triggers and holds out"
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
