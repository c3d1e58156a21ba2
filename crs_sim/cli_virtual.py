"""population: virtual patients under scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_profile import print_columns
from .cli_workers import workers_options

if TYPE_CHECKING:
    from .populationparts import Results


@click.command(short_help="Run virtual patients under scenarios.", epilog=RESEARCH_ONLY)
@click.argument("population")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where results go as they are made; then population.md.")  # fmt: skip
@click.option("--number", type=int, help="Patients drawn  [default: as POPULATION says]")
@click.option("--seed", type=int, help="[default: as POPULATION says]")
@click.option("--resume", is_flag=True, help="Go on with what is in FOLDER.")
@workers_options("Threads")
def population(population: str, out: Path, **options: Any) -> None:
    """Draw the virtual patients of POPULATION, run each under every scenario, and report.

    POPULATION is a population.toml, its folder, or a shipped name (crs). Whatever ends the
    command, --resume goes on from there, with the numbers of a run that was never interrupted.
    """
    from .populationfile import load_study, with_number
    from .populationreport import write_population
    from .populationrun import run_population
    from .progress import now_and_then, progress_line

    study = with_number(load_study(population), options.pop("number"), options.pop("seed"))
    with progress_line() as line:
        results = run_population(study, out, progress=now_and_then(line, "patients"), **options)
    written = write_population(results)
    print_summary(results)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)


def print_summary(results: Results) -> None:
    """Who was kept, what each filter rejects, and the worst grades."""
    from .populationreport import who
    from .populationtables import Summary

    summary = Summary(results)
    for text in who(summary):
        click.echo(text)
    for row in summary.rejected().itertuples():
        click.echo(f"  {row.filter}: rejects {row.rejected} of {row.of}")
    if summary.graded:
        table = summary.grades().drop(columns="patients")
        head = ["worst grade, % of patients", *(n.replace("grade_", "").replace("_", " ")
                                                for n in table.columns[1:])]  # fmt: skip
        rows = [[str(row[0]), *(f"{100 * x:.1f}" for x in row[1:])]
                for row in table.itertuples(index=False)]  # fmt: skip
        click.echo()
        print_columns([head, *rows])
