"""Patients from a NONMEM or Monolix data set: one `Patient` a subject, in NONMEM's meaning.

- **Records count in their order.** A sample written before a dose of the same time is taken before
  it, one written after it, after; one at the time of one of ADDL's doses, after that dose; one at
  the moment a lagged dose arrives, before that. Day 0 is a subject's first record.
- **Times go forward** within a subject. Only a reset (EVID 3, 4) may go back; the days then go on
  from the record before.
- **A subject's records stand together.** NONMEM takes an ID that comes back for a new subject;
  here it is refused.
- **Lag, bioavailability, modelled duration and rate** are those of the drug (see `drugs.toml`), at
  the dose's own record; ADDL's doses keep them. A share that arrives shortens an infusion of given
  RATE. A reset, or SS = 1, ends what runs and cancels what is still to come.
- **SS = 2 adds** the steady state to what is there: right for a linear model, NONMEM's meaning for
  any. A constant infusion (SS, AMT = 0, RATE > 0) ends at its record.
- **Covariates** hold from their record until the next that says otherwise (last observation carried
  forward; NONMEM carries the next one backward).

What a column or a cell cannot mean is refused with file, row and column; what is not used is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from .arrivals import SAME_TIME
from .clock import just_after
from .dosing import HOURS_PER_DAY, Dose, Schedule
from .errors import FileError, InputError, at_place, unknown_name
from .model import Model
from .nonmemcolumns import DOSE, OBSERVATION, RESET, RESET_DOSE, DataRow, DataSet, read_data
from .nonmemrecord import drug_of, measured, observables_by_default, time_of
from .patient import Observation, Observations, Patient
from .scenario import Change, Scenario
from .tables import number

BEFORE, RESETTING, GIVING, AFTER = range(4)
"""How far the records of one instant have come: samples, then resets, doses, and samples again."""


@dataclass(frozen=True)
class Sample:
    """A record of the data set as a day of a run.

    ``time`` is the file's own text; ``looked_at`` the day, or a moment after it, on which a run
    says what the record would show; ``observable`` is "" where nothing was measured.
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
    """A data set made ready to run or to fit.

    Parameters
    ----------
    path, columns : str, the file, and its map ("" if there is none)
    patients : tuple of Patient, in the order of the file
    samples : tuple of Sample, one a record
    notes : tuple of str, what was assumed and what was not used
    """

    path: str
    patients: tuple[Patient, ...]
    samples: tuple[Sample, ...] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)
    columns: str = ""

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    def __len__(self) -> int:
        return len(self.patients)


def read_nonmem(path: str | Path, model: Model, *, columns: str | Path | None = None) -> Study:
    """The subjects of a data set as patients of a model.

    Parameters
    ----------
    path : a comma-separated file with at least ID and TIME (see `crs_sim.nonmemcolumns`)
    model : Model
    columns : path of a TOML file that maps columns, compartments and DVIDs, if there is one

    Raises
    ------
    FileError, UnknownNameError, UnitError
        Naming file, row and column.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from crs_sim.modelfolder import load_model
    >>> rows = "ID,TIME,AMT,CMT,DV\\n1,0,100,1,.\\n1,2,.,1,1.9\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "study.csv")
    ...     _ = file.write_text(rows)
    ...     study = read_nonmem(file, load_model("one_compartment"))
    >>> study.patients[0]
    Patient('1': 1 doses of 1 drugs, 1 observations)
    """
    data = read_data(Path(path), model, columns)
    notes = [*data.notes]
    if not data.map.time_unit:
        notes.append("TIME, II and RATE are taken in hours; else write time_unit in the map")
    notes += observables_by_default(data, model)
    patients, samples = [], []
    for id, rows in _subjects(data):
        subject = Subject(data, model, id)
        for row, record, cells in rows:
            subject.add(row, record, cells)
        patients.append(subject.patient())
        samples += subject.samples
        notes += subject.notes
    said = tuple(_gathered(notes))
    return Study(str(path), tuple(patients), tuple(samples), said, str(columns or ""))


def subject_of(
    path: str | Path, model: Model, id: str = "", *, columns: str | Path | None = None
) -> Patient:
    """One subject of a data set; its only one, if no id is given.

    Raises
    ------
    FileError, InputError, UnknownNameError, UnitError
        As `read_nonmem`; and if it is not said which of several, or there is none of that id.
    """
    known = {patient.id: patient for patient in read_nonmem(path, model, columns=columns)}
    if not id and len(known) > 1:
        raise InputError(f"{path}  holds {len(known)} subjects; say which is meant: subject = "
                         f'"{next(iter(known))}"')  # fmt: skip
    if id and id not in known:
        raise at_place(str(path), unknown_name("subject", id, known))
    return known[id or next(iter(known))]


