"""The sensitivity command: global sensitivity analysis of endpoints (Sobol, Morris)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .options import (
    PROBLEM_OPTION,
    format_short,
    print_columns,
    print_written,
    progress_line,
    throttled_progress,
    workers_options,
)

if TYPE_CHECKING:
    from .cluster import Workers
    from .sensitivities import Sensitivity

SAMPLES = {"sobol": 256, "morris": 64}
PRINTED = 5


@click.command(short_help="Global sensitivity analysis of endpoints.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--endpoint", "names", multiple=True, required=True, metavar="NAME",
              help="peak_X, day_of_peak_X, auc_X, X_dDAY, worst_grade, vasopressor_days; "
                   "repeatable.")  # fmt: skip
@click.option("--method", default="sobol", show_default=True,
              help="sobol (shares of the variance), or morris (cheap, ranking only).")  # fmt: skip
@click.option(
    "--samples",
    type=int,
    help="Sobol points, a power of two  [256]; Morris trajectories  [64].",
)
@click.option("--within", type=float, metavar="LEVEL",
              help="Vary over the fit's intervals of this level, not the priors.")  # fmt: skip
@click.option("--until", default=40.0, show_default=True, help="Last day.")
@click.option("--seed", default=1, show_default=True, help="Random seed of the design.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of runs, tables and figures.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume with the runs in FOLDER.")
@workers_options("Threads")
@PROBLEM_OPTION
def sensitivity(
    run: str, names: tuple[str, ...], out: Path, resume: bool, workers: Workers,
    **options: Any,
) -> None:  # fmt: skip
    """Find the parameters that drive endpoints under the treatment of the patient of RUN.

    All free parameters are varied together over their priors (or --within the fit's intervals),
    then one at a time for the tornado plot. Each run is saved; after an interruption, continue
    with --resume.
    """
    from .endpoints import endpoint
    from .output import check_folder
    from .sensitivities import SensitivityPlan
    from .sensitivities import sensitivity as analyse
    from .storage import load_fit

    result = load_fit(run, options["problem"])
    method, samples = options["method"], options["samples"]
    plan = SensitivityPlan(
        tuple(endpoint(result.model, n, options["until"]) for n in dict.fromkeys(names)), method,
        SAMPLES.get(method, 0) if samples is None else samples,
        options["seed"], options["until"], options["within"],
    )  # fmt: skip
    check_folder(out)
    with progress_line() as line:
        found = analyse(result, plan, folder=out, resume=resume, workers=workers,
                        progress=throttled_progress(line, "runs"))  # fmt: skip
    _print(found)
    print_written(_write(found, out))


def _print(found: Sensitivity) -> None:
    """Print the leading parameters of each endpoint, and whether the indices have converged."""
    table, key = found.table(), found.leading
    for place, end in enumerate(found.plan.endpoints):
        leading = table[table["endpoint"] == end.name].head(PRINTED)
        click.echo(f"{end.name} ({found.scale(place)} scale)")
        rows = [[r["parameter"], format_short(r[key]), f"{format_short(r[f'{key}_low'])} to "
                 f"{format_short(r[f'{key}_high'])}"]
                for r in leading.to_dict("records")]  # fmt: skip
        print_columns([["", key, "95 %"], *rows])
        click.echo(f"{found.verdict(place)}\n")
    click.echo(f"{found.runs} runs, {len(found.failures)} failed")
    for text in found.failures[:PRINTED]:
        click.echo(text)


def _write(found: Sensitivity, out: Path) -> list[Path]:
    """Write tables, verdicts and figures."""
    from .output import csv_file, write_atomic
    from .plots import figure_files
    from .sensitivityplots import plot_sensitivity, plot_tornado

    verdicts = [found.verdict(k) for k in range(len(found.plan.endpoints))]
    text = "\n".join([repr(found), *verdicts, *found.failures, RESEARCH_ONLY, ""])
    files = {
        out / "sensitivity.csv": csv_file(found.table(), digits=6),
        out / "convergence.csv": csv_file(found.convergence(), digits=6),
        out / "tornado.csv": csv_file(found.tornado_table(), digits=6),
        out / "verdict.txt": text.encode(),
        **figure_files(plot_sensitivity(found), out / "sensitivity"),
        **figure_files(plot_tornado(found), out / "tornado"),
    }
    write_atomic(files)
    return list(files)
