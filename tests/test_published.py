"""The study of published populations, on made-up records: data read right, known values beside."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from crs_sim.population import Roles, fit_all
from studies.published.__main__ import page, table
from studies.published.design import Study, per_kg, phenobarbital, studies, warfarin_problems

SYNTHETIC = """\
rownames,Subject,Wt,Apgar,ApgarInd,time,dose,conc
1,1,2,7,>= 5,0,30,
2,1,2,7,>= 5,2,,20
3,1,2,7,>= 5,12,4,
4,1,2,7,>= 5,48,,18
5,2,1,3,< 5,0,20,
6,2,1,3,< 5,24,,11
7,2,1,3,< 5,48,,9
"""
WARFARIN = """\
id,time,amt,dv,dvid,wt,sex,age
100,0,100,.,1,66.7,1,50
100,0,.,0,1,66.7,1,50
100,24,.,9.2,1,66.7,1,50
100,24,.,49,2,66.7,1,50
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Phenobarb.csv").write_text(SYNTHETIC)
    (tmp_path / "warfarin_data.csv").write_text(WARFARIN)
    return tmp_path


def test_records_are_read_in_days_and_per_kg(folder):
    problems, _ = phenobarbital(folder)
    first = problems[0].patient
    assert [(d.day, d.amount) for d in first.scenario.doses] == [(0.0, 30.0), (0.5, 4.0)]
    assert [(o.day, o.value) for o in first.observations] == [(2 / 24, 20.0), (2.0, 18.0)]
    assert "sd_c_central" in problems[0].names
    weighed, _ = per_kg(folder)
    assert [d.amount for d in weighed[0].patient.scenario.doses] == [15.0, 2.0]


def test_warfarin_leaves_out_prothrombin_and_levels_of_zero(folder):
    (problem,), population = warfarin_problems(folder)
    assert [(o.day, o.value) for o in problem.patient.observations] == [(1.0, 9.2)]
    assert problem.model["f_oral"].value == 1.0 and population.patients == 0.0


def newborns() -> str:
    """Eight made-up newborns with one dose of 30 mg and three readings each."""
    rng, lines = np.random.default_rng(3), [SYNTHETIC.splitlines()[0]]
    for i in range(8):
        rate = 0.1 * math.exp(0.4 * rng.standard_normal())
        lines.append(f"0,{i},2,7,>= 5,0,30,")
        lines += [f"0,{i},2,7,>= 5,{t},,{20 * math.exp(-rate * t / 24) + rng.standard_normal()}"
                  for t in (2, 48, 120)]  # fmt: skip
    return "\n".join(lines) + "\n"


def test_what_is_known_stands_beside_what_is_found(folder):
    (folder / "Phenobarb.csv").write_text(newborns())
    problems, population = phenobarbital(folder)
    result = fit_all(problems, population, Roles(shared=("v",)), draws=64, workers=1)
    study = next(study for study in studies() if study.name == "phenobarbital")
    found = table(study, result).set_index("parameter")
    row = found.loc["cl"]
    assert row["known_median"] == 0.147 and "not found" in row["source"]
    assert row["off"] == pytest.approx(math.log(row["median"] / 0.147) / row["median_error"])
    assert pd.isna(found.loc["sd_c_central", "known_median"])
    text = page(Study("made up", study.known, study.problems), result, found.reset_index(), 1.0)
    assert "| cl | tied |" in text and "## made up" in text
