"""The columns of a NONMEM or Monolix data set, the validation of a record, and the column map.

Columns are separated by commas, semicolons or tabs. Standard names need no map. A small TOML file
maps other names, compartment numbers and DVIDs:

    time_unit = "hours"                # of TIME, II, RATE, TINF, and of lags, durations and rates
                                       # from columns; the model is in days
    amount_unit = "mg"                 # of AMT and RATE; default: the drug's own
    time_zone = "Europe/Vienna"        # of dates without a time zone
    drug = "oral"                      # if there is no CMT
    observable = "c_central"           # if DVID is empty, and CMT is not mapped
    leave_out = [2]                    # DVIDs (or CMTs, if none) whose DV is not used
    ignore = ["COMMENT"]               # columns not to report as unused
    covariates_between = "forward"     # or "backward", NONMEM's rule: a value holds from the
                                       # record before its own
    lagged_doses = "before samples"    # of the instant at which they arrive, as in NONMEM; or
                                       # "after samples"

    [columns]                          # standard name = name in the data set
    DV = "CONC"
    [drugs]                            # CMT = drug
    1 = "oral"
    [observables]                      # DVID (or CMT, if none) = observable, optionally its unit
    1 = "c_central"
    2 = { name = "il6", unit = "ng/L" }
    [assays]                           # DVID (or CMT) = its assay, if that has its own error
    2 = "elisa"
    [covariates]                       # parameter = column; default: a column of the same name
    weight = "WT"
    lag_oral = { column = "LAGT", unit = "min" }    # default: the unit of the model
    [missing]                          # column = what stands for a missing value, beside . and NA
    WT = [-99, 99]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from ..errors import CrsSimError, FileError, Mistakes, unknown_name, with_location
from ..model import Model
from ..store import (
    CellError,
    NotNegative,
    Number,
    Record,
    Whole,
    beyond,
    checked,
    column,
    number_or_text,
    place,
    read_cells,
    read_toml,
)
from .patient_files import NAME

MISSING = (".", "NA", "na", "NaN", "nan")
OTHER_NAMES = {"YTYPE": "DVID", "ADM": "CMT", "Y": "DV", "DUR": "TINF"}
OBSERVATION, DOSE, OTHER, RESET, RESET_DOSE = range(5)
MAX_ADDL = 10_000


class ObservableEntry(Record):
    """An observable of the map, and the unit of its DV."""

    name: str
    unit: str = ""


class CovariateEntry(Record):
    """One covariate of the map, with the unit its column is in."""

    column: str
    unit: str = ""


class ColumnMap(Record):
    """The TOML file that maps a data set to a model."""

    time_unit: Literal["", "hours", "days"] = ""
    amount_unit: str = ""
    time_zone: str = ""
    drug: str = ""
    observable: str = ""
    leave_out: tuple[str | int, ...] = column(default=(), strict=False)
    ignore: tuple[str, ...] = column(default=(), strict=False)
    covariates_between: Literal["forward", "backward"] = "forward"
    lagged_doses: Literal["before samples", "after samples"] = "before samples"
    columns: dict[str, str] = column(default_factory=dict)
    drugs: dict[str, str] = column(default_factory=dict)
    observables: dict[str, str | ObservableEntry] = column(default_factory=dict)
    assays: dict[str, Annotated[str, column(pattern=f"^{NAME}$")]] = column(default_factory=dict)
    covariates: dict[str, str | CovariateEntry] = column(default_factory=dict)
    missing: dict[str, list[str | float]] = column(default_factory=dict)

    @property
    def covariate_columns(self) -> dict[str, str]:
        """The column of each covariate."""
        return {p: c if isinstance(c, str) else c.column for p, c in self.covariates.items()}

    def check(self) -> None:
        """Validate the keys of ``columns`` and ``assays``."""
        for key in self.assays:
            if key not in self.observables:
                raise CellError("assays", f"{key} is not under [observables]; add what it measures")
        for name in self.columns:
            if name not in DataRow.model_fields:
                words = f"{name!r} is not a standard name; these are {', '.join(STANDARD)}"
                raise CellError("columns", words)


class DataRow(Record):
    """One record of a data set, by the standard names of its columns."""

    ID: str
    TIME: str
    DATE: str = ""
    DV: Number | None = None
    AMT: NotNegative = 0.0
    RATE: Number = 0.0
    TINF: NotNegative = 0.0
    EVID: Whole | None = None
    CMT: str = ""
    II: NotNegative = 0.0
    ADDL: Whole = 0
    SS: Whole = 0
    MDV: Whole | None = None
    CENS: Whole = 0
    LIMIT: Number | None = None
    BLQ: Whole = 0
    LLOQ: Number | None = None
    DVID: str = ""
    DVUNIT: str = ""
    AMTUNIT: str = ""
    C: str = ""

    @property
    def constant(self) -> bool:
        """Whether it is a constant infusion at steady state, that ends at its time."""
        return self.SS > 0 and self.AMT == 0

    @property
    def event(self) -> int:
        """The event type: EVID, or as NM-TRAN derives it if there is no EVID."""
        if self.EVID is not None:
            return self.EVID
        if self.AMT or self.RATE or self.SS:
            return DOSE
        return OTHER if self.MDV else OBSERVATION

    @classmethod
    def plain(cls, cells: dict[str, Any]) -> dict[str, Any]:
        """A bolus of rxode2 as EVID 1, and a limit such as ``>2900`` as DV and CENS."""
        return _with_censoring(_with_bolus(cells))

    def check(self) -> None:
        """Validate several columns together."""
        if self.EVID is not None and not 0 <= self.EVID <= 4:
            raise CellError(
                "EVID", f"{self.EVID} is none of 0 (observation), 1 (dose), 2 (other), 3 (reset) "
                "and 4 (reset and dose); of rxode2's others a bolus (101 into compartment 1, 201 "
                "into 2, ...) is read",
            )  # fmt: skip
        for name, known in (("SS", (0, 1, 2)), ("MDV", (0, 1)), ("CENS", (-1, 0, 1)),
                            ("BLQ", (0, 1))):  # fmt: skip
            if getattr(self, name) not in (*known, None):
                words = ", ".join(map(str, known))
                raise CellError(name, f"{getattr(self, name)} is none of {words}")
        if self.event in (DOSE, RESET_DOSE):
            _check_dose(self)
        else:
            _check_no_dose(self)
        if self.event == OBSERVATION and not self.MDV:
            _check_observation(self)


STANDARD = tuple(DataRow.model_fields)


def _check_dose(row: DataRow) -> None:
    if row.RATE < 0 and row.RATE not in (-1, -2):
        raise CellError("RATE", f"{row.RATE:g} is none of 0, a rate, -1 and -2")
    if not 0 <= row.ADDL <= MAX_ADDL:
        raise CellError("ADDL", f"{row.ADDL} is not between 0 and {MAX_ADDL}")
    if row.TINF:
        _check_infusion_time(row)
    if row.AMT == 0:
        _check_constant(row)
    elif row.SS and not row.II:
        raise CellError("II", f"SS = {row.SS} needs II, the time between the doses before")
    elif row.ADDL and not row.II:
        raise CellError("II", f"ADDL = {row.ADDL} needs II, the time between the doses")
    elif row.II and not row.SS and not row.ADDL:
        raise CellError("II", f"{row.II:g} is a time between doses, but ADDL and SS are 0")


def _check_infusion_time(row: DataRow) -> None:
    if row.RATE == -1 or row.AMT == 0:
        raise CellError("TINF", "an infusion time needs an AMT, and does not go with RATE = -1")
    if row.RATE > 0 and not math.isclose(row.AMT / row.RATE, row.TINF, rel_tol=1e-3):
        words = f"{row.TINF:g} is not AMT/RATE = {row.AMT / row.RATE:g}; leave one out"
        raise CellError("TINF", words)


def _check_constant(row: DataRow) -> None:
    if not row.SS:
        what = f"RATE = {row.RATE:g} with AMT = 0" if row.RATE else "a dose with AMT = 0"
        raise CellError("AMT", f"{what} is no dose; fill in AMT, or set EVID to 0 or 2")
    if row.RATE <= 0:
        raise CellError(
            "RATE", f"SS = {row.SS} with AMT = 0 is a constant infusion; it needs a RATE above 0"
        )
    if row.II or row.ADDL:
        raise CellError("II", "a constant infusion (SS, AMT = 0) has neither II nor ADDL")


def _check_no_dose(row: DataRow) -> None:
    kind = ("an observation", "", "another event", "a reset")[row.event]
    for name in ("AMT", "RATE", "TINF", "II", "ADDL", "SS"):
        if getattr(row, name):
            raise CellError(
                name, f"EVID = {row.event} is {kind}, but {name} = {getattr(row, name):g}; a dose "
                "has EVID = 1 (or 4)",
            )  # fmt: skip
    if row.event == OTHER and row.CMT.startswith("-"):
        raise CellError("CMT", f"{row.CMT} turns a compartment off, which is not supported")


def _check_observation(row: DataRow) -> None:
    if row.CENS and row.DV is None and row.LLOQ is None:
        raise CellError("CENS", f"CENS = {row.CENS}, but no limit: fill it in as DV")
    if row.CENS == 1 and row.LIMIT is not None and row.LIMIT > 0:
        raise CellError(
            "LIMIT", f"{row.LIMIT:g} makes it interval censored, which is not supported; "
            "without LIMIT it is censored below DV",
        )  # fmt: skip
    if row.BLQ and row.LLOQ is None:
        raise CellError("BLQ", "BLQ = 1, but no limit: fill in LLOQ")


@dataclass(frozen=True)
class DataSet:
    """The records of a data set, before conversion to patients.

    Parameters
    ----------
    path : Path
    map : ColumnMap
    named : mapping of standard name to the name in the data set
    covariates : mapping of parameter to column
    unused : row of the header, and the columns in it that are not used
    rows : tuple of (row, record, cells by the names in the data set)
    notes : messages on the rows that are not used
    mistakes : Mistakes, found so far
    broken : subjects with a row that could not be read
    """

    path: Path
    map: ColumnMap
    named: Mapping[str, str]
    covariates: Mapping[str, str]
    unused: tuple[int, tuple[str, ...]]
    rows: tuple[tuple[int, DataRow, Mapping[str, str]], ...]
    notes: tuple[str, ...]
    mistakes: Mistakes = field(default_factory=Mistakes)
    broken: frozenset[str] = frozenset()

    def where(self, row: int, name: str = "") -> str:
        """A location in the file, with the column's name in the file."""
        return place(self.path, row, self.named.get(name, name))


