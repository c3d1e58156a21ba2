"""Read scenarios.toml: alternative (counterfactual) scenarios, as edits of the treatment as given.

In each scenario the edits apply in this order, whatever their order in the file: keep, remove,
scale, resize, replace, move, add; then changes, holds and triggers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ..dosing import (
    AS_GIVEN,
    Change,
    Condition,
    Dose,
    DoseSelection,
    Hold,
    Scenario,
    Schedule,
    Trigger,
    ask_about_dose,
    check_overlap,
    check_rules,
    expand,
    moved,
    only_drugs,
    removed,
    replaced,
    resized,
    scaled,
)
from ..errors import InputError, error_location, unknown_name
from ..model import Model
from ..patients import ask_about_values
from ..simulation import Endpoint, endpoint
from ..store import CellError, R, Record, checked, column, place, read_toml

Words = Annotated[str, column(min_length=1)]
Real = Annotated[float, column(allow_inf_nan=False)]
Positive = Annotated[float, column(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, column(ge=0, allow_inf_nan=False)]
LastDay = Annotated[float, column(gt=0, le=10_000, allow_inf_nan=False)]

SCENARIOS = "scenarios.toml"
EDITS = ("remove", "scale", "resize", "replace", "move", "add")


class DoseSelectionTable(Record):
    """Selects doses: of a drug; on a day, or from a first day to a last one."""

    drug: Words
    day: Real | None = None
    first: Real | None = None
    last: Real | None = None

    def pick(self) -> DoseSelection:
        """Return the selection of doses."""
        first = -math.inf if self.first is None else self.first
        last = math.inf if self.last is None else self.last
        return DoseSelection(self.drug, self.day, first, last)


class RemoveTable(DoseSelectionTable):
    """Doses to remove."""

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule without them."""
        return removed(schedule, self.pick())


class ScaleTable(DoseSelectionTable):
    """Doses multiplied by a factor."""

    factor: NotNegative

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule with their amounts scaled."""
        return scaled(schedule, self.pick(), self.factor)


class ResizeTable(DoseSelectionTable):
    """Doses changed to another amount."""

    amount: NotNegative
    unit: str = ""

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule with their amounts replaced."""
        return resized(schedule, self.pick(), self.amount, self.unit)


class MoveTable(DoseSelectionTable):
    """Doses moved to another day."""

    to: Real | None = None
    by: Real | None = None

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule with them moved."""
        return moved(schedule, self.pick(), to=self.to, by=self.by)


class GiveTable(Record):
    """A dose, perhaps repeated."""

    drug: Words
    amount: NotNegative
    unit: str = ""
    hours: NotNegative | None = None
    every: Positive | None = None
    doses: Annotated[int, column(ge=1, le=10_000)] | None = None

    def check(self) -> None:
        """Check that 'every' and 'doses' are given together."""
        if (self.every is None) != (self.doses is None):
            raise CellError("every", "'every' (hours) and 'doses' belong together; give both")

    def given(self, day: float) -> Schedule:
        """The doses as a schedule that starts on a day."""
        dose = Dose(day, self.drug, self.amount, self.unit, self.hours)
        if self.every is None or self.doses is None:
            return Schedule((dose,))
        return dose.repeated(self.every, self.doses)


class AddTable(GiveTable):
    """A dose to add."""

    day: NotNegative

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule with the dose added."""
        return schedule + self.given(self.day)


class ReplaceTable(DoseSelectionTable):
    """Doses replaced by others."""

    by: GiveTable

    def edit(self, schedule: Schedule) -> Schedule:
        """The schedule with the other doses instead."""
        return replaced(schedule, self.pick(), self.by.given(0.0))


class ScenarioChangeTable(Record):
    """A parameter changed between two days."""

    parameter: Words
    first: Real | None = None
    last: Real | None = None
    factor: Real | None = None
    value: Real | None = None

    def change(self) -> Change:
        """Return the change."""
        first = -math.inf if self.first is None else self.first
        last = math.inf if self.last is None else self.last
        return Change(self.parameter, first, last, self.factor, self.value)


class HoldTable(Record):
    """A drug withheld while a condition is true."""

    drug: Words
    when: Words


