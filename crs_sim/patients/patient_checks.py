"""A patient checked against a model: names, and units converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..dosing import Dose
from ..errors import FileError, UnitError, unknown_name, with_location
from ..model import Model, convert, readable_unit
from ..store import place
from .patient import Observation, Observations, Patient
from .patient_files import RATIOS, file_path


def check_against(patient: Patient, model: Model) -> Patient:
    """Check a patient against a model; return it with observations in the model's units.

    Raises
    ------
    UnknownNameError
        For a drug, observable or parameter the model does not have.
    UnitError
        For a unit that cannot be converted into the model's.
    FileError
        For a dose that needs a body weight if none is given.
    """
    _check_parameters(patient, model)
    for dose in patient.scenario.doses:
        _check_dose(patient, model, dose)
    converted = tuple(_in_model_units(patient, model, o) for o in patient.observations)
    return replace(patient, observations=Observations(converted))


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
        raise with_location(where("drug"), unknown_name("drug", dose.drug, known))
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


def _in_model_units(patient: Patient, model: Model, observation: Observation) -> Observation:
    if observation.kind == "grade":
        return observation
    row, path = observation.row, file_path(Path(patient.path), "observations")

    def where(column: str) -> str:
        return place(path, row, column) if row else f"observation {observation.id}"

    units = {q.id: q.unit for q in model.quantities} | {s.id: s.unit for s in model.states}
    if observation.observable not in units:
        error = unknown_name("observable", observation.observable, units)
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
