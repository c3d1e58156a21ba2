"""The CD22 patients of a folder, as patients of crs_sim with censored observations.

``patients.csv``, ``cytokines.csv`` and ``markers.csv`` as their README describes them; they are not
part of this repository. No day of a dose against CRS is known, so a patient who had one
(``treated`` other than "no") is read until the onset of CRS and `AFTER_ONSET` only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crs_sim import Dose, Model, Observation, Observations, Patient, Scenario, Schedule
from crs_sim.errors import InputError
from crs_sim.model import GRADE

from .design import AFTER_ONSET, CAR_T, LAST_FITTED, LOWER, UNITS, WEIGHT, Product, Variant

FILES = ("patients.csv", "cytokines.csv", "markers.csv")
CENSORED = "above?"
BASELINE = 3.0
"""Readings of this many days before the infusion are taken to day 0; earlier ones are left out."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Real patients and their readings.

    Parameters
    ----------
    patients : DataFrame by id: grade, hlh, onset (nan: no CRS), untreated, level (of the dose)
    readings : DataFrame: id, day, observable, value, kind (value, above, below), in `UNITS`
    """

    patients: pd.DataFrame
    readings: pd.DataFrame

    def of(self, id: str, observable: str) -> pd.DataFrame:
        """The readings of an observable of a patient, by day."""
        mine = (self.readings["id"] == id) & (self.readings["observable"] == observable)
        return self.readings[mine].sort_values("day", kind="stable")

    def last_day(self, id: str) -> float:
        """The last day on which nothing but the cells acted: `LAST_FITTED`, or soon after onset."""
        about = self.patients.loc[id]
        return LAST_FITTED if about["untreated"] else self.early_day(id)

    def early_day(self, id: str) -> float:
        """Onset of CRS and `AFTER_ONSET`; nan without CRS."""
        return float(self.patients.loc[id, "onset"]) + AFTER_ONSET

    def untreated(self) -> list[str]:
        """Ids of the patients who had no drug against CRS."""
        return [str(id) for id in self.patients.index[self.patients["untreated"]]]


def read_cohort(folder: Path) -> Cohort:
    """Read the three files of a folder.

    Raises
    ------
    InputError
        Naming the first that is not there.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name} in it; give the folder of the CD22 patients")
    about = pd.read_csv(folder / "patients.csv").set_index("id")
    patients = pd.DataFrame({
        "grade": about["max_grade_asbmt"].astype(float), "hlh": about["hlh"] == 1,
        "onset": about["crs_onset_day"].astype(float), "untreated": about["treated"] == "no",
        "level": about["dose_level"].astype(int),
    })  # fmt: skip
    cytokines = pd.read_csv(folder / "cytokines.csv")
    markers = pd.read_csv(folder / "markers.csv")
    return Cohort(patients, pd.concat([_readings(cytokines), _readings(markers)],
                                      ignore_index=True))  # fmt: skip


def _readings(table: pd.DataFrame) -> pd.DataFrame:
    """Readings with their kinds; below the limit of an assay (or 0) they become that limit."""
    found = table[["id", "day", "observable", "value"]].copy()
    found = found[found["day"] >= -BASELINE]
    found["day"] = found["day"].clip(lower=0.0)
    above = table["censored"] == CENSORED if "censored" in table else np.zeros(len(table), bool)
    found["kind"] = np.where(pd.Series(above, table.index)[found.index], "above", "value")
    least = {name: part.min() for name, part in
             found[found["value"] > 0].groupby("observable")["value"]}  # fmt: skip
    limit = found["observable"].map(lambda name: LOWER.get(name, least.get(name, 1.0)))
    below = (found["value"] < limit) | (found["value"] <= 0)
    found.loc[below, "kind"] = "below"
    found["value"] = found["value"].where(~below, limit)
    return found


def observed(cohort: Cohort, id: str, variant: Variant, model: Model, until: float) -> Observations:
    """What is fitted of a patient: the readings until a day, and the worst grade if asked.

    The worst grade is one grade, read anywhere from day 0 to `LAST_FITTED`; it is left out for a
    treated patient, whose course without drugs is not known.
    """
    mine = cohort.readings[(cohort.readings["id"] == id) & (cohort.readings["day"] <= until)]
    kept = []
    for k, row in enumerate(mine.itertuples()):
        wanted = variant.observables is None or row.observable in variant.observables
        if wanted and row.observable in model.course_ids and row.observable in UNITS:
            kept.append(Observation(
                f"{row.observable}_{k}", row.observable, row.kind, row.day, row.day, math.nan,
                row.value, UNITS[row.observable],
            ))  # fmt: skip
    if variant.grade and cohort.patients.loc[id, "untreated"]:
        grade = float(cohort.patients.loc[id, "grade"])
        kept.append(Observation("worst_grade", GRADE, "grade", 0.0, LAST_FITTED, math.nan, grade,
                                ""))  # fmt: skip
    return Observations(tuple(kept))


def real_patient(cohort: Cohort, id: str, product: Product, seen: Observations) -> Patient:
    """A patient with the cells of their dose level, and no other drug."""
    level = int(cohort.patients.loc[id, "level"])
    cells = Dose(0, CAR_T, product.levels.get(level, product.dose), "cells/kg")
    return Patient(
        id, product.model, Scenario(id, Schedule((cells,)), values={"weight": WEIGHT}), seen
    )