def read_data(path: Path, model: Model, columns: str | Path | None = None) -> DataSet:
    """Read the records of a data set, each validated by itself.

    Parameters
    ----------
    path : a comma-separated file
    model : Model, whose parameters may be covariates
    columns : path of the column map, if any

    Raises
    ------
    FileError, UnknownNameError
        Naming file, row and column.
    """
    column_map = ColumnMap() if columns is None else read_toml(Path(columns), ColumnMap)
    head, header, table = read_cells(path)
    mistakes, broken = Mistakes(), set()
    named = _standard(path, head, header, column_map)
    covariates = _covariates(path, head, header, named, column_map, model)
    used = {*named.values(), *covariates.values(), *column_map.ignore}
    unused = tuple(name for name in header if name not in used)
    missing = _missing(path, head, header, column_map)
    rows, excluded = [], 0
    for row, cells in table:
        filled = {
            name: cell for name, cell in cells.items()
            if cell not in MISSING and number_or_text(cell) not in missing.get(name, ())
        }  # fmt: skip
        if filled.get(named.get("C", ""), "0") != "0":
            excluded += 1
            continue
        content = {name: filled[col] for name, col in named.items() if col in filled}
        try:
            rows.append((row, checked(DataRow, content, path, row, named=named), filled))
        except CrsSimError as error:
            mistakes.add(error)
            broken.add(content.get("ID", ""))
    notes = (f"rows marked in column {named['C']} are excluded: {excluded}",) if excluded else ()
    if not rows:
        mistakes.report()
        raise FileError(f"{place(path)}: every row is marked in column {named['C']}")
    return DataSet(path, column_map, named, covariates, (head, unused), tuple(rows), notes,
                   mistakes, frozenset(broken))  # fmt: skip