def _gathered(notes: list[str]) -> Iterator[str]:
    """The notes; those of many subjects that say the same are one."""
    whom: dict[str, list[str]] = {}
    for note in notes:
        subject, _, words = note.rpartition("|")
        whom.setdefault(words, []).append(subject)
    for words, subjects in whom.items():
        if subjects == [""]:
            yield words
        else:
            few = ", ".join(subjects[:5]) + (f" and {len(subjects) - 5} more" * (len(subjects) > 5))
            yield f"subject{'s' * (len(subjects) > 1)} {few}: {words}"


def _subjects(
    data: DataSet,
) -> Iterator[tuple[str, list[tuple[int, DataRow, Mapping[str, str]]]]]:
    """The records of one subject after the other."""
    seen: dict[str, int] = {}
    written: dict[float | str, str] = {}
    group: list[tuple[int, DataRow, Mapping[str, str]]] = []
    for row, record, cells in data.rows:
        if group and record.ID != group[-1][1].ID:
            yield group[0][1].ID, group
            group = []
        if not group and record.ID in seen:
            raise FileError(
                f"{data.where(row, 'ID')}: subject {record.ID} comes back; its records up to row "
                f"{seen[record.ID]} stand apart. Put them together, or give it another ID"
            )
        other = written.setdefault(_as_number(record.ID), record.ID)
        if other != record.ID:
            raise FileError(
                f"{data.where(row, 'ID')}: {record.ID} is the same number as {other} (row "
                f"{seen[other]}), written otherwise; write an ID one way"
            )
        seen[record.ID] = row
        group.append((row, record, cells))
    yield group[0][1].ID, group


def _as_number(id: str) -> float | str:
    """An ID as the number it may be: 7, 7.0 and 007 are one."""
    try:
        return number(id)
    except ValueError:
        return id


