"""What a search may choose, and between which bounds; and a schedule made of one choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .dosing import Dose, Schedule
from .edits import Pick
from .endpoints import Endpoint
from .scenario import Scenario


@dataclass(frozen=True)
class Variable:
    """A number that a search may choose.

    Parameters
    ----------
    name : str, in tables and figures
    what : day (of the first dose that is picked; the others follow), factor, amount or trigger
        level
    pick : Pick, of the doses that are meant
    low, high : float, bounds
    step : float, from value to value; None takes any between
    unit : str, as it is shown
    usual : float, without the search; NaN where the doses differ
    trigger : str, name of the trigger that is meant
    """

    name: str
    what: str
    pick: Pick
    low: float
    high: float
    step: float | None
    unit: str
    usual: float
    trigger: str = ""

    @property
    def n_levels(self) -> int:
        """How many values a grid has."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def levels(self) -> list[float]:
        """The values of a grid, both ends included where the steps meet them."""
        return [self.level(k) for k in range(self.n_levels)]

    def level(self, k: int) -> float:
        """One of them, counted from 0."""
        assert self.step is not None
        return round(self.low + k * self.step, 9)

    def applied(self, dose: Dose, value: float) -> Dose:
        """A dose that is meant, as the value has it."""
        match self.what:
            case "day":
                return replace(dose, day=dose.day + (value - self.usual))
            case "factor":
                return replace(dose, amount=dose.amount * value)
            case "amount":
                return replace(dose, amount=value, unit=self.unit)
            case _:
                return dose


@dataclass(frozen=True)
class SearchPlan:
    """How to look.

    Parameters
    ----------
    method : "grid" or "nsga2"
    trials : int, schedules that nsga2 tries
    generation : int, schedules at a time
    seed : int
    until : float, last day of each run
    """

    method: str = "nsga2"
    trials: int = 200
    generation: int = 40
    seed: int = 1
    until: float = 40.0


@dataclass(frozen=True)
class SearchQuestion:
    """What a search is asked.

    Parameters
    ----------
    variables : tuple of Variable
    objectives : the two endpoints
    signs : 1.0 for one that is to be small, -1.0 for one that is to be large
    plan : SearchPlan
    given : Scenario, what was done
    start : Scenario, which every choice changes; ``given`` if nothing else is said
    endpoints : further ones, for the front
    courses : what a figure of the chosen schedule shows
    said : all that was written, by key: a search that goes on must have the same
    """

    variables: tuple[Variable, ...]
    objectives: tuple[Endpoint, Endpoint]
    signs: tuple[float, float]
    plan: SearchPlan
    given: Scenario = field(repr=False)
    start: Scenario = field(repr=False)
    endpoints: tuple[Endpoint, ...] = ()
    courses: tuple[str, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def scenario(self, point: Sequence[float], name: str) -> Scenario:
        """What is done to the patient at a point.

        Doses are picked as they stand in ``start``, so no choice hides them from another.

        Parameters
        ----------
        point : (n_variables,)
        name : str
        """
        chosen = list(zip(self.variables, point, strict=True))
        doses = []
        for dose in self.start.doses:
            made = dose
            for variable, value in chosen:
                if variable.pick.meets(dose):
                    made = variable.applied(made, value)
            doses.append(made)
        levels = {v.trigger: value for v, value in chosen if v.trigger}
        triggers = tuple(
            replace(t, when=replace(t.when, level=levels.get(t.name, t.when.level)))
            for t in self.start.triggers
        )
        return replace(self.start, name=name, doses=Schedule(tuple(doses)), triggers=triggers)

    def words(self, point: Sequence[float]) -> list[str]:
        """What is chosen at a point, a line a variable."""
        return [
            f"{v.name} {value:g} {'' if v.what == 'day' else v.unit}".rstrip()
            for v, value in zip(self.variables, point, strict=True)
        ]
