"""The patients, read from a folder, and the problem of each under each model.

The files are not part of this repository: ``patients.csv`` and ``cytokines.csv``, individual levels
of a phase 1 trial of CD22 CAR-T cells in B-cell leukaemia (Lichtenstein et al., Blood 2021;
138:2469, doi:10.1182/blood.2021011898), as its authors published them, one row a level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from crs_sim import (
    Dose,
    FitProblem,
    Observation,
    Observations,
    Patient,
    Scenario,
    Schedule,
    load_model,
    patient_problem,
)
from crs_sim.fitting import informed
from crs_sim.store import root

MODELS = ("hardiansyah2019", "crs")
OBSERVABLES = ("ifng", "il6")
FEWEST = 12
"""Readings of each observable that a patient needs, so that rise and fall are seen."""
CELLS = Dose(0, "cart", 1e6, "cells/kg")
"""Assumption: the data give a dose level, not the cells of it."""
WEIGHT = 70.0
"""Assumption: the data give none."""


@dataclass(frozen=True)
class Subject:
    """A patient of the data, with the worst grade."""

    patient: Patient
    grade: int


def subjects(folder: Path) -> Iterator[Subject]:
    """Those given none of the three drugs, below the assay's ceiling, and often measured."""
    about = pd.read_csv(folder / "patients.csv", index_col="id")
    levels = pd.read_csv(folder / "cytokines.csv")
    levels = levels[levels["observable"].isin(OBSERVABLES) & (levels["value"] > 0)]
    for id, rows in levels.groupby("id"):
        often = rows["observable"].value_counts().reindex(OBSERVABLES, fill_value=0).min() >= FEWEST
        if often and about.loc[id, "treated"] == "no" and rows["censored"].isna().all():
            yield Subject(_patient(str(id), rows), int(about.loc[id, "max_grade_asbmt"]))


def _patient(id: str, rows: pd.DataFrame) -> Patient:
    seen = tuple(
        Observation(f"{r.observable}_{r.day:g}", r.observable, "value", r.day, r.day, nan, r.value,
                    "pg/mL") for r in rows.itertuples()
    )  # fmt: skip
    scenario = Scenario(id, Schedule((CELLS,)), (), {"weight": WEIGHT})
    return Patient(id, MODELS[0], scenario, Observations(seen))


def problem(subject: Subject, name: str) -> FitProblem:
    """A patient under a model and its shipped prior, with the residual errors estimated."""
    text = (root() / "fits" / "priors" / name / "prior.toml").read_text(encoding="utf-8")
    for observable in OBSERVABLES:
        head = f"[noise.{observable}]\n"
        assert head in text
        text = text.replace(head, head + "estimate = true\n")
    with TemporaryDirectory() as folder:
        prior = Path(folder, "prior.toml")
        prior.write_text(text, encoding="utf-8")
        asked = patient_problem(subject.patient, model=load_model(name), prior=prior)
    return informed(replace(asked, starts=8))[0]
