"""Patients from a NONMEM or Monolix data set: one `Patient` per subject, with NONMEM semantics.

- **Records are processed in order.** A sample written before a dose at the same time is taken
  before it, one written after it, after; one at the time of an ADDL dose, after that dose; one at
  the arrival of a lagged bolus, after it (``lagged_doses = "after samples"`` in the map: before
  it). Day 0 is a subject's first record.
- **Values travel with their record.** Its dose, its sample and its steady state have the covariates
  of their own row, whatever a later row of the same time says.
- **Times ascend** within a subject. Only a reset (EVID 3, 4) may go back; days then count on from
  the previous record.
- **The records of a subject are contiguous.** NONMEM takes a repeated ID as a new subject; here it
  is an error.
- **Lag, bioavailability, modelled duration and rate** are those of the drug (see `drugs.toml`) at
  the dose record; its ADDL doses keep them. Bioavailability shortens an infusion of given RATE. A
  reset, or SS = 1, stops running infusions and cancels doses in their lag time.
- **SS = 2 adds** the steady state to the current states: exact for a linear model, as in NONMEM for
  any. A constant infusion (SS, AMT = 0, RATE > 0) ends at its record.
- **Between records covariates** are carried forward: a value holds until the next one. With
  ``covariates_between = "backward"`` in the map a value holds from the record before, as in NONMEM.

An invalid column or cell is an error with file, row and column; unused ones are reported in notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from ..dosing import HOURS_PER_DAY, SAME_TIME, Change, Dose, Scenario, Schedule, just_after
from ..errors import CrsSimError, FileError, InputError, unknown_name, with_location
from ..model import Model
from ..store import number_or_text
from .nonmem_columns import DOSE, OBSERVATION, RESET, RESET_DOSE, DataRow, DataSet, read_data
from .nonmem_records import (
    MODELLED,
    NotPositiveError,
    Rows,
    covariate_rows,
    covariate_units,
    infusion_hours,
    is_left_out,
    observable_of,
    observables_by_default,
    read_drug,
    read_observation,
    read_time,
    unused_columns,
)
from .patient import Observation, Observations, Patient, Sample, Study

BEFORE, RESETTING, GIVING, AFTER = range(4)
"""Stages within one time: samples, then resets, doses, and samples again."""


def read_nonmem(path: str | Path, model: Model, *, columns: str | Path | None = None) -> Study:
    """Read the subjects of a data set as patients of a model.

    Parameters
    ----------
    path : a comma-separated file with at least ID and TIME (see `crs_sim.patients.nonmem_columns`)
    model : Model
    columns : path of a TOML file that maps columns, compartments and DVIDs, if any

    Raises
    ------
    FileError, UnknownNameError, UnitError
        Naming file, row and column.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from crs_sim import load_model
    >>> rows = "ID,TIME,AMT,CMT,DV\\n1,0,100,1,.\\n1,2,.,1,1.9\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "study.csv")
    ...     _ = file.write_text(rows)
    ...     study = read_nonmem(file, load_model("one_compartment"))
    >>> study.patients[0]
    Patient('1': 1 doses of 1 drugs, 1 observations)
    """
    data = read_data(Path(path), model, columns)
    mistakes, notes = data.mistakes, [("", text) for text in data.notes]
    if not data.map.time_unit:
        notes.append(("", "TIME, II and RATE are taken in hours; time_unit in the map changes it"))
    for further in (unused_columns, covariate_units, observables_by_default):
        with mistakes.kept():
            notes += [("", text) for text in further(data, model)]
    subjects = []
    for rows in by_subject(data):
        subject = Subject(data, model, rows[0][1].ID)
        subjects.append(subject)
        subject.add_all(rows)
    mistakes.report()
    patients = tuple(subject.patient() for subject in subjects)
    notes += [note for subject in subjects for note in subject.notes]
    return Study(
        str(path), patients,
        tuple(sample for subject in subjects for sample in subject.samples),
        tuple(_gathered(notes)), str(columns or ""),
        {subject.id: tuple(subject.unfit) for subject in subjects if subject.unfit},
    )  # fmt: skip


def by_subject(data: DataSet) -> Iterator[Rows]:
    """The records of each subject; what is wrong with the IDs is kept with the other mistakes."""
    last: dict[float | str, tuple[str, int]] = {}
    group: list[tuple[int, DataRow, Mapping[str, str]]] = []
    for row, record, cells in data.rows:
        id, where = number_or_text(record.ID), data.where(row, "ID")
        other, above = last.get(id, (record.ID, row))
        if other != record.ID:
            data.mistakes.add(FileError(
                f"{where}: {record.ID} is the same number as {other} (row {above}), written "
                "differently; write each ID in one way"
            ))  # fmt: skip
        elif group and record.ID != group[-1][1].ID and id in last:
            data.mistakes.add(FileError(
                f"{where}: subject {record.ID} reappears; its records up to row {above} are not "
                "contiguous. Put them together, or give it another ID"
            ))  # fmt: skip
        if group and record.ID != group[-1][1].ID:
            yield group
            group = []
        last[id] = record.ID, row
        group.append((row, record, cells))
    yield group


def subject_of(
    path: str | Path, model: Model, id: str = "", *, columns: str | Path | None = None
) -> Patient:
    """Read one subject of a data set; the only one, if no id is given.

    Raises
    ------
    FileError, InputError, UnknownNameError, UnitError
        As `read_nonmem`; and if the id is missing or unknown, or an observation has no logarithm.
    """
    study = read_nonmem(path, model, columns=columns)
    subjects = {patient.id: patient for patient in study}
    if not id and len(subjects) > 1:
        raise InputError(f"{path}  holds {len(subjects)} subjects; name one: subject = "
                         f'"{next(iter(subjects))}"')  # fmt: skip
    if id and id not in subjects:
        raise with_location(str(path), unknown_name("subject", id, subjects))
    patient = subjects[id or next(iter(subjects))]
    study.check_fitted(patient.id)
    return patient


def _gathered(notes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The notes, each a subject and a text; equal texts of several subjects become one note."""
    by_text: dict[str, dict[str, None]] = {}
    for subject, text in notes:
        by_text.setdefault(text, {})[subject] = None
    for text, found in by_text.items():
        subjects = [subject for subject in found if subject]
        if not subjects:
            yield text
            continue
        few = ", ".join(subjects[:5]) + (f" and {len(subjects) - 5} more" * (len(subjects) > 5))
        yield f"subject{'s' * (len(subjects) > 1)} {few}: {text}"


