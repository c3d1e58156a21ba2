"""The patients, read from a folder, and the problem of each under each model.

They are those of ``studies.qualification``: individual levels of a phase 1 trial of CD22 CAR-T
cells in B-cell leukaemia (Lichtenstein et al., Blood 2021; 138:2469,
doi:10.1182/blood.2021011898).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from crs_sim import (
    Dose,
    FitProblem,
    Observations,
    Patient,
    Scenario,
    Schedule,
    load_model,
    patient_problem,
)
from crs_sim.fitting import informed
from studies.qualification.cohort import observed, read_cohort
from studies.qualification.design import CAR_T, LAST_FITTED, WEIGHT, Variant
from studies.recovery.patients import with_estimated_error

MODELS = ("hardiansyah2019", "crs")
OBSERVABLES = ("ifng", "il6")
FEWEST = 12
"""Readings of each observable that a patient needs, so that rise and fall are seen."""
CELLS = Dose(0, CAR_T, 1e6, "cells/kg")
"""Assumption: the data give a dose level, not the cells of it."""


@dataclass(frozen=True)
class Subject:
    """A patient of the data, with the worst grade."""

    patient: Patient
    grade: int


def subjects(folder: Path) -> Iterator[Subject]:
    """Those given none of the three drugs, below the assay's ceiling, and often measured."""
    cohort, model, read = read_cohort(folder), load_model(MODELS[0]), Variant("read", OBSERVABLES)
    for id in cohort.untreated():
        seen = observed(cohort, id, read, model, LAST_FITTED)
        levels = Observations(tuple(o for o in seen if o.kind == "value"))
        counts = [sum(o.observable == name for o in levels) for name in OBSERVABLES]
        if min(counts) >= FEWEST and all(o.kind != "above" for o in seen):
            scenario = Scenario(id, Schedule((CELLS,)), values={"weight": WEIGHT})
            patient = Patient(id, MODELS[0], scenario, levels)
            yield Subject(patient, int(cohort.patients.loc[id, "grade"]))


def problem(subject: Subject, name: str) -> FitProblem:
    """A patient under a model and its shipped prior, with the residual errors estimated."""
    asked = patient_problem(subject.patient, model=load_model(name))
    return informed(replace(with_estimated_error(asked, OBSERVABLES), starts=8))[0]
