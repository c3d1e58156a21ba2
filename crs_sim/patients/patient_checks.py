"""A patient checked against a model: names understood, units converted, what is unusual asked.

Also the templates of a new patient, and whether any of their rows is left.

A question (`crs_sim.errors.Question`) changes nothing: the bounds are those of the model's
``usual.toml``, each with its source.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..dosing import Dose, Scenario, Schedule, ask_about_dose
from ..errors import (
    FileError,
    InputError,
    StorageError,
    UnitError,
    ask,
    command,
    note,
    unknown_name,
    with_location,
)
from ..model import Model, convert, pretty, readable_unit
from ..simulation import Simulation, simulate
from ..store import (
    Record,
    column_comments,
    has_sheet,
    is_plain,
    is_workbook,
    place,
    read_table,
    root,
    workbook_bytes,
    write_atomic,
)
from .patient import Observation, Observations, Patient, load_patient
from .patient_files import (
    FILES,
    RATIOS,
    DoseRow,
    KeyRow,
    ObservationRow,
    file_path,
    read_patient_file,
)


def patient_at(name: str | Path) -> Patient | None:
    """The patient in a folder without a problem.toml, or in a workbook; None for anything else.

    Raises
    ------
    FileError, UnknownNameError
        For an error in the patient's files.
    """
    path = Path(name)
    if path.is_dir() and not (path / "problem.toml").exists():
        if not (path / FILES["patient"]).exists():
            if is_plain(name) and (root() / "fits" / name / "problem.toml").is_file():
                return None  # a shipped problem, whatever folder has its name here
            raise InputError(
                f"{path}  has neither problem.toml nor patient.toml; is it the folder you mean? "
                f"({command('new', path)} makes one for a patient)"
            )
        return load_patient(path)
    by_file = path.name == FILES["patient"] or is_workbook(path)
    return load_patient(path) if by_file else None


def check_against(patient: Patient, model: Model) -> Patient:
    """Check a patient against a model; return it with the model's names and units.

    What is unusual, such as an age of 670 years, is asked about.

    Raises
    ------
    UnknownNameError
        For a drug, observable or parameter the model does not have.
    UnitError
        For a unit that cannot be converted into the model's.
    FileError
        For a dose that needs a body weight if none is given.
    """
    patient = _understood(patient, model)
    _check_parameters(patient, model)
    for dose in patient.scenario.doses:
        _check_dose(patient, model, dose)
    patient = _with_baselines(patient, model)
    converted = tuple(_in_model_units(patient, model, o) for o in patient.observations)
    ask_about_treatment(patient, model)
    for observation in converted:
        _ask_about_level(patient, model, observation)
    return replace(patient, observations=Observations(converted))


def _understood(patient: Patient, model: Model) -> Patient:
    """The patient with the model's names of drugs and levels; a note says what was understood."""
    drugs = (*(drug.name for drug in model.drugs), *model.state_ids)
    given = {name: model.usual.understood("drug", name, drugs)
             for name in patient.scenario.doses.drugs}  # fmt: skip
    seen = {name: model.usual.understood("level", name, model.course_ids)
            for name in dict.fromkeys(o.observable for o in patient.observations)}  # fmt: skip
    for name in seen.keys() & set(model.state_ids):
        quantity = model.usual.meant("level", name)
        if quantity and getattr(model[quantity], "formula", "") == name:
            seen[name] = quantity  # the same, by the name that has the noise of its assay
        elif quantity and quantity != name:
            ask(f"observable {name} is the state {model[name].label!r}; did you mean {quantity}, "
                f"{model[quantity].label!r}?")  # fmt: skip
    if all(name == meant for name, meant in (*given.items(), *seen.items())):
        return patient
    doses = [(d, replace(d, drug=given[d.drug])) for d in patient.scenario.doses]
    return replace(
        patient,
        scenario=patient.scenario.with_doses(Schedule(tuple(dose for _, dose in doses))),
        observations=Observations(
            tuple(replace(o, observable=seen[o.observable]) for o in patient.observations)
        ),
        dose_rows={dose: patient.dose_rows[was] for was, dose in doses if was in patient.dose_rows},
    )


def _check_parameters(patient: Patient, model: Model) -> None:
    path = file_path(Path(patient.path), "patient")
    keys = {f"key values.{name}": name for name in patient.scenario.values}
    for number, change in enumerate(patient.scenario.changes, start=1):
        keys[f"changes {number}, key parameter"] = change.parameter
    for key, name in keys.items():
        if name not in model.values:
            raise with_location(place(path, key=key), unknown_name("parameter", name, model.values))


