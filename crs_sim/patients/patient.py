"""Patients: treatment and observations, read from a folder of three files or a workbook.

``patient.toml`` identifies the patient, ``doses.csv`` lists the doses, ``observations.csv`` the
measurements; an Excel workbook has them as sheets. Days count from the CAR-T infusion:
day = (time - infusion) / 24 h. Nothing here is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..dosing import Change, Dose, Scenario, Schedule, check_overlap
from ..errors import FileError, InputError, Mistakes, unknown_name, with_location
from ..model import Model, load_model
from ..store import (
    EXAMPLE_TIME,
    R,
    Table,
    check_duplicates,
    is_plain,
    is_sheet,
    is_there,
    is_workbook,
    locate,
    moment,
    place,
    read_table,
    text_of,
)
from .patient_files import (
    FILES,
    RATIOS,
    DoseRow,
    ObservationRow,
    PatientFile,
    file_path,
    read_patient_file,
)

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ("value", "below", "above")
MAX_DAY = 36500.0


@dataclass(frozen=True)
class Observation:
    """One measurement, with its type of observation (likelihood).

    Parameters
    ----------
    id, observable : str; the observable is a quantity of the model, or ``crs_grade``
    kind : str, one of `KINDS`: value, below, above; peak (largest in [day, until]); sometime (on an
        unknown day in [day, until]); ratio, ratio_below, ratio_above (day over reference); grade
    day, until, reference : float, days after the infusion; until = day if there is no window,
        reference = nan if not a ratio. A dose at the same time comes after the observation.
        Before day 0 until `check_against`, which takes a baseline to day 0
    value : float, in ``unit``
    sd : float, on the log scale; nan if not given
    assay : str, the noise entry of the assay that read it; "" for that of its observable
    row : int, its row in observations.csv; 0 if not from a file
    """

    id: str
    observable: str
    kind: str
    day: float
    until: float
    reference: float
    value: float
    unit: str
    sd: float = math.nan
    note: str = ""
    row: int = field(default=0, compare=False)
    assay: str = ""

    def __repr__(self) -> str:
        return text_of(self, "assay")

    @property
    def noise_entry(self) -> str:
        """The name of the noise entry that has its error: its assay, else its observable."""
        return self.assay or self.observable

    @property
    def value_unit(self) -> str:
        """The unit of ``value``: ``unit``, but "1" for a ratio or a grade."""
        return "1" if self.kind == "grade" or self.kind.startswith("ratio") else self.unit


@dataclass(frozen=True)
class Observations:
    """The observations of one patient, in the order of the file."""

    observations: tuple[Observation, ...] = ()

    def __iter__(self) -> Iterator[Observation]:
        return iter(self.observations)

    def __len__(self) -> int:
        return len(self.observations)

    def __getitem__(self, id: str) -> Observation:
        """The observation of that id.

        Raises
        ------
        UnknownNameError
            With the closest match.
        """
        for observation in self:
            if observation.id == id:
                return observation
        raise unknown_name("observation", id, self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the observations."""
        return tuple(o.id for o in self)

    def without(self, *ids: str) -> Observations:
        """All observations except these.

        Raises
        ------
        UnknownNameError
            If one of them does not exist.
        """
        left_out = {self[id].id for id in ids}
        return Observations(tuple(o for o in self if o.id not in left_out))

    def table(self) -> pd.DataFrame:
        """One row per observation, with the columns of observations.csv."""
        without = {"row"} if any(o.assay for o in self) else {"row", "assay"}
        names = [name for name in Observation.__dataclass_fields__ if name not in without]
        import pandas as pd  # slow to load, and rarely needed

        return pd.DataFrame([asdict(o) for o in self], columns=names)


@dataclass(frozen=True)
class Patient:
    """A patient: treatment and observations.

    Parameters
    ----------
    id : str
    model : str, name or path of the model to use
    scenario : Scenario, doses, changes and the patient's own values
    observations : Observations
    infusion : datetime with time zone, the time of day 0; None if the files use days
    path : str, the folder or workbook it was read from ("" if none)
    dose_rows : the row in doses.csv of each dose, for messages
    """

    id: str
    model: str
    scenario: Scenario
    observations: Observations = Observations()
    infusion: datetime | None = None
    path: str = ""
    dose_rows: Mapping[Dose, int] = field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        doses = self.scenario.doses
        return (
            f"Patient({self.id!r}: {len(doses)} doses of {len(doses.drugs)} drugs, "
            f"{len(self.observations)} observations)"
        )


