"""The three files of a patient: their columns, and how each row is validated.

They are in a folder, or are the sheets of an Excel workbook. The column descriptions here are also
written into the files of a new patient.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ..errors import FileError, UnitError, command
from ..model import GRADE, convert, named_unit, read_unit, show
from ..store import (
    CellError,
    Moment,
    NotNegative,
    Number,
    Positive,
    Real,
    Record,
    Whole,
    beyond,
    check_sheets,
    checked,
    column,
    has_sheet,
    is_workbook,
    number,
    place,
    read_table,
    read_toml,
    time_zone,
)

Kind = Literal[
    "value", "below", "above", "peak", "sometime", "ratio", "ratio_below", "ratio_above", "grade"
]
KINDS: tuple[str, ...] = get_args(Kind)
WINDOWS = ("peak", "sometime")
RATIOS = ("ratio", "ratio_below", "ratio_above")
MAX_DOSES = 10_000
NAME = "[A-Za-z][A-Za-z0-9_]*"
"""What an id or the name of an assay may be, as a regular expression."""
FILES = {"patient": "patient.toml", "doses": "doses.csv", "observations": "observations.csv"}
SHEETS = (*FILES, "changes", "conversions")
"""Sheets of a workbook; the last two are optional, like ``[[changes]]`` in patient.toml."""
NUMBERS = ("height", "body_surface")
KEYS = ("id", "model", "infusion", "time_zone", "untreated", *NUMBERS)
"""Keys of the sheet ``patient``; any other key is a parameter."""
WORDS = {"true": True, "false": False}


def file_path(home: Path, name: str) -> Path:
    """The path of one of a patient's files; or of the sheet, if home is a workbook.

    >>> [str(file_path(Path(home), "doses")) for home in ("p7", "p7.xlsx")]
    ['p7/doses.csv', 'p7.xlsx/doses']
    """
    return home / (name if is_workbook(home) else FILES[name])


class ChangeTable(Record):
    """One ``[[changes]]`` of patient.toml."""

    parameter: str
    first: Moment | None = None
    last: Moment | None = None
    factor: Real | None = None
    value: Real | None = None


class ConversionTable(Record):
    """One ``[[conversions]]``: what one ``unit`` of a drug or an observable equals, and whence."""

    of: str
    unit: str
    equals: str
    source: str = column(min_length=1)

    def check(self) -> None:
        """Validate several columns together."""
        for name, text in (("unit", self.unit), ("equals", self.equals)):
            try:
                read_unit(text)
            except UnitError as error:
                raise CellError(name, str(error)) from None


class PatientFile(Record):
    """patient.toml."""

    id: str = column(min_length=1)
    model: str = "crs"
    infusion: Any = None
    time_zone: str = ""
    untreated: bool = False
    height: Annotated[float, column(gt=30, lt=280)] | None = None
    body_surface: Annotated[float, column(gt=0.1, lt=5)] | None = None
    values: dict[str, Real] = column(default_factory=dict)
    changes: tuple[ChangeTable, ...] = column(default=(), strict=False)
    conversions: tuple[ConversionTable, ...] = column(default=(), strict=False)

    def check(self) -> None:
        """Validate several columns together."""
        if self.values.get("weight", 1.0) <= 0:
            raise CellError("values.weight", "a body weight must be above 0 kg")
        if self.time_zone:
            try:
                time_zone(self.time_zone)
            except ValueError as error:
                raise CellError("time_zone", str(error)) from None
        if self.height is not None and self.body_surface is not None:
            raise CellError("height", "gives a body surface, and body_surface another; keep one")
        if self.height is not None and "weight" not in self.values:
            raise CellError("height", "gives a body surface with a body weight; add weight")

    @property
    def surface(self) -> float | None:
        """Body surface in m2; from the height by Mosteller's formula.

        sqrt(height in cm times weight in kg / 3600): N Engl J Med 1987, 317:1098.
        """
        if self.height is None:
            return self.body_surface
        return math.sqrt(self.height * self.values["weight"] / 3600.0)

    def stated(self, name: str, amount: float, unit: str) -> tuple[float, str]:
        """An amount or level of ``name`` as its conversion states it, and the body surface."""
        found = named_unit(unit) if unit else None
        if found is None:  # no unit, or an error that is reported with its place
            return amount, unit
        for entry in self.conversions:
            if entry.of == name:
                with suppress(UnitError):  # of another dimension
                    return amount * convert(1.0, unit, entry.unit), entry.equals
        if self.surface is not None and found.dimensionality.get("[length]") == -2:
            return amount * self.surface, show(found * read_unit("m^2"))
        return amount, unit


class KeyRow(Record):
    """One row of the sheet ``patient``."""

    key: str = column(
        min_length=1,
        description=f"{', '.join(KEYS)}, or a model parameter ({command('list', 'parameters')}): "
        "then the value is the patient's own; body weight in kg is needed for doses per kg",
    )
    value: str = column(
        min_length=1,
        description="its value; infusion is the time of day 0, only needed where other sheets give "
        "date-times instead of days; time_zone, such as Europe/Vienna, is that of all date cells; "
        "untreated is true for a patient without doses; height (cm) or body_surface (m2) is needed "
        "for doses per m2",
    )
    note: str = column("", description="a comment; not used")


class ChangeRow(Record):
    """One row of the sheet ``changes``."""

    parameter: str
    first: Moment | None = None
    last: Moment | None = None
    factor: Number | None = None
    value: Number | None = None
    note: str = ""


class DoseRow(Record):
    """One row of doses.csv: one dose, or one dose repeated."""

    day: Moment = column(
        description="days after the CAR-T infusion (0 or later), or a date-time, "
        "2024-03-11T08:30+01:00 (without the zone if patient.toml has time_zone), if patient.toml "
        "has that of the infusion"
    )
    drug: str = column(description=f"a drug of the model ({command('list', 'drugs')})")
    amount: NotNegative = column(description="amount of each dose")
    unit: str = column(description="its unit: mg, g, mg/kg, cells/kg, ...")
    hours: NotNegative | None = column(
        None, description="infusion time in hours; 0 is a bolus; empty: the drug's default"
    )
    every: Positive | None = column(None, description="hours between repeated doses")
    doses: Whole | None = column(None, description="number of doses, the first included")
    note: str = column("", description="a comment; not used")

    def check(self) -> None:
        """Validate several columns together."""
        if self.doses is not None and self.every is None:
            raise CellError("every", "is empty, but 'doses' is given; give the hours between doses")
        if self.every is not None and self.doses is None:
            raise CellError("doses", "is empty, but 'every' is given; give the number of doses")
        if self.doses is not None and not 1 <= self.doses <= MAX_DOSES:
            raise CellError("doses", f"{self.doses} is not between 1 and {MAX_DOSES}")


class ObservationRow(Record):
    """One row of observations.csv."""

    id: str = column(
        pattern=f"^{NAME}$",
        description="a unique name: letters, digits, _",
    )
    observable: str = column(
        description=f"what was measured ({command('list', 'observables')}); {GRADE} for a grade"
    )
    kind: Kind = column(
        description="value | below | above | peak (largest from day to until) | sometime (on an "
        "unknown day from day to until) | ratio, ratio_below, ratio_above (value on day over "
        "value on the reference day) | grade (0 to 4)"
    )
    day: Moment = column(
        description="when, as in doses.csv; before any dose at the same time; a baseline may be "
        "before day 0"
    )
    until: Moment | None = column(None, description="last day of a peak or sometime")
    reference: Moment | None = column(None, description="earlier day of a ratio")
    value: Number = column(
        description="the number reported; above 0 unless it is a grade; >2900 or <4.2 where the "
        "level is beyond a limit of the assay, of which the kind is then above or below"
    )
    unit: str = column(
        "", description="its unit: pg/mL, ng/mL, mg/L, ...; 1 for none; empty for ratio and grade"
    )
    sd: Positive | None = column(
        None,
        description="standard deviation on the log scale (0.2: about 20 %); empty: the problem's",
    )
    assay: Annotated[str, column(pattern=rf"^({NAME})?$")] = column(
        "", description="the assay, if the noise states its own error: [noise.NAME]; empty, or "
        "no such column: that of the observable"
    )  # fmt: skip
    note: str = column("", description="the source of the number, and how it was read")

    @classmethod
    def plain(cls, cells: dict[str, Any]) -> dict[str, Any]:
        """A limit such as ``>2900`` as its number and its kind."""
        side, limit = beyond(cells.get("value", ""))
        if not side:
            return cells
        kind = cells.get("kind", "value")
        meant = f"ratio_{side}" if kind.startswith("ratio") else side
        if kind not in (meant, "value", "ratio"):
            words = f"is {kind}, but the value is {side} a limit, {cells['value']}; write {meant}"
            raise CellError("kind", f"{words}, or the value without its sign")
        return {**cells, "kind": meant, "value": limit}

    def check(self) -> None:
        """Validate several columns together."""
        _check_window(self)
        if self.kind == "grade" or self.observable == GRADE:
            _check_grade(self)
        elif self.value <= 0:
            raise CellError("value", f"{self.value:g} has no logarithm; it must be above 0")
        elif self.kind in RATIOS and self.unit not in ("", "1"):
            raise CellError("unit", f"a ratio has no unit; delete {self.unit!r}")
        elif self.kind not in RATIOS and not self.unit:
            raise CellError("unit", "is empty; fill in the unit, or 1 if there is none")


def _check_window(row: ObservationRow) -> None:
    if row.kind in WINDOWS and row.until is None:
        raise CellError("until", f"is empty; a {row.kind} needs the last day of its window")
    if row.kind not in WINDOWS and row.until is not None:
        raise CellError("until", f"only for peak or sometime, not for {row.kind}; leave it empty")
    if row.kind in RATIOS and row.reference is None:
        raise CellError("reference", f"is empty; a {row.kind} needs the day it is compared with")
    if row.kind not in RATIOS and row.reference is not None:
        raise CellError("reference", f"only for a ratio, not for {row.kind}; leave it empty")


def _check_grade(row: ObservationRow) -> None:
    if row.observable != GRADE:
        raise CellError("observable", f"kind grade needs {GRADE}, not {row.observable!r}")
    if row.kind != "grade":
        raise CellError("kind", f"{GRADE} is observed as kind 'grade', not {row.kind!r}")
    if row.value not in (0, 1, 2, 3, 4):
        raise CellError("value", f"{row.value:g} is not a grade; write 0, 1, 2, 3 or 4")
    if row.unit not in ("", "1"):
        raise CellError("unit", f"a grade has no unit; delete {row.unit!r}")
    for name in ("sd", "assay"):
        if getattr(row, name):
            words = f"a grade has no {name}; the problem file sets the scale of the grades"
            raise CellError(name, words)


def read_patient_file(home: Path) -> PatientFile:
    """Read patient.toml, or the corresponding sheets of a workbook.

    Raises
    ------
    FileError, UnknownNameError
        Naming file and key, or sheet, row and column.
    """
    if not is_workbook(home):
        return read_toml(file_path(home, "patient"), PatientFile)
    check_sheets(home, SHEETS)
    path, new = file_path(home, "patient"), command("new", f"{home.stem}_new{home.suffix}")
    if not has_sheet(path):
        raise FileError(f"{home.name}: has no sheet 'patient'; {new} creates a template")
    content: dict[str, Any] = {}
    values: dict[str, float] = {}
    for row, record in read_table(path, KeyRow):
        if record.key in (*content, *values):
            raise FileError(f"{place(path, row, 'key')}: {record.key!r} appears twice; keep one")
        if record.key in KEYS and record.key not in NUMBERS:
            words = WORDS if record.key == "untreated" else {}
            content[record.key] = words.get(record.value.lower(), record.value)
            continue
        try:
            (content if record.key in NUMBERS else values)[record.key] = number(record.value)
        except ValueError as error:
            raise FileError(f"{place(path, row, 'value')}: {error}") from None
    zone = content.get("time_zone", "")
    rows = read_table(home / "changes", ChangeRow, zone) if has_sheet(home / "changes") else ()
    changes = [record.model_dump(exclude={"note"}) for _, record in rows]
    stated = home / "conversions"
    table = read_table(stated, ConversionTable) if has_sheet(stated) else ()
    conversions = [record.model_dump() for _, record in table]
    lists = {"values": values, "changes": changes, "conversions": conversions}
    return checked(PatientFile, {**content, **lists}, path, zone=zone)
