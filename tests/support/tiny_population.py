"""Virtual patients of the tiny case: 0.1 ms a run."""

from __future__ import annotations

from pathlib import Path

from tiny_case import FILES, write_case

PRIOR = """\
name = "tiny"
[free.k]
prior = 0.5
sd = 0.4
source = "assumption: made up"
[free.one_mg]
sd = 0.3
source = "assumption: made up"
"""
POPULATION = """\
name = "tiny"
patient = "../data"
number = 300
seed = 3

[covariate.weight]
shape = "normal"
mean = 70000
sd = 9000
lower = 40000
unit = "g"
source = "assumption: made up"

[dose.pill]
shape = "uniform"
lower = 5
upper = 15
unit = "mg"
source = "assumption: made up"

[[filter]]
when = "peak_amount <= 10"
source = "assumption: made up"

[[filter]]
when = "worst_grade >= 3"
source = "assumption: made up"
"""
SCENARIOS = """\
until = 12
endpoints = ["worst_grade", "vasopressor_days", "peak_amount", "amount_d9"]
courses = ["amount", "shock"]

[[scenario]]
name = "half"
scale = [{ drug = "pill", factor = 0.5 }]

[[scenario]]
name = "times one"
scale = [{ drug = "pill", factor = 1 }]
"""


def write_population_case(folder: Path) -> Path:
    """The tiny case with a share of the pill that arrives, its prior, and a population.toml."""
    write_case(folder)
    model = folder / "model" / "model.ant"
    share = ('  F = 1 dimensionless; F is "Share of the pill that arrives"; '
             'F description "assumption: made up";\n')  # fmt: skip
    model.write_text(model.read_text().replace("  k = 0.5", f"{share}  k = 0.5"))
    (folder / "model" / "drugs.toml").write_text(
        FILES["model/drugs.toml"] + 'bioavailability = "F"\n'
    )
    doses = FILES["data/doses.csv"].replace("2,pill,0.05,mg/kg,6,24,4,\n", "")
    (folder / "data" / "doses.csv").write_text(doses)
    (folder / "model" / "prior.toml").write_text(PRIOR)
    home = folder / "people"
    home.mkdir()
    (home / "population.toml").write_text(POPULATION)
    (home / "scenarios.toml").write_text(SCENARIOS)
    return home