class Subject:
    """One subject in the making, record by record."""

    def __init__(self, data: DataSet, model: Model, id: str) -> None:
        """Before its first record."""
        self.data, self.model, self.id = data, model, id
        self.hours = HOURS_PER_DAY if data.map.time_unit == "days" else 1.0
        self.doses: list[Dose] = []
        self.resets: list[float] = []
        self.observations: list[Observation] = []
        self.samples: list[Sample] = []
        self.notes: list[str] = []
        self.courses: dict[str, list[tuple[float, float]]] = {p: [] for p in data.covariates}
        self.start: float | datetime | None = None
        self.shift, self.last, self.row = 0.0, 0.0, 0
        self.now, self.stage = 0.0, BEFORE
        self.additional: list[float] = []

    # --- time

    def _day(self, row: int, record: DataRow) -> float:
        """The day of a record; the clock goes on from the last one where a reset goes back."""
        time = time_of(self.data, row, record)
        if self.start is None:
            self.start = time
            if time != 0.0 and not isinstance(time, datetime):
                self.notes.append(f"{self.id}|day 0 is the first record, at TIME {record.TIME}")
        if isinstance(time, datetime) != isinstance(self.start, datetime):
            raise FileError(
                f"{self.data.where(row, 'TIME')}: {record.TIME!r} is a date in one record and a "
                "number in another; write all of them one way"
            )
        if isinstance(time, datetime):
            assert isinstance(self.start, datetime)
            day = (time - self.start) / timedelta(days=1)
        else:
            assert isinstance(self.start, float)
            day = (time - self.start) * self.hours / HOURS_PER_DAY
        day += self.shift
        if day < self.last:
            if record.event not in (RESET, RESET_DOSE):
                raise FileError(
                    f"{self.data.where(row, 'TIME')}: {record.TIME} is before the record above "
                    f"(row {self.row}); within a subject time goes forward, but for a reset "
                    "(EVID 3 or 4)"
                )
            self.shift += self.last - day
            day = self.last
        return day

    def _at(self, stage: int, *, fresh: bool = False) -> float:
        """The day on which something happens: a moment later where it follows what comes after.

        At one instant of a run samples come first, then resets, then doses, then samples again.
        A record that would be out of that order begins the next instant; so does, with ``fresh``,
        one that is to find the doses of the same time given.
        """
        if stage == BEFORE and self.stage > BEFORE:
            stage = AFTER
        if stage < self.stage or (fresh and self.stage >= GIVING):
            self.now = just_after(self.now)
        self.stage = stage
        return just_after(self.now) if stage == AFTER else self.now

    # --- records

    def add(self, row: int, record: DataRow, cells: Mapping[str, str]) -> None:
        """Take up the next record."""
        day = self._day(row, record)
        if day > self.last:
            given = any(abs(day - other) <= SAME_TIME for other in self.additional)
            self.now, self.stage = day, GIVING if given else BEFORE
        self._covariates(row, cells, day)
        observable = ""
        if record.event in (RESET, RESET_DOSE):
            self.resets.append(self._at(RESETTING))
            self.additional = []
        if record.event in (DOSE, RESET_DOSE):
            sampled = just_after(self._dose(row, record))
        elif record.event == RESET:
            sampled = just_after(self.now)
        else:
            sampled = self._at(BEFORE)
        if record.event == OBSERVATION and not record.MDV:
            found = measured(self.data, self.model, row, record, sampled)
            observable = found if isinstance(found, str) else found.observable
            if isinstance(found, Observation):
                self.observations.append(found)
            else:
                self.notes.append("records without DV are predicted and not fitted")
        elif record.event != OBSERVATION and record.DV:
            self.notes.append("DV is not used on records that are no observation")
        elif record.MDV and record.DV:
            self.notes.append("DV is not used where MDV is 1")
        if record.LIMIT is not None and record.CENS != 1:
            self.notes.append("LIMIT is not used where CENS is not 1")
        self.samples.append(
            Sample(self.id, row, record.TIME, day, record.event, sampled, observable)
        )
        self.last, self.row = day, row

    def _covariates(self, row: int, cells: Mapping[str, str], day: float) -> None:
        for parameter, own in self.data.covariates.items():
            if own not in cells:
                continue
            try:
                value = number(cells[own])
            except ValueError as error:
                raise FileError(f"{self.data.where(row, own)}: {error}") from None
            course = self.courses[parameter]
            if not course and self.row:
                raise FileError(
                    f"{self.data.where(row, own)}: is the first value of {parameter} for subject "
                    f"{self.id}, whose first record has none; there is nothing to carry forward"
                )
            if not course or course[-1][1] != value:
                course.append((day, value))

    def _dose(self, row: int, record: DataRow) -> float:
        """Note a dose and those that follow it; the day it is given."""
        drug, unit = drug_of(self.data, self.model, row, record)
        when = self._at(GIVING, fresh=record.SS == 1)
        self.additional = [] if record.SS == 1 else self.additional
        first = Dose(
            when, drug.name, record.AMT, unit,
            hours=0.0 if record.RATE == 0 else None,
            rate=record.RATE / self.hours if record.RATE > 0 else None,
            modelled={-1: "rate", -2: "duration"}.get(int(record.RATE), ""),  # type: ignore[arg-type]
            steady=("", "alone", "added")[record.SS],  # type: ignore[arg-type]
            every=record.II * self.hours if record.SS else 0.0,
        )  # fmt: skip
        self.doses.append(first)
        every = record.II * self.hours
        for k in range(1, record.ADDL + 1):
            later = when + k * every / HOURS_PER_DAY
            self.additional.append(later)
            self.doses.append(
                Dose(later, drug.name, first.amount, unit, first.hours, first.rate, first.modelled,
                     ordered=when)
            )  # fmt: skip
        return when

    # --- the whole

    def patient(self) -> Patient:
        """The subject, once all its records are taken up."""
        values, changes = {}, []
        for parameter, course in self.courses.items():
            if not course:
                own = self.data.covariates[parameter]
                raise FileError(
                    f"{self.data.where(self.row, own)}: subject {self.id} has no {parameter}; "
                    "fill it in on its first record, or leave the column out"
                )
            values[parameter] = course[0][1]
            ends = [day for day, _ in course[2:]] + [float("inf")]
            changes += [
                Change(parameter, day, end, value=value)
                for (day, value), end in zip(course[1:], ends, strict=False)
                if day < end
            ]
            if len(course) > 1:
                self.notes.append(f"{self.id}|{parameter} changes; each value holds until the next")
        if not self.observations:
            self.notes.append(f"{self.id}|no observation: nothing but the prior speaks of them")
        elif len(self.observations) == 1:
            self.notes.append(f"{self.id}|a single observation")
        scenario = Scenario(
            f"subject {self.id}", Schedule(tuple(self.doses)), tuple(changes), values,
            tuple(dict.fromkeys(self.resets)),
        )  # fmt: skip
        return Patient(
            self.id, self.model.path or self.model.name, scenario,
            Observations(tuple(self.observations)),
        )  # fmt: skip
