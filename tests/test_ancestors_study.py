"""The study of a published model beside ours, on made-up patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crs_sim import compare_fits, fit, load_model, simulate
from crs_sim.dosing import Scenario, Schedule
from studies.ancestors.__main__ import page, table
from studies.ancestors.design import CELLS, FEWEST, MODELS, WEIGHT, problem, subjects

DAYS = np.arange(1.0, 1.0 + FEWEST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Levels that Hardiansyah and Ng's model makes, 15 % of scatter; three who are left out."""
    made = tmp_path_factory.mktemp("levels")
    scenario = Scenario("x", Schedule((CELLS,)), (), {"weight": WEIGHT, "k_kill": 0.5})
    run = simulate(load_model("hardiansyah2019"), scenario, days=[0.0, *DAYS])
    rng = np.random.default_rng(5)
    rows = [
        (id, day, name, level * np.exp(0.15 * rng.standard_normal()),
         "above?" if (id, day) == ("high", 6.0) else "")
        for id in ("one", "treated", "high", "few") for name in ("ifng", "il6")
        for day, level in zip(run.days[1:], run[name][1:], strict=True)
        if id != "few" or day < 5
    ]  # fmt: skip
    head = ["id", "day", "observable", "value", "censored"]
    pd.DataFrame(rows, columns=head).to_csv(made / "cytokines.csv", index=False)
    (made / "patients.csv").write_text(
        "id,max_grade_asbmt,treated,hlh,crs_onset_day,dose_level\none,2,no,0,8,1\n"
        "treated,3,yes,0,8,1\nhigh,2,no,0,8,1\nfew,1,no,0,8,1\n"
    )
    (made / "markers.csv").write_text("id,day,observable,value,unit\n")
    return made


def test_only_patients_that_tell_the_untreated_course_are_taken(folder):
    (one,) = subjects(folder)
    assert (one.patient.id, one.grade, len(one.patient.observations)) == ("one", 2, 2 * FEWEST)


def test_the_model_that_made_the_levels_fits_them_better_and_finds_their_scatter(folder):
    (one,) = subjects(folder)
    fits = {name: fit(problem(one, name), starts=2, workers=1) for name in MODELS}
    made = fits["hardiansyah2019"]
    assert made.values["sd_il6"] < 0.25 and made.values["sd_ifng"] < 0.25
    compared = compare_fits(fits)
    assert list(compared["model"]) == ["hardiansyah2019", "crs"]
    assert list(compared["observations"]) == [2 * FEWEST] * 2
    text = page(table(one, fits))
    assert "hardiansyah2019 in 1, crs in 0" in text and "| one | 2 | crs | 24 |" in text
