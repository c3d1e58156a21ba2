"""Reports of a posterior, a virtual population and a search: text, tables, figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import RESEARCH_ONLY, InputError, command
from ..figures import (
    figure_files,
    figures_of,
    format_number,
    plot_corner,
    plot_predictive,
    plot_predictive_grades,
    plot_trace,
    unit_text,
)
from ..population import FAILED, GRADES, KEPT, RELEVANT_CHANGE, SEVERE, Results, Summary
from ..scenarios import Comparison, Search, scenarios_text
from ..store import csv_file, json_file, markdown, write_atomic
from ..uncertainty import (
    ABOUT,
    DRAWS_FILE,
    ESS_NEEDED,
    RHAT_LIMIT,
    WALKERS_LIMIT,
    Posterior,
    Predicted,
    outside_interval_text,
    predictive,
    run_header,
)

DRAWS_WRITTEN = 1000
COLUMNS = ("parameter", "5 %", "50 %", "95 %", "prior median", "R-hat", "R-hat, walkers",
           "effective draws", "meaning")  # fmt: skip


def write_posterior(posterior: Posterior, folder: str | Path) -> tuple[Path, ...]:
    """Write posterior.md, its tables (CSV) and its figures (PNG and SVG) to a folder.

    ``draws.csv`` has up to `DRAWS_WRITTEN` draws, in the parameters' own units; `ABOUT` beside it
    records the problem and the convergence verdict.

    Returns
    -------
    tuple of Path, the files written

    Raises
    ------
    StorageError
        If a file cannot be written; then nothing is written.
    """
    path, rows = Path(folder), predictive(posterior)
    files = {
        path / "posterior.md": posterior_text(posterior, rows).encode(),
        path / "posterior.csv": csv_file(posterior.summary()),
        path / "predictive.csv": csv_file(predicted_table(rows)),
        path / DRAWS_FILE: csv_file(posterior.values(DRAWS_WRITTEN)),
        path / ABOUT: json_file(
            {
                **run_header(posterior.problem, posterior.plan),
                "verdict": posterior.verdict,
            }
        ),
    }
    for name, figure in posterior_figures(posterior, rows).items():
        files |= figure_files(figure, path / name)
    write_atomic(files)
    return tuple(files)


def predicted_table(rows: Sequence[Predicted]) -> pd.DataFrame:
    """One row for each observation."""
    return pd.DataFrame([asdict(row) for row in rows])


def posterior_figures(posterior: Posterior, rows: Sequence[Predicted]) -> dict[str, Figure]:
    """The figures of a posterior by name."""
    table = predicted_table(rows)
    figures = {"corner": plot_corner(posterior), "trace": plot_trace(posterior)}
    if (table["kind"] != "grade").any():
        figures["predictive"] = plot_predictive(table)
    if (table["kind"] == "grade").any():
        figures["predictive_grades"] = plot_predictive_grades(table)
    return figures


def posterior_text(posterior: Posterior, rows: Sequence[Predicted]) -> str:
    """The report in Markdown; the convergence verdict comes first."""
    problem = posterior.problem
    grades = any(row.kind == "grade" for row in rows)
    levels = any(row.kind != "grade" for row in rows)
    parts = [
        f"# Posterior: {problem.name}",
        RESEARCH_ONLY,
        f"**{posterior.verdict}**",
        _sampled_with(posterior),
        "## Parameters",
        "Quantiles of the draws, in the parameters' units. R-hat is rank-normalised and split, "
        f"over the groups of walkers (limit {RHAT_LIMIT:g}) and over single walkers (limit "
        f"{WALKERS_LIMIT:g}); effective draws are the lower of bulk and tail (at least "
        f"{ESS_NEEDED:g}).",
        markdown(COLUMNS, [summary_words(row) for row in posterior.summary().to_dict("records")]),
        "![Pairs of parameters](corner.png)",
        "## Posterior predictive check",
        f"{outside_interval_text(tuple(rows))} A percentile near 0 or 100 % marks a reading "
        "that the model rarely predicts, even with the parameters fitted to it.",
        "![Levels](predictive.png)" if levels else "",
        "![CRS grades](predictive_grades.png)" if grades else "",
        "## Trace of the walkers",
        "![Trace of the walkers](trace.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_words(row: dict[str, object]) -> tuple[str, ...]:
    """Format a row of `Posterior.summary`."""
    unit = unit_text(str(row["unit"]), "")
    name = f"{row['parameter']} ({unit})" if unit else str(row["parameter"])
    levels = (format_number(float(f"{row[q]:.3g}")) for q in ("q05", "q50", "q95", "prior_median"))
    ess = min(float(str(row["ess_bulk"])), float(str(row["ess_tail"])))
    return (
        name,
        *levels,
        f"{row['rhat']:.3f}",
        f"{row['walkers_rhat']:.2f}",
        f"{ess:.0f}",
        str(row["label"]),
    )


def _sampled_with(posterior: Posterior) -> str:
    problem, plan = posterior.problem, posterior.plan
    n_draws, n_groups, n_walkers, _ = posterior.chain.shape
    moves = [one.moves_each for one in posterior.convergence]
    return "\n".join([
        f"- model {problem.model.name}, equations {problem.model.hash}; patient "
        f"{problem.patient.id}",
        f"- {n_groups} groups of {n_walkers} walkers, {n_draws} draws of each, {plan.thin} moves "
        f"apart; the first {posterior.warm_up} are discarded as warm-up; seed {plan.seed}",
        f"- {posterior.runs} runs, {posterior.failed_runs} of them failed; "
        f"{100 * posterior.acceptance:.0f} % of the moves were accepted",
        f"- one independent draw takes up to {max(moves):.0f} moves of a walker",
    ])  # fmt: skip


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
    return "\n\n".join([*parts, "## Made with", _population_made_with(summary)]) + "\n"


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
    shares = [name for name, *numbers in settings["prior"] if "logit" in numbers]
    logit = f" ({', '.join(shares)}: normal on the logit scale)" if shares else ""
    text = [f"{drawn} parameters are drawn from prior {header['prior']['name']}, each log-normal"
            f"{logit} and independent of the others, of the covariates, and of the "
            "treatment."]  # fmt: skip
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


def _population_made_with(summary: Summary) -> str:
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


CHOSEN = "chosen.toml"
DIGITS = 6


def files_of_search(
    found: Search, chosen: int, *, comparisons: Mapping[str, Comparison], folder: Path
) -> dict[Path, bytes]:
    """Format the files of a search, for `write_atomic`.

    Parameters
    ----------
    found : Search
    chosen : the trial written to chosen.toml
    comparisons : of trials with the treatment as given, by the source of their members (draws of
        the fit, virtual patients)
    folder : of the files

    Returns
    -------
    mapping of path to content: ``trials.csv``; ``front.csv``, one row per trial of the front with
    its variables and endpoints; ``front_draws.csv``, one row for each trial simulated with draws,
    and endpoint; ``chosen.toml``, for ``crs-sim compare``
    """
    table = found.table()
    front = table.set_index("trial").loc[list(found.front)].drop(columns=["front", "failed"])
    front["chosen"] = front.index == chosen
    question = found.question
    ends = [e.name for e in (*question.objectives, *question.endpoints)]
    note = "\n".join([f"Trial {chosen} of a search. Research use only. Simulate it with",
                      command("compare", "RUN", "--scenarios", CHOSEN),
                      *question.words(found.points[chosen].tolist())])  # fmt: skip
    text = scenarios_text(
        [found.scenario(chosen)], question.given, endpoints=list(dict.fromkeys(ends)),
        courses=question.courses, until=question.plan.until, note=note,
    )  # fmt: skip
    files = {
        folder / "trials.csv": csv_file(table, DIGITS),
        folder / "front.csv": csv_file(front.reset_index(), DIGITS),
        folder / CHOSEN: text.encode(),
    }
    if comparisons:
        parts = [c.table().assign(members=members) for members, c in comparisons.items()]
        files[folder / "front_draws.csv"] = csv_file(pd.concat(parts, ignore_index=True), DIGITS)
    return files