class TriggerTable(Record):
    """A dose given when a condition is true; a course, if it has ``every`` and ``doses``."""

    name: Words
    when: Words
    give: GiveTable
    at_most: int
    hours_apart: Real | None = None
    every_hours: Positive | None = None
    first: NotNegative = 0.0
    last: Real | None = None

    def check(self) -> None:
        """Check that there is a minimum interval."""
        if self.hours_apart is None:
            raise CellError("hours_apart", "is missing; without it a trigger would fire for ever")


class ScenarioTable(Record):
    """One ``[[scenario]]``."""

    name: Words
    keep: list[str] | None = None
    remove: list[RemoveTable] = column(default_factory=list)
    scale: list[ScaleTable] = column(default_factory=list)
    resize: list[ResizeTable] = column(default_factory=list)
    replace: list[ReplaceTable] = column(default_factory=list)
    move: list[MoveTable] = column(default_factory=list)
    add: list[AddTable] = column(default_factory=list)
    change: list[ScenarioChangeTable] = column(default_factory=list)
    hold: list[HoldTable] = column(default_factory=list)
    trigger: list[TriggerTable] = column(default_factory=list)
    values: dict[str, Real] = column(default_factory=dict)


class ScenarioFile(Record):
    """scenarios.toml."""

    until: LastDay = 40.0
    endpoints: Annotated[list[str], column(min_length=1)]
    courses: list[str] = column(default_factory=list)
    scenario: list[ScenarioTable]

    def check(self) -> None:
        """Check that there is a scenario, and that every name is unique."""
        if not self.scenario:
            raise CellError("scenario", "is missing; add a table [[scenario]]")
        names = [table.name for table in self.scenario]
        for name in names:
            if names.count(name) > 1:
                raise CellError("scenario", f"two are named {name!r}; give each its own name")
            if name == AS_GIVEN:
                words = "is the name of the treatment as given, always the first scenario"
                raise CellError("scenario", f"{name!r} {words}; give another name")
        for key in ("endpoints", "courses"):
            for name in getattr(self, key):
                if getattr(self, key).count(name) > 1:
                    raise CellError(key, f"{name!r} is listed twice; remove one")


@dataclass(frozen=True)
class Questions:
    """The content of a scenarios.toml.

    Parameters
    ----------
    scenarios : tuple of Scenario
    endpoints : tuple of Endpoint
    courses : names of the time courses a figure shows
    until : float, last day
    """

    scenarios: tuple[Scenario, ...]
    endpoints: tuple[Endpoint, ...]
    courses: tuple[str, ...]
    until: float


def load_scenarios(path: str | Path, base: Scenario, model: Model) -> Questions:
    """Load the scenarios of a file, each an edit of a patient's treatment as given.

    Parameters
    ----------
    path : file, or the folder it is in
    base, model : the treatment as given; what defines drugs, parameters and quantities

    Raises
    ------
    FileError, InputError, UnknownNameError
        Naming the file, the scenario and the key: a dose that does not exist, overlapping changes
        of one parameter, a window that ends before it starts, a misspelt name.
    """
    file = Path(path) / SCENARIOS if Path(path).is_dir() else Path(path)
    content = read_toml(file, ScenarioFile)
    scenarios = tuple(_scenario(t, base, model, file, content.until) for t in content.scenario)
    with error_location(place(file, key="endpoints")):
        endpoints = tuple(endpoint(model, name, content.until) for name in content.endpoints)
    for name in content.courses:
        with error_location(place(file, key="courses")):
            check_course(name, model)
    return Questions(scenarios, endpoints, tuple(content.courses), content.until)


def scenario_of(
    content: Mapping[str, Any], base: Scenario, model: Model, file: Path, until: float = math.inf
) -> Scenario:
    """As `load_scenarios`, one scenario from the keys and values of its ``[[scenario]]``."""
    return _scenario(checked(ScenarioTable, content, file), base, model, file, until)