def _check_dose(patient: Patient, model: Model, dose: Dose) -> None:
    row, path = patient.dose_rows.get(dose, 0), file_path(Path(patient.path), "doses")

    def where(column: str) -> str:
        return place(path, row, column) if row else f"dose of {dose.drug} on day {dose.day:g}"

    known = [drug.name for drug in model.drugs]
    if dose.drug not in known and dose.drug not in model.state_ids:
        raise with_location(where("drug"), model.usual.refuse("drug", dose.drug, known))
    drug = model.drug(dose.drug)
    try:
        _, weight_power = drug.conversion(dose.unit, target=readable_unit(model, drug.unit))
    except UnitError as error:
        raise with_location(where("unit"), error) from None
    if weight_power and "weight" not in patient.scenario.values:
        raise FileError(
            f"{where('unit')}: {dose.unit} needs a body weight; add weight (in kg) under "
            "[values] in patient.toml"
        )


def _with_baselines(patient: Patient, model: Model) -> Patient:
    """The patient with levels of before day 0 on day 0, if the model holds them at rest until then.

    Raises
    ------
    FileError
        For a level that changes without treatment: its day cannot be moved.
    """
    first = min((d for o in patient.observations for d in (o.day, o.reference) if d < 0), default=0)
    if first == 0:
        return patient
    untreated = Scenario("before day 0", values=patient.scenario.values)
    lower = model.with_values(**{name: 0.95 * v for name, v in model.values.items()})
    runs = [simulate(each, untreated, until=-first, every_hours=6.0) for each in (model, lower)]
    moved = tuple(_on_day_0(patient, o, runs) if o.day < 0 or o.reference < 0 else o
                  for o in patient.observations)  # fmt: skip
    return replace(patient, observations=Observations(moved))


def _on_day_0(patient: Patient, seen: Observation, runs: Sequence[Simulation]) -> Observation:
    at = place(file_path(Path(patient.path), "observations"), seen.row)
    if seen.observable not in runs[0].model.course_ids:
        return seen  # refused, with what there is, when its unit is converted
    courses = [run[seen.observable] for run in runs]
    if any(np.ptp(course) > STILL * np.abs(course).max() for course in courses):
        day = seen.day if seen.day < 0 else seen.reference
        raise FileError(
            f"{at}: day {day:g} is before the model starts, at the infusion on day 0, and "
            f"{seen.observable} is not at rest then; give a level of day 0, or state the parameter "
            "that it starts from in patient.toml, and leave this row out"
        )
    day, reference = max(seen.day, 0.0), seen.reference
    if reference < 0:
        reference = 0.0
        if day == 0:
            raise FileError(f"{at}: {seen.observable} is at rest before day 0, so that this ratio "
                            "is 1; leave the row out")  # fmt: skip
    note(f"{at}: {seen.observable} of before day 0 is read as its level on day 0, before any dose: "
         "the model, which has no lymphodepletion, holds it at rest")  # fmt: skip
    return replace(seen, day=day, until=max(seen.until, 0.0), reference=reference)


STILL = 1e-6
"""Relative change of a level that counts as none."""


def _in_model_units(patient: Patient, model: Model, observation: Observation) -> Observation:
    if observation.kind == "grade":
        return observation
    row, path = observation.row, file_path(Path(patient.path), "observations")

    def where(column: str) -> str:
        return place(path, row, column) if row else f"observation {observation.id}"

    units = {q.id: q.unit for q in model.quantities} | {s.id: s.unit for s in model.states}
    if observation.observable not in units:
        error = model.usual.refuse("level", observation.observable, units)
        raise with_location(where("observable"), error)
    if observation.kind in RATIOS:
        return observation
    unit = units[observation.observable]
    try:
        value = convert(
            observation.value, observation.unit, readable_unit(model, unit),
            molar_mass=model.molar_mass(observation.observable),
        )  # fmt: skip
    except UnitError as error:
        raise with_location(where("unit"), error) from None
    return replace(observation, value=value, unit=unit)


def ask_about_treatment(patient: Patient, model: Model) -> None:
    """Ask about values and doses of a patient that are not usual: an age of 670, 800 mg/kg."""
    ask_about_values(patient.scenario.values, model, patient.id)
    for change in patient.scenario.changes:
        if change.value is not None:
            ask_about_values({change.parameter: change.value}, model, patient.id)
    _ask_about_doses(patient, model)


def ask_about_values(values: Mapping[str, float], model: Model, where: str) -> None:
    """Ask about values of parameters that are not usual."""
    for name in values:
        _ask(model, ("parameter", name), values[name], f"{where}, {name}")


def _ask_about_doses(patient: Patient, model: Model) -> None:
    values, asked = {**model.values, **patient.scenario.values}, set()
    for dose in patient.scenario.doses:
        row = patient.dose_rows.get(dose, 0)
        key = (row, dose.drug, dose.amount, dose.unit)
        if key not in asked:
            path = file_path(Path(patient.path), "doses")
            at = place(path, row) if row else f"{patient.id}, day {dose.day:g}"
            ask_about_dose(model, dose, at, values)
        asked.add(key)