def _missing(
    path: Path, head: int, header: list[str], column_map: ColumnMap
) -> dict[str, set[float | str]]:
    """What stands for a missing value in each column that the map names."""
    for col in column_map.missing:
        if col not in header:
            raise with_location(f"{place(path, head)}: [missing] {col}",
                           unknown_name("column", col, header))  # fmt: skip
    return {col: {number_or_text(str(code)) for code in codes}
            for col, codes in column_map.missing.items()}  # fmt: skip


def _with_bolus(cells: dict[str, str]) -> dict[str, str]:
    """The cells of a row; rxode2's EVID of a bolus, 100 times the compartment plus 1, as EVID 1."""
    event, cmt = number_or_text(cells.get("EVID", "")), number_or_text(cells.get("CMT", ""))
    if isinstance(event, str) or event % 100 != 1 or not 100 < event < 10_000:
        return cells
    into = int(event) // 100
    if cmt not in ("", float(into)):
        raise CellError("EVID", f"{event:g} is a bolus into compartment {into} in rxode2, but CMT "
                                f"is {cells['CMT']}; write EVID = 1")  # fmt: skip
    return {**cells, "EVID": "1", "CMT": str(into)}


def _with_censoring(cells: dict[str, str]) -> dict[str, str]:
    """The cells of a row; a limit such as ``>2900`` in DV as its number and CENS."""
    side, limit = beyond(cells.get("DV", ""))
    if not side:
        return cells
    meant = {"CENS": "1", "BLQ": "1"} if side == "below" else {"CENS": "-1", "BLQ": "0"}
    for name, code in meant.items():
        if number_or_text(cells.get(name, code)) != float(code):
            raise CellError(name, f"is {cells[name]}, but DV is {side} a limit, {cells['DV']}; "
                                  f"write {code}, or the number alone in DV")  # fmt: skip
    return {**cells, "DV": limit, "CENS": meant["CENS"], "BLQ": "0"}


