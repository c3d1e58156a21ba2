"""A patient with one drug and every kind of observation, and a fit that takes a second."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "model/model.ant": """
function hill(x, K, n)
  x^n/(K^n + x^n)
end
function reached(x, level)
  piecewise(1, x >= level, 0)
end
model tiny
  unit mg = 1e-3 gram;
  unit per_day = 1 / 86400 second;
  unit kg = 1e3 gram;
  weight = 70 kg; weight is "Body weight"; weight description "assumption: an adult";
  k = 0.5 per_day; k is "Elimination rate"; k description "assumption: made up";
  grade_1 = 2 dimensionless; grade_1 is "Cut 1"; grade_1 description "assumption: made up";
  grade_2 = 4 dimensionless; grade_2 is "Cut 2"; grade_2 description "assumption: made up";
  grade_3 = 6 dimensionless; grade_3 is "Cut 3"; grade_3 description "assumption: made up";
  grade_4 = 8 dimensionless; grade_4 is "Cut 4"; grade_4 description "assumption: made up";
  one_mg = 1 mg; one_mg is "Reference amount"; one_mg description "assumption: a unit";
  A = 0; A has mg; A is "Amount"; A description "assumption: one compartment";
  A' = -k*A;
  amount := A; amount has mg; amount is "Amount in the body";
  shock := A/one_mg; shock has dimensionless; shock is "Load";
  crs_grade := reached(shock, grade_1) + reached(shock, grade_2) + reached(shock, grade_3)
    + reached(shock, grade_4);
  crs_grade has dimensionless; crs_grade is "CRS grade";
end
""",
    "model/drugs.toml": '[pill]\ninto = "A"\nunit = "mg"\n',
    "data/patient.toml": 'id = "tiny"\nmodel = "../model"\n[values]\nweight = 70\n',
    "data/doses.csv": """day,drug,amount,unit,hours,every,doses,note
0,pill,10,mg,,,,
2,pill,0.05,mg/kg,6,24,4,
""",
    "data/observations.csv": """id,observable,kind,day,until,reference,value,unit,sd,note
a1,amount,value,1,,,5.5,mg,,
a2,amount,peak,0.5,2,,7.2,mg,,
a3,amount,below,10,,,0.9,mg,,
a4,amount,above,3,,,1000,ug,,
a5,amount,sometime,3,4,,6,mg,,
a6,amount,ratio,7,,6,0.6,,,
a7,amount,ratio_below,9,,8,0.9,,,
a8,amount,ratio_above,11,,10,0.5,,,
g1,crs_grade,grade,1,,,2,,,
g2,crs_grade,grade,4,,,3,,,
g3,crs_grade,grade,9,,,0,,,
""",
    "fit/problem.toml": """name = "tiny"
model = "../model"
data = "../data"
starts = 2
[free.k]
prior = 1.0
sd = 0.25
source = "made up"
[free.one_mg]
sd = 0.3
source = "made up"
[noise.amount]
sd = 0.2
source = "made up"
[grade]
latent = "shock"
cuts = ["grade_1", "grade_2", "grade_3", "grade_4"]
sd = 0.5
source = "made up"
[accept]
a1 = [4.0, 7.0]
""",
}


def write_case(folder: Path) -> Path:
    """The files of `FILES` in a folder."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