def _scenario(
    table: ScenarioTable, base: Scenario, model: Model, file: Path, until: float
) -> Scenario:
    """Make one scenario from the treatment as given."""
    table = understood(table, model)
    doses, changes = _edited(table, base.doses, file, until), base.changes
    for number, entry in enumerate(table.change, start=1):
        with _at(file, table, f"change {number}"):
            changes += (_checked(entry.change(), model, until),)
            check_overlap(changes)
    with _at(file, table, "add, replace"):
        for drug in doses.drugs:
            model.drug(drug)
    with _at(file, table, "values"):
        for name in table.values:
            _check_parameter(name, model)
    made = replace(
        base, name=table.name, doses=doses, changes=changes,
        values={**base.values, **table.values},
        holds=tuple(_hold(h, n, table, model, file) for n, h in enumerate(table.hold, start=1)),
        triggers=tuple(_trigger(t, table, model, file) for t in table.trigger),
    )  # fmt: skip
    ask_about_values(table.values, model, place(file, key=f"scenario {table.name!r}"))
    patient = model.with_values(**made.values)
    with _at(file, table, "doses"):
        expand(patient, doses)
    for dose in (*(d for d in doses if d not in base.doses), *(t.dose for t in made.triggers)):
        at, stated = place(file, key=f"scenario {table.name!r}"), all(d.unit for d in base.doses)
        ask_about_dose(patient, dose, at, patient.values, unit_needed=stated)
    with error_location(place(file)):
        check_rules(patient, made, until)
    return made


def understood(record: R, model: Model) -> R:
    """A table with every drug in it by the model's name."""
    known = (*(drug.name for drug in model.drugs), *model.state_ids)

    def read(key: str, value: Any) -> Any:
        if isinstance(value, Record):
            return understood(value, model)
        if isinstance(value, list):
            return [read("drug" if key == "keep" else key, v) for v in value]
        return model.usual.understood("drug", value, known) if key == "drug" else value

    return record.model_copy(update={key: read(key, value) for key, value in record})


def _edited(table: ScenarioTable, doses: Schedule, file: Path, until: float) -> Schedule:
    if table.keep is not None:
        with _at(file, table, "keep"):
            doses = only_drugs(doses, table.keep)
    for key in EDITS:
        for number, entry in enumerate(getattr(table, key), start=1):
            with _at(file, table, f"{key} {number}"):
                before, doses = doses, entry.edit(doses)
                _check_in_time([dose for dose in doses if dose not in before.doses], until)
    return doses


def _check_in_time(made: Sequence[Dose], until: float) -> None:
    """Refuse doses after the end of the runs, which would never be given."""
    first = min((dose.day for dose in made), default=0.0)
    if first > until:
        raise InputError(
            f"{made[0].drug} would be given on day {first:g}, after the last day of the runs "
            f"(until = {until:g}); give it earlier, or set a later until"
        )


def _hold(entry: HoldTable, number: int, table: ScenarioTable, model: Model, file: Path) -> Hold:
    with _at(file, table, f"hold {number}"):
        model.drug(entry.drug)
        return Hold(entry.drug, _condition(entry.when, model))


def _trigger(entry: TriggerTable, table: ScenarioTable, model: Model, file: Path) -> Trigger:
    with _at(file, table, f"trigger {entry.name!r}"):
        give = entry.give
        model.drug(give.drug)
        return Trigger(
            entry.name, _condition(entry.when, model), give.given(0.0).doses[0],
            at_most=entry.at_most, hours_apart=entry.hours_apart or 0.0,
            every_hours=entry.every_hours, first=entry.first,
            last=math.inf if entry.last is None else entry.last,
            course=() if give.every is None or give.doses is None else (give.doses, give.every),
        )  # fmt: skip


def _condition(text: str, model: Model) -> Condition:
    condition = Condition.read_all(text)
    for part in condition.parts:
        check_course(part.quantity, model)
    return condition


def check_course(name: str, model: Model) -> None:
    """Refuse a name that is neither a state nor a quantity."""
    if name not in model.course_ids:
        raise unknown_name("state or quantity", name, model.course_ids)


def _checked(change: Change, model: Model, until: float) -> Change:
    _check_parameter(change.parameter, model)
    if change.first >= until or change.last <= 0:
        raise InputError(f"{change.describe()}: the runs last from day 0 to {until:g}; change "
                         "first or last, or until")  # fmt: skip
    return change


def _check_parameter(name: str, model: Model) -> None:
    if name not in model.values:
        raise unknown_name("parameter", name, model.values)


def _at(file: Path, table: ScenarioTable, key: str) -> AbstractContextManager[None]:
    return error_location(place(file, key=f"scenario {table.name!r}, {key}"))
