"""A scenario of treatment: doses, triggers, holds, resets, parameter changes and patient values.

A `Scenario` holds neither observations nor solver options.
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


@dataclass(frozen=True)
class Scenario:
    """The treatment of one patient, and the patient's own parameter values.

    Parameters
    ----------
    name : str
    doses : Schedule
    changes : tuple of Change
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
                "doses must be known beforehand; pass the scenario through crs_sim.settled, or "
                "remove its triggers and holds"
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