def _ask_about_level(patient: Patient, model: Model, observation: Observation) -> None:
    if observation.kind not in (*RATIOS, "grade"):
        at = f"{patient.id}, {observation.id}"
        if observation.row and patient.path:
            at = place(file_path(Path(patient.path), "observations"), observation.row)
        _ask(model, ("level", observation.observable), observation.value, at)


def _ask(model: Model, of: tuple[str, str], value: float, where: str) -> None:
    """Ask about a value, in the model's unit, outside what is usual."""
    usual = model.usual.of(*of)
    if usual is None or not usual.unit:
        return
    unit = readable_unit(model, model[usual.of].unit)
    least, most = (convert(bound, usual.unit, unit) for bound in (usual.least, usual.most))
    if least <= value <= most:
        return
    bound, side = (usual.most, "above") if value > most else (usual.least, "below")
    ask(
        f"{where}: {usual.of} of {value:g} {pretty(unit)} is {side} {bound:g} {usual.unit}, what "
        f"is usual ({usual.source}); did you mean another value or unit?"
    )


EXAMPLE = "EXAMPLE"
"""The start of the note of an example row."""

SEPARATE = "Separate columns by commas"
SAVE = "Save as CSV UTF-8."


def new_patient(place: str | Path) -> Path:
    """Create a folder with three template files; or an Excel workbook, if it ends in .xlsx.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = new_patient(Path(mkdtemp()) / "patient7")
    >>> sorted(path.name for path in folder.iterdir())
    ['doses.csv', 'observations.csv', 'patient.toml']

    Raises
    ------
    StorageError
        If one of the files exists or cannot be written; then no file is written.
    """
    place = Path(place)
    if is_workbook(place):
        files = {place.name: workbook_bytes(new_sheets(place.stem))}
        _write(place.parent, files)
    else:
        texts = new_files(place.resolve().name or "patient")
        _write(place, {name: text.encode() for name, text in texts.items()})
    return place


def new_sheets(id: str) -> dict[str, list[list[str]]]:
    """Name and rows of the sheets of a new patient's workbook."""
    files = new_files(id)
    texts = {name: _in_a_workbook(files[file]) for name, file in FILES.items()}
    quoted = '"' + id.replace('"', '""') + '"'
    texts["patient"] = _template("patient.csv", KeyRow, quoted)
    return {name: [_cells(line) for line in text.splitlines()] for name, text in texts.items()}


def _in_a_workbook(text: str) -> str:
    """The text of a template, without the advice that applies to CSV files only."""
    lines = (line for line in text.splitlines() if not line.startswith(f"# {SEPARATE}"))
    text = "\n".join(lines).replace(f"# {SAVE} ", "# ").replace("patient.toml", "sheet patient")
    return text.replace("delete this file", "delete this sheet")


def _cells(line: str) -> list[str]:
    comment = line.startswith("#")
    return [line] if comment else next(csv.reader([line], skipinitialspace=True))


def new_files(id: str) -> dict[str, str]:
    """Name and text of the three files of a new patient.

    >>> sorted(new_files("p1"))
    ['doses.csv', 'observations.csv', 'patient.toml']
    """
    return {
        "patient.toml": _template("patient.toml", KeyRow, json.dumps(id, ensure_ascii=False)),
        "doses.csv": _template("doses.csv", DoseRow),
        "observations.csv": _template("observations.csv", ObservationRow),
    }


def _template(name: str, record: type[Record], id: str = "") -> str:
    text = Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf-8")
    return text.format(id=id, columns=column_comments(record))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    present = [name for name in files if (folder / name).exists()]
    if present:
        what = f"{folder}  already has a {present[0]}"
        raise StorageError(f"{what}; nothing was written; choose a new name")
    write_atomic({folder / name: content for name, content in files.items()})


def template_rows(home: Path) -> tuple[str, ...]:
    """Locations of template rows left in a patient's files, which would count as real data.

    Parameters
    ----------
    home : Path, a patient's folder or workbook, already read without errors

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> template_rows(new_patient(Path(mkdtemp()) / "patient7"))[0]
    'patient7/doses.csv, rows 17, 18, 19'
    """
    book, zone = is_workbook(home), read_patient_file(home).time_zone
    found = []
    for name, record in (("patient", KeyRow), ("doses", DoseRow), ("observations", ObservationRow)):
        path = file_path(home, name)
        if (name == "patient" and not book) or not (has_sheet(path) if book else path.is_file()):
            continue
        table = read_table(path, record, zone)
        rows = [row for row, entry in table if entry.model_dump()["note"].startswith(EXAMPLE)]
        if rows:
            numbers = ", ".join(map(str, rows))
            found.append(f"{place(path)}, row{'s' * (len(rows) > 1)} {numbers}")
    return tuple(found)