class Subject:
    """Builds the `Patient` of one subject, record by record."""

    def __init__(self, data: DataSet, model: Model, id: str) -> None:
        """Start a subject without records."""
        self.data, self.model, self.id = data, model, id
        self.hours = HOURS_PER_DAY if data.map.time_unit == "days" else 1.0
        self.doses: list[Dose] = []
        self.resets: list[float] = []
        self.observations: list[Observation] = []
        self.samples: list[Sample] = []
        self.notes: list[tuple[str, str]] = []
        self.unfit: list[str] = []
        self.courses: dict[str, list[tuple[float, float]]] = {p: [] for p in data.covariates}
        """Of each covariate its values, each with the day from which it holds."""
        self.start: float | datetime | None = None
        self.shift, self.last, self.row = 0.0, 0.0, 0
        self.now, self.stage = 0.0, BEFORE
        self.additional: list[float] = []

    def _day(self, row: int, record: DataRow) -> float:
        """The day of a record; after a reset that goes back, counted from the previous record."""
        time = read_time(self.data, row, record)
        if self.start is None:
            self.start = time
            if time != 0.0 and not isinstance(time, datetime):
                self._note(f"day 0 is the first record, at TIME {record.TIME}", own=True)
        if isinstance(time, datetime) != isinstance(self.start, datetime):
            raise FileError(
                f"{self.data.where(row, 'TIME')}: {record.TIME!r} is a date in one record and a "
                "number in another; write all times in one way"
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
                    f"(row {self.row}); times of a subject must ascend, except at a reset "
                    "(EVID 3 or 4)"
                )
            self.shift += self.last - day
            day = self.last
        return day

    def _at(self, stage: int, *, fresh: bool = False) -> float:
        """The day of an event, shifted by `just_after` where the order of the records requires it.

        Within one time a run takes samples first, then resets, doses, and samples again. A record
        out of that order is shifted to a time just after; so is, with ``fresh``, one that must
        come after the doses of the same time.
        """
        if stage == BEFORE and self.stage > BEFORE:
            stage = AFTER
        if stage < self.stage or (fresh and self.stage >= GIVING):
            self.now = just_after(self.now)
        self.stage = stage
        return just_after(self.now) if stage == AFTER else self.now

    def _move(self, day: float, values: Mapping[str, float]) -> None:
        """Move to the next record's place in time, and to its covariates.

        Values that differ within one time begin clearly after all that precedes them there, so that
        no dose or sample sees another record's.
        """
        beyond = just_after(just_after(self.now))
        backward = self.data.map.covariates_between == "backward"
        changed = [p for p, v in values.items() if self.courses[p] and self.courses[p][-1][1] != v]
        if day > self.last:
            given = any(abs(day - other) <= SAME_TIME for other in self.additional)
            self.now, self.stage = day, GIVING if given else BEFORE
        if changed and (day <= self.last or (backward and beyond > self.now)):
            self.now, self.stage = beyond, BEFORE
        for parameter, value in values.items():
            if parameter in changed or not self.courses[parameter]:
                since = beyond if backward and self.samples else self.now
                self.courses[parameter].append((since, value))

    def add_all(self, rows: Rows) -> None:
        """Add all records; what is wrong with some is kept with the data set's other mistakes.

        If a row is missing because it could not be read, its covariates may be: then they are not
        judged.
        """
        mistakes = self.data.mistakes
        try:
            values = covariate_rows(self.data, self.model, rows)
        except CrsSimError as error:
            if self.id not in self.data.broken:
                mistakes.add(error)
            values = [{} for _ in rows]
        for (row, record, _), own in zip(rows, values, strict=True):
            with mistakes.kept():
                self.add(row, record, own)

    def add(self, row: int, record: DataRow, values: Mapping[str, float]) -> None:
        """Add the next record; ``values`` are its covariates."""
        day = self._day(row, record)
        self._move(day, values)
        if record.event in (RESET, RESET_DOSE):
            self.resets.append(self._at(RESETTING))
            self.additional = []
        if record.event in (DOSE, RESET_DOSE):
            sampled = just_after(self._dose(row, record, day))
        elif record.event == RESET:
            sampled = just_after(self.now)
        else:
            sampled = self._at(BEFORE)
        observable = self._observe(row, record, sampled)
        if record.LIMIT is not None and record.CENS != 1:
            self._note("LIMIT is not used where CENS is not 1")
        self.samples.append(
            Sample(self.id, row, record.TIME, day, record.event, sampled, observable)
        )
        self.last, self.row = day, row

    def _observe(self, row: int, record: DataRow, sampled: float) -> str:
        """Add the observation of a record, if it is one; return its observable, or ""."""
        if record.event != OBSERVATION or record.MDV:
            if record.DV and record.event == OBSERVATION:
                self._note("DV is not used where MDV is 1")
            elif record.DV:
                self._note("DV is not used on records that are not observations")
            return ""
        if is_left_out(self.data, record):
            name = "DVID" if record.DVID else "CMT"
            self._note(f"DV of {name} {getattr(record, name)} is left out, as the map says")
            return ""
        try:
            found = read_observation(self.data, self.model, row, record, sampled)
        except NotPositiveError as error:
            self.unfit.append(str(error))
            self._note("DV of 0 or below is predicted and cannot be fitted")
            return observable_of(self.data, self.model, row, record)[0]
        if isinstance(found, Observation):
            self.observations.append(found)
            return found.observable
        self._note("records without DV are predicted and not fitted")
        return found

    def _note(self, text: str, *, own: bool = False) -> None:
        """Note what applies to the whole file or, with ``own``, to this subject."""
        self.notes.append((self.id if own else "", text))

    def _dose(self, row: int, record: DataRow, day: float) -> float:
        """Add a dose and its ADDL doses; return the day it is given."""
        drug, unit = read_drug(self.data, self.model, row, record)
        when = self._at(GIVING, fresh=record.SS == 1)
        self.additional = [] if record.SS == 1 else self.additional
        early = just_after(0.0) if self.data.map.lagged_doses == "before samples" else 0.0
        early = early if drug.lag else 0.0
        first = Dose(
            when, drug.name, record.AMT, unit,
            hours=infusion_hours(record, self.hours),
            rate=record.RATE / self.hours if record.RATE > 0 else None,
            modelled="" if record.TINF else MODELLED.get(int(record.RATE), ""),
            steady=("", "alone", "added")[record.SS],  # type: ignore[arg-type]
            every=record.II * self.hours if record.SS else 0.0,
            early=when - day + early if drug.lag else 0.0,
        )  # fmt: skip
        self.doses.append(first)
        lags = self.courses.get(drug.lag) or [(0.0, self.model.values.get(drug.lag, 0.0))]
        for k in range(1, record.ADDL + 1):  # from the record's time, wherever in it this one is
            later = day + k * record.II * self.hours / HOURS_PER_DAY
            if lags[-1][1] == 0.0:
                self.additional.append(later)
            self.doses.append(
                replace(first, day=later, steady="", every=0.0, ordered=when, early=early)
            )
        return when

    def patient(self) -> Patient:
        """The patient, after all records are added."""
        values, changes = {}, []
        holds = {"forward": "each value holds until the next (carried forward; NONMEM's rule is "
                 'covariates_between = "backward")',
                 "backward": "each value holds from the record before (NONMEM's rule)"}  # fmt: skip
        for parameter, course in self.courses.items():
            values[parameter] = course[0][1]
            ends = [day for day, _ in course[2:]] + [float("inf")]
            changes += [
                Change(parameter, day, end, value=value)
                for (day, value), end in zip(course[1:], ends, strict=False)
                if day < end
            ]
            if len(course) > 1:
                rule = holds[self.data.map.covariates_between]
                self._note(f"{parameter} changes; {rule}", own=True)
        if not self.observations:
            self._note("no observation: only the prior is informative", own=True)
        elif len(self.observations) == 1:
            self._note("a single observation", own=True)
        scenario = Scenario(
            f"subject {self.id}", Schedule(tuple(self.doses)), tuple(changes), values,
            tuple(dict.fromkeys(self.resets)),
        )  # fmt: skip
        return Patient(
            self.id, self.model.path or self.model.name, scenario,
            Observations(tuple(self.observations)),
        )  # fmt: skip