@dataclass(frozen=True)
class Sample:
    """A record of the data set as a sample of a run.

    ``time`` is the text in the file; ``looked_at`` the day, or just after it, at which the run is
    sampled for the record; ``observable`` is "" if nothing was measured.
    """

    id: str
    row: int
    time: str
    day: float
    event: int
    looked_at: float
    observable: str = ""


@dataclass(frozen=True)
class Study:
    """A data set converted to patients, to simulate or to fit.

    Parameters
    ----------
    path, columns : str, the file, and its column map ("" if none)
    patients : tuple of Patient, in the order of the file
    samples : tuple of Sample, one per record
    notes : tuple of str, assumptions made and data not used
    unfit : mapping of subject to what cannot be fitted: observations without a logarithm
    """

    path: str
    patients: tuple[Patient, ...]
    samples: tuple[Sample, ...] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)
    columns: str = ""
    unfit: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def check_fitted(self, *ids: str) -> None:
        """Raise an error if an observation of these subjects (none: of all) cannot be fitted."""
        mistakes = Mistakes()
        for id in ids or self.unfit:
            mistakes.found.extend(FileError(text) for text in self.unfit.get(id, ()))
        mistakes.report()

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    def __len__(self) -> int:
        return len(self.patients)


def load_patient(name: str | Path) -> Patient:
    """Load the patient in a folder or an Excel workbook, or the shipped one of that name.

    >>> load_patient("ruemmele2025").observations["ferritin_peak"].value
    9580.0

    Raises
    ------
    FileError, UnknownNameError
        Naming file (or sheet), row, column and, for a misspelt name, the closest match.
    """
    home = locate(name, "fits/data", FILES["patient"])
    if home.is_file() and not is_workbook(home):
        raise InputError(f"{home}  is a file; give the folder that holds patient.toml")
    path, about = file_path(home, "patient"), read_patient_file(home)
    infusion = _infusion(about, path)
    _check_treated(about, path, file_path(home, "doses"))
    doses, dose_rows = _doses(file_path(home, "doses"), infusion, about)
    scenario = Scenario(about.id, doses, _changes(about, path, infusion), about.values)
    observations = _observations(file_path(home, "observations"), infusion, about)
    names = {*doses.drugs, *(o.observable for o in observations)}
    for entry in about.conversions:
        if entry.of not in names:  # it would do nothing
            where = place(path, key="conversions")
            raise with_location(where, unknown_name("drug or observable", entry.of, names))
    return Patient(about.id, about.model, scenario, observations, infusion, str(home), dose_rows)


def _infusion(about: PatientFile, path: Path) -> datetime | None:
    if about.infusion is None:
        return None
    try:
        time = moment(str(about.infusion), about.time_zone)
    except ValueError as error:
        raise FileError(f"{place(path, key='key infusion')}: {error}") from None
    if not isinstance(time, datetime):
        where = place(path, key="key infusion")
        raise FileError(f"{where}: {time:g} is not a date-time such as {EXAMPLE_TIME}")
    return time


def _day(
    day: float | datetime, infusion: datetime | None, where: str, *, baseline: bool = False
) -> float:
    """Days after the infusion; before it only for a ``baseline``."""
    if isinstance(day, datetime):
        if infusion is None:
            raise FileError(
                f"{where}: is a date-time, but patient.toml (or the sheet patient) has no "
                f"'infusion'; add infusion = {EXAMPLE_TIME} (the CAR-T infusion), or count days"
            )
        day = (day - infusion) / timedelta(days=1)
    if math.isnan(day):
        raise FileError(f"{where}: the day is not a number")
    if day < 0 and not baseline:
        raise FileError(
            f"{where}: day {day:g} is before the model starts, at the infusion on day 0; only "
            "levels may be (baselines): leave out what else was given or graded before"
        )
    if MAX_DAY < day < math.inf:
        raise FileError(f"{where}: day {day:g} is a century away; count from the infusion")
    return day


