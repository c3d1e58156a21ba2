"""The report of a sampled posterior: Markdown text, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from . import RESEARCH_ONLY
from .draws import ESS_NEEDED, RHAT_LIMIT, WALKERS_LIMIT
from .output import csv_file, json_file, markdown, write_atomic
from .panels import format_number, unit_text
from .plots import figure_files
from .posterior import ABOUT, DRAWS_FILE, Posterior, run_header
from .posteriorplots import plot_corner, plot_predictive, plot_predictive_grades, plot_trace
from .predictivecheck import Predicted, outside_interval_text, predictive

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
        _made_with(posterior),
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


def _made_with(posterior: Posterior) -> str:
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
