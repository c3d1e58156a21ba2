"""A model file small enough to read, which tests break in one place each."""

from __future__ import annotations

FUNCTIONS = """\
function hill(x, K, n)
  x^n/(K^n + x^n)
end
function reached(x, level)
  piecewise(1, x >= level, 0)
end
"""
TINY = (
    FUNCTIONS
    + """\
model tiny
  unit mg = 1e-3 gram;
  unit per_day = 1 / 86400 second;
  unit pg_per_mL = 1e-12 gram / 1e-3 litre;
  unit pg_per_mL_per_day = 1e-12 gram / (1e-3 litre * 86400 second);

  // the drug: "quotes; and // slashes" in a comment mean nothing
  v = 3 litre;  v is "Volume; of // sorts";  v description "https://doi.org/10.1000/182 table 2";
  cl = 12 L_per_day;  cl is "Clearance";  cl description "https://doi.org/10.1000/182";
  unit L_per_day = litre / 86400 second;
  DRUG = 0 mg;  DRUG is "Drug";  DRUG description "assumption: one compartment";
  unit mg_per_L = 1e-3 gram / litre;
  ic50 = 1 mg_per_L;  ic50 is "Half effect";  ic50 description "assumption: none known";
  c_drug := DRUG/v;  c_drug has mg_per_L;  c_drug is "Drug, plasma";
  effect := 1 - hill(c_drug, ic50, 1);
    effect has dimensionless;
    effect is "What is left under the drug";
  DRUG' = -cl/v*DRUG;

  k_il6 = 300 pg_per_mL_per_day;  k_il6 is "IL-6 made";  k_il6 description "assumption: scale";
  d_il6 = 40 per_day;  d_il6 is "IL-6 lost";  d_il6 description "https://doi.org/10.1000/182";
  K_il6 = 5 pg_per_mL;  K_il6 is "IL-6 of half feedback";  K_il6 description "assumption: loop";
  n_il6 = 2.5 dimensionless;  n_il6 is "Steepness";  n_il6 description "assumption: loop";
  il6_0 = 2 pg_per_mL;  il6_0 is "IL-6 on day 0";  il6_0 description "https://doi.org/10.1000/182";
  IL6 = il6_0;  IL6 has pg_per_mL;  IL6 is "Interleukin 6";  IL6 description "assumption: turnover";
  IL6' = k_il6*effect*(1 +
      2*hill(IL6, K_il6, n_il6))
    - d_il6*IL6;
  high := reached(IL6, K_il6);  high has dimensionless;  high is "IL-6 is high";
end
"""
)
DRUGS = """\
[tocilizumab]
into = "DRUG"
unit = "mg"
hours = 1
molar_mass = 148000
label = "anti-IL-6R antibody"
"""


def line_of(words: str, text: str = TINY) -> int:
    """The line on which these words stand."""
    return text[: text.index(words)].count("\n") + 1


def broken(old: str, new: str, text: str = TINY) -> str:
    """The model with one thing changed."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)
