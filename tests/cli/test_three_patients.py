"""Three synthetic patients, and the words that all that is made with their fits must lead with.

Made up from what is usual of each kind: one with next to no cytokine release; a textbook course
after CD19 CAR-T cells, treated; one with dates and four readings. All are read with the shipped
model and prior, which rest on one patient with prostate cancer: the words say where these fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from crs_sim.cli.command_line import cli

UNITS = {"ifng": "pg/mL", "il6": "pg/mL", "crp": "mg/L", "ferritin": "ng/mL"}
HEAD = "id,observable,kind,day,until,reference,value,unit,sd,note"
DOSES = "day,drug,amount,unit,note"
SCENARIOS = """\
endpoints = ["worst_grade"]
[[scenario]]
name = "half the cells"
scale = [{ drug = "cart", factor = 0.5 }]
"""


class Made(NamedTuple):
    """A synthetic patient: its three files, and the pieces of text that must lead, in order."""

    patient: str
    doses: str
    observations: str
    leads: tuple[str, ...]


def rows(levels: dict[str, dict[float, float]], grades: dict[float, int]) -> str:
    """The text of observations.csv."""
    of_levels = [f"{name}_d{day},{name},value,{day},,,{level},{UNITS[name]},,synthetic"
                 for name, course in levels.items() for day, level in course.items()]  # fmt: skip
    of_grades = [f"grade_d{day},crs_grade,grade,{day},,,{grade},,,synthetic"
                 for day, grade in grades.items()]  # fmt: skip
    return "\n".join([HEAD, *of_levels, *of_grades])


BENIGN = Made(
    "[values]\nweight = 70\n",
    f"{DOSES}\n0,cart,5e6,cells/kg,synthetic",
    rows(
        {
            "ifng": {3: 25, 7: 40, 14: 50, 21: 60},
            "il6": {3: 20, 7: 30, 14: 38, 21: 45},
            "crp": {3: 50, 7: 70, 14: 80, 21: 90},
        },
        {3: 1, 7: 1, 14: 1},
    ),
    (
        "15 observations for 17 free parameters",
        "fitted course to day 40: worst grade 4, ",
        " days at grade 3 or more, not resolved: grade 4 from day 2",
        "grade 3 or more on days 24 to 40, where no observation is within 3 days: nothing speaks "
        "for it but the model",
    ),
)
"""Nothing above grade 1 in three weeks, all readings met: and then grade 4 to the end."""

CD19 = Made(
    "[values]\nweight = 70\n",
    f"{DOSES}\n0,cart,2e6,cells/kg,synthetic\n4,tocilizumab,8,mg/kg,synthetic",
    rows(
        {
            "ifng": {0: 5, 3: 300, 5: 900, 7: 250, 10: 20, 14: 8},
            "il6": {0: 5, 3: 150, 5: 2500, 7: 900, 10: 120, 14: 15},
            "crp": {0: 8, 3: 90, 5: 180, 7: 80, 10: 20, 14: 6},
            "ferritin": {0: 400, 3: 900, 5: 4500, 7: 6000, 10: 2500, 14: 1200},
        },
        {1: 0, 2: 1, 3: 2, 4: 3, 5: 2, 6: 2, 7: 1, 8: 1, 9: 0, 11: 0, 14: 0},
    ),
    (
        "the fit misses 1",
        "of 24 readings (ifng_d3, ",
        "more than by chance",
        "times the stated noise, so the intervals are too narrow by as much",
    ),
)
"""Fever on day 2, tocilizumab on day 4, over on day 9: the levels turn faster than the model's."""

DATED = Made(
    'infusion = 2024-03-11T10:00:00+01:00\ntime_zone = "Europe/Vienna"\n[values]\nweight = 70\n',
    f"{DOSES}\n2024-03-11T10:00,cart,2e6,cells/kg,synthetic\n"
    "2024-03-15T09:30,tocilizumab,8,mg/kg,synthetic",
    f"{HEAD}\nferritin_before,ferritin,value,2024-03-08T08:00,,,350,ng/mL,,synthetic\n"
    "crp_1,crp,value,2024-03-14T07:30,,,85,mg/L,,synthetic\n"
    "ifng_1,ifng,value,2024-03-15T07:30,,,150,pg/mL,,synthetic\n"
    "ferritin_1,ferritin,value,2024-03-16T07:30,,,1900,ng/mL,,synthetic",
    (
        "4 observations for 19 free parameters, of which they determine ",
        ": the rest is the prior (above all d_car, k_kill, k_ifng_host, ",
        "nothing speaks for it but the model",
    ),
)
"""Baseline before the infusion, then one level of each on three mornings."""


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return result


def lead(text: str) -> str:
    """The warnings at the top of a text, before anything else that is not a heading."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    first = [k for k, line in enumerate(lines) if "Warning" not in line]
    return "\n".join(lines[: first[0]])


@pytest.mark.parametrize("name", ["benign", "cd19", "dated"])
def test_what_is_made_with_the_fit_of_a_patient_leads_with_what_speaks_against_it(tmp_path, name):
    made = {"benign": BENIGN, "cd19": CD19, "dated": DATED}[name]
    home, out = tmp_path / name, tmp_path / "out"
    home.mkdir()
    (home / "patient.toml").write_text(f'id = "synthetic_{name}"\n{made.patient}')
    (home / "doses.csv").write_text(made.doses)
    (home / "observations.csv").write_text(made.observations)
    (home / "scenarios.toml").write_text(SCENARIOS)
    fitted = run("fit", home, "--starts", 1, "--workers", 1)
    compared = run("compare", home, "--scenarios", home / "scenarios.toml", "--draws", 4,
                   "--workers", 1)  # fmt: skip
    predicted = run("predict", home, "--draws", 4, "--out", out)
    (folder,) = (home / "runs").iterdir()
    report, said = (folder / "report.md").read_text(), (out / "verdict.txt").read_text()
    for text in (report, said, fitted.stdout, compared.stdout, predicted.stdout):
        places = [lead(text).find(words) for words in made.leads]
        assert -1 not in places and places == sorted(places), lead(text)
    if name == "dated":
        assert "is read as its level on day 0" in fitted.stderr
        assert "| ferritin_before | day 0 |" in report
