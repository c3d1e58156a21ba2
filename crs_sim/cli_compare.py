"""compare: what might have been done instead."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_profile import PROBLEM_OPTION, file_of_problem, print_columns
from .errors import InputError
from .options import short

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

    if not 0 < level < 1:
        raise InputError(f"--level is {level:g}; give a share between 0 and 1, such as 0.95")
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
    _print(found, level)
    if out is not None:
        _write(found, asked, result, out, level)
    click.echo(RESEARCH_ONLY)


def _draws(options: dict[str, Any], result: Fit) -> Draws | int:
    from .posterior import read_draws

    table = options["table"]
    return options["draws"] if table is None else read_draws(table, result.problem)


def _print(found: Comparison, level: float) -> None:
    """A table an endpoint; what is extrapolated; where the draws come from."""
    table, percent = found.table(level), f"{100 * level:g} %"
    head = ["", "median", percent, f"minus {found.scenarios[0]}", percent, "lower in"]
    for end in found.endpoints:
        rows = table[table["endpoint"] == end.name].to_dict("records")
        click.echo(f"{end.label} ({end.name}){_unit(end.unit)}")
        print_columns([head, *(_row(row, first=not n) for n, row in enumerate(rows))])
        click.echo()
    for scenario, text in zip(found.scenarios, found.outside, strict=True):
        if text:
            click.echo(f"* {scenario}: extrapolated: {text}")
    failed = len(found.predictions.ensemble.failures)
    click.echo(f"{found.predictions.source.rstrip('.')}; {failed} runs failed")


def _row(row: Mapping[Hashable, Any], *, first: bool) -> list[str]:
    """A scenario in the table of an endpoint: its level, then draw by draw less what was done."""
    name = f"{row['scenario']}{' *' if row['outside'] else ''}"
    level = [name, short(row["median"]), f"{short(row['low'])} to {short(row['high'])}"]
    if first:
        return [*level, "", "", ""]
    off = f"{short(row['difference_low'])} to {short(row['difference_high'])}"
    return [*level, short(row["difference"]), off, f"{100 * row['chance_lower']:.0f} % of draws"]


def _unit(unit: str) -> str:
    from .units import pretty

    told = " * ".join(pretty(part) for part in unit.split(" * "))
    return "" if told in ("", "1") else f", {told}"


def _write(
    found: Comparison, asked: Questions, result: Fit, out: Path, level: float
) -> None:
    from .comparisonplots import plot_comparison
    from .output import write_whole
    from .plots import figure_file

    title = f"{result.problem.name}: what was done, and what might have been"
    figure = plot_comparison(found, courses=asked.courses, level=level, title=title)
    text = found.table(level).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    ledger = _ledger(found).to_csv(index=False, lineterminator="\n")
    files = {out / "comparison.csv": text.encode(), out / "ledger.csv": ledger.encode()}
    for suffix in (".png", ".svg"):
        files[out / f"comparison{suffix}"] = figure_file(figure, f"comparison{suffix}")
    write_whole(files)
    for path in files:
        click.echo(f"wrote {path}")


def _ledger(found: Comparison) -> pd.DataFrame:
    """Every dose given or held at the estimates, under every scenario."""
    import pandas as pd

    parts = [run.ledger.table().assign(scenario=run.scenario.name) for run in found.runs]
    return pd.concat(parts, ignore_index=True)
