"""The report of a qualification, as a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from crs_sim.store import level_text, markdown

from . import forecast, published, refit
from .design import COUNTED, MAIN, Product

HEAD = """# What the model says, beside what was published

Research use only. Command: {command}. The patients' data are read from the folder and are not
part of this repository; what is computed from them is. What fails stays in, with its reason.

{passed} of {rows} rows pass; {absent} are not in the model. Of the {limits} limits of the refits,
{met} are met.

![Every row: what was published (black, with the interval that the model's value must lie in) and
the model's value (with its interval in trials of the published size)](rows.png)
"""

RULES = """Each row's rule gives the interval in which the model's value passes; `published.py` has
all of them. The interval beside the model's value is the middle 95 % of the same statistic in
trials of the published size, drawn from the virtual patients. *folder* is the same measure of the
patients in the folder, by the same code. Readings of virtual patients are taken on the days of the
trial, with the prior's residual error and the assay's ceiling."""

REFIT = """Untreated patients, each fitted alone under the population prior (maximum a posteriori).
The error is of ln readings; of those at the assay's ceiling only where the course is below it. The
course's worst grade, to day 60, is compared with the published one; where that is fitted too, its
agreement is no prediction."""

PICTURE = "![Each untreated patient: readings, and the course fitted to them](patients.png)"

FORECAST = """From the readings up to the day after the onset of CRS: the highest reading to come,
residual error included (`forecast.py`), beside a straight line from the highest level so far in
logarithms, leaving each patient out (`regression.py`). *covered*: 90 % intervals that hold what
came, or reach the ceiling where the assay did. *log score*: mean log predictive density of ln peak,
or log chance of more at the ceiling; higher is better. The coverage passes if the number of
patients covered is within the middle 95 % of a binomial of 90 %. The
model knows of no drug, so that the forecasts of treated patients are of what would have come
without."""


def page(
    rows: pd.DataFrame, patients: pd.DataFrame, forecasts: pd.DataFrame, command: str,
    products: Mapping[str, Product],
) -> str:  # fmt: skip
    """The whole report; tables that are empty are left out."""
    refits = refit.summary(patients) if len(patients) else []
    absent = int(rows["reason"].str.startswith("not in the model").sum())
    head = HEAD.format(command=command, passed=int(rows["passed"].sum()), rows=len(rows),
                       absent=absent, limits=len(refits),
                       met=sum(bool(r["passed"]) for r in refits))  # fmt: skip
    parts = [head, _products(products), "## Rows", RULES, row_table(rows)]
    if refits:
        parts += ["## Patients refitted", REFIT, refit_table(refits), PICTURE,
                  patient_table(patients)]  # fmt: skip
    if len(forecasts) and (foreseen := forecast.summary(forecasts)):
        parts += ["## Peaks foreseen", FORECAST, forecast_table(foreseen)]
    parts += ["## Rules", rules()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _products(products: Mapping[str, Product]) -> str:
    lines = [f"{name}: prior `{_prior(p)}`, {p.dose:g} cells/kg"
             f"{' or the schedule of the case' if p.case else ''}"
             for name, p in products.items()]  # fmt: skip
    return f"Products: {'; '.join(lines)}. CRS is grade {COUNTED:g} or more."


def _prior(product: Product) -> str:
    """The name of a prior, or of its folder."""
    path = Path(product.prior)
    return path.parent.name if path.suffix else path.name


def row_table(rows: pd.DataFrame) -> str:
    """One line per row."""
    columns = ("", "id", "product", "quantity", "unit", "published", "to pass", "rule", "model",
               "its interval", "folder", "reason")  # fmt: skip
    lines = [
        ("pass" if r.passed else "**fail**", r.id, r.product, r.quantity, r.unit,
         number(r.published), between(r.low, r.high), r.rule, number(r.model),
         between(r.model_low, r.model_high), number(r.folder), r.reason)
        for r in rows.itertuples()
    ]  # fmt: skip
    sources = "\n".join(f"- {', '.join(part['id'])}: {source}" for source, part in
                        rows.groupby("source", sort=False))  # fmt: skip
    return f"{markdown(columns, lines)}\n\nSources:\n\n{sources}"


def refit_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per figure of the refits."""
    lines = [("pass" if r["passed"] else "**fail**", r["variant"], r["quantity"],
              number(r["value"]), ("at most " if r["unit"] == "ln" else "at least ")
              + number(r["limit"]), r["unit"], str(r["n"])) for r in rows]  # fmt: skip
    return markdown(("", "fitted", "quantity", "value", "limit", "unit", "patients"), lines)


def patient_table(patients: pd.DataFrame) -> str:
    """One line per patient of the main variant."""
    part = patients[patients["variant"] == MAIN.name]
    names = [
        "id",
        "grade",
        "fitted_grade",
        "crs_days",
        "readings",
        "censored",
        "wrong_side",
        "rms",
        *(name for name in part if str(name).startswith("rms_") and part[name].notna().any()),
    ]
    there = [name for name in names if name in part]
    lines = [[str(row["id"])] + [number(float(row[n])) for n in there[1:]]
             for _, row in part.iterrows()]  # fmt: skip
    failed = part[part["failed"] != ""]
    notes = [f"{row.id}: {row.failed}" for row in failed.itertuples()]
    return "\n\n".join([f"{MAIN.name}, by patient:", markdown(there, lines), *notes])


def forecast_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per analyte and group of patients."""
    names = list(rows[0])
    return markdown(names, [[r[n] if isinstance(r[n], str) else number(float(r[n])) for n in names]
                            for r in rows])  # fmt: skip


def rules() -> str:
    """The rules for passing, as the module of the published figures states them."""
    return f"```\n{(published.__doc__ or '').strip()}\n```"


def number(value: float) -> str:
    """Three digits; nothing for nan."""
    if math.isnan(value):
        return ""
    return level_text(value) if math.isfinite(value) else "infinite"


def between(low: float, high: float) -> str:
    """An interval; nothing for nan."""
    return "" if math.isnan(low) and math.isnan(high) else f"{number(low)} to {number(high)}"
