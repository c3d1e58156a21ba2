"""The data sets, read from a folder, with what is known of their populations.

The files are not part of this repository:

- ``Phenobarb.csv``: 59 newborns (Grasela and Donn 1985), as in R's nlme and in the collection
  vincentarelbundock/Rdatasets, ``csv/nlme/Phenobarb.csv``;
- ``warfarin_data.csv``: 32 volunteers (O'Reilly and Aggeler 1968), as in R's Rsmlx,
  ``inst/extdata/warfarin_data.csv``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from crs_sim import FitProblem, Model, Population, load_model, load_population
from crs_sim.fitting import patient_problem
from crs_sim.patients import read_nonmem
from crs_sim.population.virtual_patients import synthetic_patient
from studies.recovery.design import FREE, design

HERE = Path(__file__).parent
FILES = ("Phenobarb.csv", "warfarin_data.csv")
STATED = "as stated in this study's commission; the publication was not found"
GRASELA = "Grasela and Donn 1985, Dev Pharmacol Ther 8:374, abstract (doi:10.1159/000457062)"
HOURS = 24.0


@dataclass(frozen=True)
class Known:
    """A median and spread known of a population; nan where they are not."""

    median: float
    sd: float
    source: str


@dataclass(frozen=True)
class Study:
    """One data set and model.

    Parameters
    ----------
    name : str
    known : mapping of parameter to Known
    problems : function of the folder of data: the patients' problems, and the population
    correlated : sets of parameters whose random effects are correlated
    drawn : bool, whether the patients are drawn from what is known, and it is the prior
    """

    name: str
    known: Mapping[str, Known]
    problems: Callable[[Path], tuple[list[FitProblem], Population]]
    correlated: tuple[tuple[str, ...], ...] = ()
    drawn: bool = False


def studies() -> list[Study]:
    """All studies, in the order of the report."""
    stated = {"cl": Known(0.147, 0.44, STATED), "v": Known(1.41, 0.45, STATED)}
    weighed = {"cl": Known(0.0047 * HOURS, 0.19, GRASELA), "v": Known(0.96, 0.16, GRASELA)}
    warfarin = {"cl": Known(3.2, np.nan, STATED), "v": Known(8.1, np.nan, STATED)}
    return [
        Study("phenobarbital", stated, phenobarbital),
        Study("phenobarbital, correlated", stated, phenobarbital, (("cl", "v"),)),
        Study("phenobarbital, per kg", weighed, per_kg),
        Study("warfarin", warfarin, warfarin_problems),
        Study("synthetic, twelve of crs", synthetic_truth(), synthetic, drawn=True),
    ]


def phenobarbital(folder: Path) -> tuple[list[FitProblem], Population]:
    """Clearance and volume of each newborn, whatever the weight."""
    return _problems(_phenobarbital(folder), load_model("one_compartment"), "phenobarbital", "iv")


def per_kg(folder: Path) -> tuple[list[FitProblem], Population]:
    """Clearance and volume per kg of birth weight: each dose is divided by it."""
    table = _phenobarbital(folder)
    table["AMT"] /= table["WT"]
    return _problems(table, load_model("one_compartment"), "phenobarbital", "iv")


def _phenobarbital(folder: Path) -> pd.DataFrame:
    raw = pd.read_csv(folder / FILES[0])
    return pd.DataFrame({
        "ID": raw["Subject"], "TIME": raw["time"], "AMT": raw["dose"], "DV": raw["conc"],
        "EVID": raw["dose"].notna().astype(int), "WT": raw["Wt"],
    })  # fmt: skip


def warfarin_problems(folder: Path) -> tuple[list[FitProblem], Population]:
    """Concentrations after one oral dose; prothrombin activity (dvid 2) is not used."""
    raw = pd.read_csv(folder / FILES[1], na_values=".")
    raw = raw[raw["amt"].notna() | ((raw["dvid"] == 1) & (raw["dv"] > 0))]
    table = pd.DataFrame({
        "ID": raw["id"], "TIME": raw["time"], "AMT": raw["amt"],
        "DV": raw["dv"].where(raw["amt"].isna()), "EVID": raw["amt"].notna().astype(int),
        "WT": raw["wt"],
    })  # fmt: skip
    model = load_model("one_compartment").with_values(f_oral=1.0)
    return _problems(table, model, "warfarin", "oral")


def _problems(
    table: pd.DataFrame, model: Model, prior: str, drug: str
) -> tuple[list[FitProblem], Population]:
    """The problems of a NONMEM data set whose times are hours, by its records."""
    path = HERE / f"{prior}.toml"
    with TemporaryDirectory() as temporary:
        data, columns = Path(temporary, "data.csv"), Path(temporary, "columns.toml")
        table.to_csv(data, index=False, na_rep=".")
        columns.write_text(f'time_unit = "hours"\ndrug = "{drug}"\nobservable = "c_central"\n'
                           'ignore = ["WT"]\n', encoding="utf-8")  # fmt: skip
        patients = read_nonmem(data, model, columns=columns).patients
    problems = [patient_problem(p, model=model, prior=path, fewest=0) for p in patients]
    return [replace(p, starts=2) for p in problems], load_population(model, path)


SYNTHETIC, SEED = 40, 7


def _twelve() -> Population:
    """The seven parameters of the study of recovery, and the first five others of the prior."""
    whole = load_population(load_model("crs"))
    rest = [f for f in whole.free if f.name not in FREE][: 12 - len(FREE)]
    return replace(whole, free=(*(f for f in whole.free if f.name in FREE), *rest))


def synthetic_truth() -> dict[str, Known]:
    """Medians and spreads from which the synthetic patients are drawn."""
    source = "the population they are drawn from"
    return {f.name: Known(f.median, f.sd, source) for f in _twelve().free}


def synthetic(folder: Path) -> tuple[list[FitProblem], Population]:
    """Forty synthetic patients of the shipped model, 26 readings each, twelve parameters free."""
    people = _twelve()
    rng = np.random.default_rng(SEED)
    drawn = people.sample(SYNTHETIC, rng)
    problems = []
    for i in range(SYNTHETIC):
        true = people.model.with_values(**{name: float(v[i]) for name, v in drawn.items()})
        patient = synthetic_patient(true, design(), people.noise, rng, id=f"s{i}")
        problems.append(FitProblem(patient.id, people.model, patient, people.free, people.noise,
                                   seed=i, starts=2))  # fmt: skip
    return problems, people