def _changes(about: PatientFile, path: Path, infusion: datetime | None) -> tuple[Change, ...]:
    changes = []
    for number, table in enumerate(about.changes, start=1):
        where = place(path, key=f"changes {number}")
        first = -math.inf if table.first is None else _day(table.first, infusion, where)
        last = math.inf if table.last is None else _day(table.last, infusion, where)
        try:
            changes.append(Change(table.parameter, first, last, table.factor, table.value))
            check_overlap(changes)
        except InputError as error:
            raise FileError(f"{where}: {error}") from None
    return tuple(changes)


def _table(path: Path, record: type[R], zone: str, ignoring: tuple[str, ...]) -> Table[R]:
    """The rows of a table; none, if it is not there."""
    if not is_there(path):
        return ()
    table = read_table(path, record, zone)
    check_duplicates(path, table, ignoring)
    return table


def _check_treated(about: PatientFile, path: Path, doses: Path) -> None:
    """Refuse doses that are not there: a table may be lost, so that none must be stated."""
    given, where = is_there(doses), place(path, key="key untreated")
    if given and about.untreated:
        raise FileError(f"{where}: is true, but there is {place(doses)}; remove one of them")
    if not (given or about.untreated):
        raise FileError(
            f"{place(doses)}: does not exist; add the doses, or state that there were none: "
            f"{'the key untreated with the value' if is_sheet(path) else 'untreated ='} true in "
            f"{place(path)}"
        )


def _doses(
    path: Path, infusion: datetime | None, about: PatientFile
) -> tuple[Schedule, dict[Dose, int]]:
    schedule, rows = Schedule(), {}
    for row, record in _table(path, DoseRow, about.time_zone, ignoring=("note",)):
        day = _day(record.day, infusion, place(path, row, "day"))
        amount, unit = about.stated(record.drug, record.amount, record.unit)
        first = Dose(day, record.drug, amount, unit, record.hours)
        doses = Schedule((first,))
        if record.every is not None and record.doses is not None:
            doses = first.repeated(record.every, record.doses)
        schedule += doses
        rows.update(dict.fromkeys(doses, row))
    return schedule, rows


def _observations(path: Path, infusion: datetime | None, about: PatientFile) -> Observations:
    found: dict[str, Observation] = {}
    for row, record in _table(path, ObservationRow, about.time_zone, ignoring=("id", "note")):
        if record.id in found:
            where, other = place(path, row, "id"), found[record.id].row
            raise FileError(f"{where}: {record.id!r} is also the id of row {other}; rename one")
        seen = _observation(path, row, record, infusion)
        value, unit = about.stated(seen.observable, seen.value, seen.unit)
        found[record.id] = replace(seen, value=value, unit=unit)
    return Observations(tuple(found.values()))


def _observation(
    path: Path, row: int, record: ObservationRow, infusion: datetime | None
) -> Observation:
    baseline = record.kind in (*LEVELS, *RATIOS)
    days = {
        name: math.nan if moment is None
        else _day(moment, infusion, place(path, row, name), baseline=baseline)
        for name, moment in record
        if name in ("day", "until", "reference")
    }  # fmt: skip
    if days["until"] < days["day"]:
        raise FileError(
            f"{place(path, row, 'until')}: the window ends (day {days['until']:g}) before it "
            f"starts (day {days['day']:g})"
        )
    if days["reference"] >= days["day"]:
        raise FileError(
            f"{place(path, row, 'reference')}: day {days['reference']:g} is not before day "
            f"{days['day']:g}; the reference is the earlier of the two"
        )
    if math.isnan(days["until"]):
        days["until"] = days["day"]
    return Observation(
        record.id, record.observable, record.kind, **days, value=record.value, unit=record.unit,
        sd=math.nan if record.sd is None else record.sd, note=record.note, row=row,
        assay=record.assay,
    )  # fmt: skip


def model_for_patient(patient: Patient) -> Model:
    """The model named by a patient: a path relative to the patient's folder, or a shipped name."""
    home = Path(patient.path)
    path = (home.parent if is_workbook(home) else home) / patient.model
    there = path.exists() and (not is_plain(patient.model) or bool(path.suffix))
    near = patient.path and (there or (path / "model.ant").is_file())
    return load_model(path if near else patient.model)
