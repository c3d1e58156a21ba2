"""The search space of a schedule search: variables, bounds, and the scenario at a point of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .dosing import Dose, Schedule
from .endpoints import Endpoint
from .scenario import DoseSelection, Scenario


@dataclass(frozen=True)
class Variable:
    """A decision variable of the search.

    Parameters
    ----------
    name : str, in tables and figures
    what : day (of the first selected dose; the others shift with it), factor, amount or trigger
        level
    pick : Pick, which selects the doses
    low, high : float, bounds
    step : float, grid spacing; None for a continuous variable
    unit : str, as shown
    usual : float, value without the search; NaN where the doses differ
    trigger : str, name of the trigger
    """

    name: str
    what: str
    pick: DoseSelection
    low: float
    high: float
    step: float | None
    unit: str
    usual: float
    trigger: str = ""

    @property
    def n_levels(self) -> int:
        """Number of grid values."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def levels(self) -> list[float]:
        """The grid values, with the upper bound if it is a whole number of steps away."""
        return [self.level(k) for k in range(self.n_levels)]

    def level(self, k: int) -> float:
        """Grid value k, counted from 0."""
        assert self.step is not None
        return round(self.low + k * self.step, 9)

    def applied(self, dose: Dose, value: float) -> Dose:
        """A selected dose with the value applied."""
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
    """Settings of a search.

    Parameters
    ----------
    method : "grid" or "nsga2"
    trials : int, schedules that nsga2 evaluates
    generation : int, population size of nsga2: schedules per generation
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
    """A two-objective optimisation problem over dosing schedules.

    Parameters
    ----------
    variables : tuple of Variable
    objectives : the two endpoints
    signs : 1.0 to minimise an objective, -1.0 to maximise it
    plan : SearchPlan
    given : Scenario, the treatment as given
    start : Scenario that the variables modify; ``given`` by default
    endpoints : further ones, reported for the Pareto front
    courses : time courses in the figure of the chosen schedule
    said : content of the file, by key: it must be the same to resume a search
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
        """The scenario at a point of the search space.

        Doses are selected as they are in ``start``, so variables do not affect each other's doses.

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
        """The values of the variables at a point, one line each."""
        return [
            f"{v.name} {value:g} {'' if v.what == 'day' else v.unit}".rstrip()
            for v, value in zip(self.variables, point, strict=True)
        ]
