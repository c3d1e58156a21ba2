"""The report of a virtual population: text, tables and figures from stored results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import RESEARCH_ONLY
from .bandplots import figures_of
from .errors import InputError
from .output import csv_file, markdown, write_atomic
from .panels import unit_text
from .plots import figure_files
from .populationparts import FAILED, GRADES, KEPT, RELEVANT_CHANGE, SEVERE, Results, Summary

REPORT = "population.md"
NO_UNIT = "no unit"
MOST_FAILURES = 3


def write_population(results: Results, folder: str | Path | None = None) -> list[Path]:
    """Write population.md, its tables and its figures (all or none).

    Parameters
    ----------
    results : Results of a run
    folder : output folder (default: beside the results)

    Returns
    -------
    list of Path, the files written

    Raises
    ------
    StorageError
        If a file cannot be written.
    InputError
        If no patient was kept; then only rejected.csv is written.

    Examples
    --------
    ``write_population(run_population(load_study("crs"), "people"))``
    """
    home = results.folder if folder is None else Path(folder)
    summary = Summary(results)
    if not len(summary.kept):
        write_atomic({home / "rejected.csv": csv_file(summary.rejected(), digits=6)})
        counts = " ".join(patient_counts(summary))
        raise InputError(
            f"none of {len(summary.members)} patients was kept: {counts} See "
            f"{home / 'rejected.csv'}, and loosen the filters or the distributions"
        )
    tables = tables_of(summary)
    header = results.header
    title = f"Virtual population {header['name']}, {len(summary.kept)} patients"
    files = {home / f"{name}.csv": csv_file(table, digits=6) for name, table in tables.items()}
    figures = figures_of(tables["bands"], tables.get("grades"), header["courses"], title)
    for name, figure in figures:
        files |= figure_files(figure, home / name)
    files[home / REPORT] = population_report_text(
        summary, tables, [name for name, _ in figures]
    ).encode()
    write_atomic(files)
    return list(files)


def tables_of(summary: Summary) -> dict[str, pd.DataFrame]:
    """All tables, by file name."""
    tables = {"rejected": summary.rejected(), "endpoints": summary.endpoints(),
              "differences": summary.differences(), "subgroups": summary.subgroups(),
              "bands": summary.bands()}  # fmt: skip
    return {**({"grades": summary.grades()} if summary.graded else {}), **tables}


def population_report_text(
    summary: Summary, tables: dict[str, pd.DataFrame], figures: Sequence[str] = ()
) -> str:
    """The report in Markdown: patients drawn and kept, then their outcomes."""
    header = summary.results.header
    parts = [f"# Virtual population {header['name']}", RESEARCH_ONLY, *patient_counts(summary)]
    parts += ["## What is assumed", *_assumed(summary)]
    if len(tables["rejected"]):
        parts += ["## Plausibility", _rejected(tables["rejected"])]
    if "grades" in tables:
        parts += ["## Worst grade", "Share of the patients, %.", grade_table(tables["grades"])]
    parts += [f"![{name}]({name}.png)" for name in figures]
    parts += ["## Endpoints", "Median, and 5 to 95 % of the patients.",
              *_by_endpoint(tables["endpoints"])]  # fmt: skip
    parts += ["## Differences within patients", DIFFERENCES, *_by_endpoint(tables["differences"])]
    if len(tables["subgroups"]):
        parts += ["## Subgroups", SUBGROUPS, *_subgroups(tables["subgroups"], summary)]
    return "\n\n".join([*parts, "## Made with", _made_with(summary)]) + "\n"


DIFFERENCES = (
    "Each scenario minus the treatment as given, within each patient: median, and 5 to 95 % of the "
    "patients; then the shares in whom it is lower, and higher, by over "
    f"{100 * RELEVANT_CHANGE:g} %."
)
SUBGROUPS = (
    f"Thirds of the patients by covariate, under the treatment as given; share at grade {SEVERE} "
    "or more, and medians. All scenarios are in subgroups.csv."
)


def patient_counts(summary: Summary) -> list[str]:
    """How many patients were drawn, kept, rejected and failed, then the first failures."""
    members = summary.members
    failed = members[members[FAILED] != ""]
    kept, drawn = int(members[KEPT].sum()), len(members)
    rejected = drawn - kept - len(failed)
    lines = [f"{drawn} patients drawn, {kept} kept, {rejected} rejected as implausible "
            f"({_percent(rejected / drawn)}), {len(failed)} failed."]  # fmt: skip
    for text in failed[FAILED].head(MOST_FAILURES):
        lines.append(f"Failed: {text}")
    return lines


def _assumed(summary: Summary) -> list[str]:
    header = summary.results.header
    settings = header["settings"]
    sources = {c["name"]: c["source"] for c in settings["covariates"]}
    rows = [(name, f"{about['says']}; {unit_text(about['unit'], NO_UNIT)}", sources[name])
            for name, about in header["covariates"].items()]  # fmt: skip
    drawn = header["prior"]["parameters"] - len(settings["fixed"])
    text = [f"{drawn} parameters are drawn from prior {header['prior']['name']}, each log-normal "
            "and independent of the others, of the covariates, and of the treatment."]  # fmt: skip
    return [*text, markdown(("covariate", "distribution", "source"), rows)] if rows else text


def _rejected(table: pd.DataFrame) -> str:
    rows = [(r.filter, f"{r.rejected} of {r.of} ({_percent(r.share)})", str(r.rejected_by_it_alone),
             r.source) for r in table.itertuples()]  # fmt: skip
    return markdown(("kept if", "rejected", "by this filter only", "source"), rows)


def grade_table(table: pd.DataFrame) -> str:
    """Worst grades as a table of percentages."""
    names = [f"grade_{g}" for g in GRADES]
    rows = [(r["scenario"], *(f"{100 * r[n]:.1f}" for n in [*names, f"grade_{SEVERE}_or_more"]))
            for r in table.to_dict("records")]  # fmt: skip
    columns = ("scenario", *(f"grade {g}" for g in GRADES), f"{SEVERE} or more")
    return markdown(columns, rows)


def _by_endpoint(table: pd.DataFrame) -> Iterable[str]:
    """One table per endpoint, one row per scenario."""
    paired = "share_lower" in table.columns
    for name in dict.fromkeys(table["endpoint"]) if len(table) else ():
        here = table[table["endpoint"] == name]
        first = here.iloc[0]
        yield f"**{first['label']}** (`{name}`), {unit_text(first['unit'], NO_UNIT)}"
        rows = []
        for r in here.to_dict("records"):
            shares = (_percent(r["share_lower"]), _percent(r["share_higher"])) if paired else ()
            rows.append((r["scenario"], _number(r["median"]),
                         f"{_number(r['p05'])} to {_number(r['p95'])}", *shares))  # fmt: skip
        columns = ("scenario", "median", "5 to 95 %", *(("lower", "higher") if paired else ()))
        yield markdown(columns, rows)


def _subgroups(table: pd.DataFrame, summary: Summary) -> Iterable[str]:
    given = table[table["scenario"] == summary.results.scenarios[0]]
    ends = [name for name in dict.fromkeys(table["endpoint"]) if name != "worst_grade"]
    rows = []
    for (name, third), group in given.groupby(["covariate", "third"], sort=False):
        first = group.iloc[0]
        unit = unit_text(first["unit_of_covariate"], NO_UNIT)
        medians = group.set_index("endpoint")["median"]
        rows.append((f"{name}, {unit}", f"{third}: {_number(first['from'])} to "
                     f"{_number(first['to'])}", str(first["patients"]), _percent(first["severe"]),
                     *(_number(medians[end]) for end in ends)))  # fmt: skip
    units = summary.results.header["endpoints"]
    names = (f"{end}, {unit_text(units[end]['unit'], NO_UNIT)}" for end in ends)
    yield markdown(("covariate", "third", "patients", f"grade {SEVERE} or more", *names), rows)


def _made_with(summary: Summary) -> str:
    header = summary.results.header
    settings = header["settings"]
    until, every, rtol = settings["sampling"]
    made_with = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return "\n".join([
        f"- model {header['model']['name']}, equations {header['model']['hash']}; seed "
        f"{settings['seed']}",
        f"- day 0 to {until:g}, a sample every {every:g} h; relative tolerance {rtol:g}",
        f"- settings hash {header['question']}; {made_with}",
    ])  # fmt: skip


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f} %"


def _number(value: Any) -> str:
    """Format a number with three significant digits."""
    value = float(value)
    if value == 0 or abs(value) < 1e-12:
        return "0"
    return f"{float(f'{value:.3g}'):,.6g}" if abs(value) < 1e6 else f"{value:.3g}"
