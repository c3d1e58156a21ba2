"""compare: what might have been done instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_profile import PROBLEM_OPTION, file_of_problem, print_columns

if TYPE_CHECKING:
    import pandas as pd

    from .comparison import Comparison
    from .draws import Draws
    from .fitting import Fit
    from .scenariofile import Questions


@click.command(short_help="What might have been done instead.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--scenarios", "file", type=click.Path(path_type=Path), metavar="SCENARIOS.toml",
              help="What to compare  [default: scenarios.toml of the problem]")  # fmt: skip
@click.option("--draws", default=400, show_default=True,
              help="Of the Laplace approximation, weighted.")  # fmt: skip
@click.option("--from", "table", type=click.Path(path_type=Path), metavar="DRAWS.csv",
              help="Draws of a posterior instead, as crs-sim sample writes them.")  # fmt: skip
@click.option("--level", default=0.95, show_default=True, help="Of intervals and bands.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where comparison.csv and the figure go  [default: print only]")  # fmt: skip
@click.option("--workers", type=int, help="Threads  [default: one for each core]")
@PROBLEM_OPTION
def compare(
    run: str, file: Path | None, level: float, out: Path | None, workers: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Compare what was done to the patient of RUN with what might have been done.

    RUN is a fit, or a problem: then its latest fit. The same draws of the parameters run under
    every scenario, so that differences are within one patient. The first row is what was done.
    """
    from .comparison import compare as run_compare
    from .ensemble import EVERY_HOURS, Sampling
    from .output import check_folder
    from .progress import progress_line
    from .scenariofile import SCENARIOS, load_scenarios
    from .storage import load_fit

    if out is not None:
        check_folder(out)
    result = load_fit(run, options["problem"])
    path = file or file_of_problem(run, SCENARIOS, "--scenarios")
    asked = load_scenarios(path, result.problem.patient.scenario, result.model)
    with progress_line() as line:
        task = line.add_task("draws", total=None, last="")
        found = run_compare(
            result, asked.scenarios, asked.endpoints, draws=_draws(options, result),
            sampling=Sampling(until=asked.until, every_hours=EVERY_HOURS), workers=workers,
            progress=lambda done, total: line.update(task, completed=done, total=total),
        )  # fmt: skip
    _print(found)
    if out is not None:
        _write(found, asked, result, out, level)
    click.echo(RESEARCH_ONLY)


def _draws(options: dict[str, Any], result: Fit) -> Draws | int:
    from .posterior import read_draws

    table = options["table"]
    return options["draws"] if table is None else read_draws(table, result.problem)


def _print(found: Comparison) -> None:
    """Medians; what is extrapolated; where the draws come from."""
    medians = found.medians()
    names = [e.name for e in found.endpoints]
    rows = [[str(name), *(f"{x:.3g}" for x in row)]
            for name, row in zip(medians.index, medians.to_numpy(), strict=True)]  # fmt: skip
    print_columns([["median", *names], ["", *(e.unit for e in found.endpoints)], *rows])
    click.echo()
    for scenario, text in zip(found.scenarios, found.outside, strict=True):
        if text:
            click.echo(f"{scenario}: extrapolated: {text}")
    failed = len(found.predictions.ensemble.failures)
    click.echo(f"{found.predictions.source.rstrip('.')}; {failed} runs failed")


def _write(
    found: Comparison, asked: Questions, result: Fit, out: Path, level: float
) -> None:
    from .comparisonplots import plot_comparison
    from .output import csv_file, write_whole
    from .plots import figure_files

    title = f"{result.problem.name}: what was done, and what might have been"
    figure = plot_comparison(found, courses=asked.courses, level=level, title=title)
    files = {out / "comparison.csv": csv_file(found.table(level), digits=6)}
    ledger = _ledger(found)
    if ledger is not None:
        files[out / "ledger.csv"] = csv_file(ledger)
    files |= figure_files(figure, out / "comparison")
    write_whole(files)
    for path in files:
        click.echo(f"wrote {path}")


def _ledger(found: Comparison) -> pd.DataFrame | None:
    """Every dose given or held at the estimates, under the scenarios that decide as they go."""
    import pandas as pd

    parts = [
        run.ledger.table().assign(scenario=run.scenario.name)
        for run in found.runs
        if not run.scenario.decided
    ]
    return pd.concat(parts, ignore_index=True) if parts else None