def _standard(path: Path, head: int, header: list[str], column_map: ColumnMap) -> dict[str, str]:
    """The name in the data set of each standard column."""
    named = {}
    for name, col in column_map.columns.items():
        if col not in header:
            raise with_location(f"{place(path, head)}: [columns] {name}",
                           unknown_name("column", col, header))  # fmt: skip
        named[name] = col
    taken = {*named.values(), *column_map.covariate_columns.values(), *column_map.ignore}
    for col in header:
        name = OTHER_NAMES.get(col.upper(), col.upper())
        if col in taken or name not in STANDARD:
            continue
        if name in named:
            raise FileError(
                f"{place(path, head)}: {named[name]} and {col} are both {name}; ignore one of them"
            )
        named[name] = col
    for name in ("ID", "TIME"):
        if name not in named:
            raise FileError(
                f"{place(path, head)}: there is no column {name}; the columns are "
                f"{', '.join(header)}"
            )
    return named


def _covariates(
    path: Path, head: int, header: list[str], named: Mapping[str, str],
    column_map: ColumnMap,
    model: Model,
) -> dict[str, str]:  # fmt: skip
    """The column of each parameter that has one."""
    for parameter, col in column_map.covariate_columns.items():
        where = f"{place(path, head)}: [covariates] {parameter}"
        if parameter not in model.values:
            raise with_location(where, unknown_name("parameter", parameter, model.values))
        if col not in header:
            raise with_location(where, unknown_name("column", col, header))
    taken = {*named.values(), *column_map.covariate_columns.values(), *column_map.ignore}
    by_name = {col: col for col in header if col in model.values and col not in taken}
    return {**column_map.covariate_columns, **by_name}
