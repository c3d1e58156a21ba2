"""The question of a search: variables and their bounds, and search.toml.

Each ``[[vary]]`` selects doses as scenarios.toml does, and gives the bounds of their day, factor or
amount, or of the level of a trigger that gives the drug: of its first condition, if it has several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ..dosing import Dose, DoseSelection, Scenario, Schedule, Trigger, edited
from ..errors import CrsSimError, FileError, InputError, unknown_name, with_location
from ..model import Model, pretty
from ..simulation import Endpoint, endpoint
from ..store import CellError, Real, Record, column, place, read_toml
from .scenario_file import DoseSelectionTable, LastDay, check_course, scenario_of, understood


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


SEARCH = "search.toml"
MOST_DRUGS, MOST_VARIABLES = 4, 8
MOST_POINTS = 20_000
What = Literal["day", "factor", "amount", "trigger level"]


class VaryTable(DoseSelectionTable):
    """One ``[[vary]]``."""

    what: What
    between: list[Real] | None = None
    step: Annotated[float, column(gt=0, allow_inf_nan=False)] | None = None
    unit: str = ""
    trigger: str = ""

    def check(self) -> None:
        """Check the bounds and the step."""
        if self.between is None:
            raise CellError("between", "is missing; a search needs bounds: give "
                            "between = [lowest, highest]")  # fmt: skip
        if len(self.between) != 2 or not self.between[0] < self.between[1]:
            raise CellError("between", f"is {self.between}; give the lowest value, then a higher "
                            "one: between = [13, 24]")  # fmt: skip
        if self.what != "trigger level" and self.between[0] < 0:
            raise CellError("between", f"starts at {self.between[0]:g}; days, factors and amounts "
                            "must be 0 or more")  # fmt: skip
        if (self.step or 0.0) > self.between[1] - self.between[0]:
            raise CellError("step", "is wider than the bounds; make it smaller")


class SearchFile(Record):
    """search.toml."""

    until: LastDay = 40.0
    minimise: list[str] = column(default_factory=list)
    maximise: list[str] = column(default_factory=list)
    endpoints: list[str] = column(default_factory=list)
    courses: list[str] = column(default_factory=list)
    method: Literal["grid", "nsga2"] = "nsga2"
    trials: Annotated[int, column(ge=1, le=MOST_POINTS)] = 200
    generation: Annotated[int, column(ge=4, le=1000)] = 40
    seed: Annotated[int, column(ge=0)] = 1
    base: dict[str, Any] = column(default_factory=dict)
    vary: list[VaryTable] = column(default_factory=list)

    def check(self) -> None:
        """Check that there are two objectives, one to four drugs, and the steps of a grid."""
        if len(self.minimise) + len(self.maximise) != 2:
            raise CellError("minimise", "a search needs exactly two endpoints as objectives; name "
                            "them in minimise and maximise")  # fmt: skip
        if len({*self.minimise, *self.maximise}) != 2:
            raise CellError("minimise", "both endpoints are the same; name two")
        for number, table in enumerate(self.vary, start=1):
            if table.what == "day" and table.between and table.between[1] > self.until:
                raise CellError(f"vary {number}, between", f"ends on day {table.between[1]:g}, "
                                f"after the last day of the runs (until = {self.until:g}); lower "
                                "it, or set a later until")  # fmt: skip
        drugs = {table.drug for table in self.vary}
        if not 1 <= len(drugs) <= MOST_DRUGS or len(self.vary) > MOST_VARIABLES:
            found = f"{len(self.vary)} tables [[vary]] of {len(drugs)} drugs"
            raise CellError("vary", f"{found}; give 1 to {MOST_DRUGS} drugs, "
                            f"{MOST_VARIABLES} tables at most")  # fmt: skip
        if self.method == "grid" and any(table.step is None for table in self.vary):
            raise CellError("vary", "a grid needs a step in every table [[vary]]")


def load_search(path: str | Path, base: Scenario, model: Model) -> SearchQuestion:
    """Load the search of a file, and check it.

    Parameters
    ----------
    path : file, or the folder it is in
    base : Scenario, the treatment as given
    model : Model, which defines drugs and quantities

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming the file and the key: no bounds, a window that ends before it begins, a misspelt
        endpoint or drug, a dose that does not exist.
    """
    file = Path(path) / SEARCH if Path(path).is_dir() else Path(path)
    content = read_toml(file, SearchFile)

    def ends(names: Sequence[str], key: str) -> tuple[Endpoint, ...]:
        def of(name: str) -> Endpoint:
            return endpoint(model, name, content.until)

        return tuple(_at(file, key, lambda name=name: of(name)) for name in names)

    for name in content.courses:
        _at(file, "courses", lambda name=name: check_course(name, model))
    first, second = ends(content.minimise, "minimise") + ends(content.maximise, "maximise")
    signs = (1.0,) * len(content.minimise) + (-1.0,) * len(content.maximise)
    base_table = {"name": "base", **content.base}
    start = _at(file, "base", lambda: scenario_of(base_table, base, model, file, content.until))
    variables = tuple(
        _at(file, f"vary {k}", lambda t=t: _variable(t, start, model))
        for k, t in enumerate(content.vary, start=1)
    )
    _check_unique(file, variables)
    if content.method == "grid":
        _check_grid(file, variables)
    plan = SearchPlan(
        content.method, content.trials, content.generation, content.seed, content.until
    )
    return SearchQuestion(
        variables, (first, second), (signs[0], signs[1]), plan, base, start,
        ends(content.endpoints, "endpoints"), tuple(content.courses),
        content.model_dump(exclude={"endpoints", "courses"}),
    )  # fmt: skip


def _variable(table: VaryTable, start: Scenario, model: Model) -> Variable:
    """Make a variable from its table, with its value in the start scenario."""
    table = understood(table, model)
    assert table.between is not None
    model.drug(table.drug)
    pick, (low, high) = table.pick(), table.between
    name = pick.describe()
    if table.what == "trigger level":
        trigger = _trigger(table, start)
        unit, usual = pretty(model[trigger.when.quantity].unit), trigger.when.level
        name = f"{trigger.name}: level of {trigger.when.quantity}"
        return Variable(name, table.what, pick, low, high, table.step, unit, usual, trigger.name)
    edited(start.doses, pick, lambda dose: (dose,))  # refuses doses that are not there
    doses = [dose for dose in start.doses if pick.meets(dose)]
    if table.what == "day":
        unit, usual = "day", min(dose.day for dose in doses)
    elif table.what == "factor":
        unit, usual = "x as given", 1.0
    else:
        unit, usual = _amount(table, doses, name)
    return Variable(f"{name}: {table.what}", table.what, pick, low, high, table.step, unit, usual)


def _amount(table: VaryTable, doses: Sequence[Dose], name: str) -> tuple[str, float]:
    """The unit of an amount, and the amount of the doses if it is the same for all."""
    units, amounts = {d.unit for d in doses}, {d.amount for d in doses}
    if not table.unit and len(units) > 1:
        raise InputError(f"doses of {name} are in {' and '.join(sorted(units))}; give a unit")
    unit = table.unit or next(iter(units))
    return unit, amounts.pop() if len(amounts) == 1 and units == {unit} else math.nan


def _trigger(table: VaryTable, start: Scenario) -> Trigger:
    """Find the trigger of the start scenario that the table refers to."""
    giving = {t.name: t for t in start.triggers if t.dose.drug == table.drug}
    if table.trigger and table.trigger not in giving:
        raise unknown_name(f"trigger that gives {table.drug}", table.trigger, giving)
    if not table.trigger and len(giving) != 1:
        raise InputError(
            f"{len(giving)} triggers of [base] give {table.drug}; add one, or select one with "
            "trigger = its name"
        )
    return giving[table.trigger] if table.trigger else next(iter(giving.values()))


def _check_unique(file: Path, variables: Sequence[Variable]) -> None:
    names = [v.name for v in variables]
    for name in names:
        if names.count(name) > 1:
            raise FileError(f"{place(file, key='vary')}: two tables vary {name}; keep one")


def _check_grid(file: Path, variables: Sequence[Variable]) -> None:
    points = math.prod(v.n_levels for v in variables)
    if points > MOST_POINTS:
        raise FileError(
            f"{place(file, key='vary')}: the grid has {points} points; widen the steps to stay "
            f'below {MOST_POINTS}, or use the optimiser (method = "nsga2")'
        )


def _at(file: Path, key: str, read: Any) -> Any:
    """Call ``read``; its errors are prefixed by the place in the file."""
    try:
        return read()
    except CrsSimError as error:
        if str(error).startswith(place(file)):
            raise
        raise with_location(place(file, key=key), error) from None
