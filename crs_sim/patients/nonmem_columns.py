"""The columns of a NONMEM or Monolix data set, the validation of a record, and the column map.

Standard names need no map. A small TOML file maps other names, compartment numbers and DVIDs:

    time_unit = "hours"                # of TIME, II and RATE; the model is in days
    amount_unit = "mg"                 # of AMT and RATE; default: the drug's own
    time_zone = "Europe/Vienna"        # of dates without a time zone
    drug = "oral"                      # if there is no CMT
    observable = "c_central"           # if DVID is empty, and CMT is not mapped
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
    [covariates]                       # parameter = column; default: a column of the same name
    weight = "WT"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from ..errors import FileError, unknown_name, with_location
from ..model import Model
from ..store import (
    CellError,
    NotNegative,
    Number,
    Record,
    Whole,
    checked,
    column,
    place,
    read_cells,
    read_toml,
)

MISSING = (".", "NA", "na", "NaN", "nan")
OTHER_NAMES = {"YTYPE": "DVID", "ADM": "CMT", "Y": "DV"}
UNSUPPORTED = {
    "TINF": "an infusion time; give RATE = AMT/time instead",
    "DUR": "an infusion time; give RATE = AMT/time instead",
    "PCMT": "a prediction compartment; every state is predicted on every record",
}
OBSERVATION, DOSE, OTHER, RESET, RESET_DOSE = range(5)
MAX_ADDL = 10_000


class ObservableEntry(Record):
    """One observable of the map, with the unit its DV is in."""

    name: str
    unit: str = ""


class ColumnMap(Record):
    """The TOML file that maps a data set to a model."""

    time_unit: Literal["", "hours", "days"] = ""
    amount_unit: str = ""
    time_zone: str = ""
    drug: str = ""
    observable: str = ""
    ignore: tuple[str, ...] = column(default=(), strict=False)
    covariates_between: Literal["forward", "backward"] = "forward"
    lagged_doses: Literal["before samples", "after samples"] = "before samples"
    columns: dict[str, str] = column(default_factory=dict)
    drugs: dict[str, str] = column(default_factory=dict)
    observables: dict[str, str | ObservableEntry] = column(default_factory=dict)
    covariates: dict[str, str] = column(default_factory=dict)

    def check(self) -> None:
        """Validate the keys of ``columns``."""
        for name in self.columns:
            if name not in DataRow.model_fields:
                raise CellError(
                    "columns", f"{name!r} is not a standard name; these are {', '.join(STANDARD)}"
                )


class DataRow(Record):
    """One record of a data set, by the standard names of its columns."""

    ID: str
    TIME: str
    DATE: str = ""
    DV: Number | None = None
    AMT: NotNegative = 0.0
    RATE: Number = 0.0
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

    def check(self) -> None:
        """Validate several columns together."""
        if self.EVID is not None and not 0 <= self.EVID <= 4:
            raise CellError(
                "EVID", f"{self.EVID} is none of 0 (observation), 1 (dose), 2 (other), 3 (reset) "
                "and 4 (reset and dose)",
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
    if row.AMT == 0:
        _check_constant(row)
    elif row.SS and not row.II:
        raise CellError("II", f"SS = {row.SS} needs II, the time between the doses before")
    elif row.ADDL and not row.II:
        raise CellError("II", f"ADDL = {row.ADDL} needs II, the time between the doses")
    elif row.II and not row.SS and not row.ADDL:
        raise CellError("II", f"{row.II:g} is a time between doses, but ADDL and SS are 0")


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
    for name in ("AMT", "RATE", "II", "ADDL", "SS"):
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
    rows : tuple of (row, record, cells by the names in the data set)
    notes : messages on the parts of the file that are not used
    """

    path: Path
    map: ColumnMap
    named: Mapping[str, str]
    covariates: Mapping[str, str]
    rows: tuple[tuple[int, DataRow, Mapping[str, str]], ...]
    notes: tuple[str, ...]

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
    named = _standard(path, head, header, column_map)
    covariates = _covariates(path, head, header, named, column_map, model)
    used = {*named.values(), *covariates.values(), *column_map.ignore}
    unused = [name for name in header if name not in used]
    _refuse_misspelt(path, head, unused, named)
    notes = [f"column {name} is not used" for name in unused]
    rows = []
    excluded = 0
    for row, cells in table:
        filled = {name: cell for name, cell in cells.items() if cell not in MISSING}
        if filled.get(named.get("C", ""), "0") != "0":
            excluded += 1
            continue
        content = {name: filled[col] for name, col in named.items() if col in filled}
        rows.append((row, _record(path, row, content, named), filled))
    if excluded:
        notes.append(f"rows marked in column {named['C']} are excluded: {excluded}")
    if not rows:
        raise FileError(f"{place(path)}: every row is marked in column {named['C']}")
    return DataSet(path, column_map, named, covariates, tuple(rows), tuple(notes))


def _record(path: Path, row: int, content: Mapping[str, str], named: Mapping[str, str]) -> DataRow:
    try:
        return checked(DataRow, content, path, row)
    except FileError as error:
        text = str(error)
        for name, col in named.items():
            if name != col:
                text = text.replace(f"column {name}:", f"column {col} ({name}):")
        raise FileError(text) from None


def _standard(path: Path, head: int, header: list[str], column_map: ColumnMap) -> dict[str, str]:
    """The name in the data set of each standard column."""
    named = {}
    for name, col in column_map.columns.items():
        if col not in header:
            raise with_location(f"{place(path, head)}: [columns] {name}",
                           unknown_name("column", col, header))  # fmt: skip
        named[name] = col
    taken = {*named.values(), *column_map.covariates.values(), *column_map.ignore}
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
    for parameter, col in column_map.covariates.items():
        where = f"{place(path, head)}: [covariates] {parameter}"
        if parameter not in model.values:
            raise with_location(where, unknown_name("parameter", parameter, model.values))
        if col not in header:
            raise with_location(where, unknown_name("column", col, header))
    taken = {*named.values(), *column_map.covariates.values(), *column_map.ignore}
    by_name = {col: col for col in header if col in model.values and col not in taken}
    return {**column_map.covariates, **by_name}


def _refuse_misspelt(
    path: Path, head: int, unused: Iterable[str], named: Mapping[str, str]
) -> None:
    """Raise an error for an unused column with a misspelt standard name or unsupported meaning."""
    free = [name for name in STANDARD if name not in named and len(name) > 2]
    for col in unused:
        if col.upper() in UNSUPPORTED:
            raise FileError(
                f"{place(path, head, col)}: is {UNSUPPORTED[col.upper()]}, or ignore it"
            )
        close = get_close_matches(col.upper(), free, n=1, cutoff=0.75)
        if close:
            raise FileError(
                f"{place(path, head)}: unknown column {col!r}: did you mean {close[0]!r}? If not, "
                f'write ignore = ["{col}"] in the map'
            )
