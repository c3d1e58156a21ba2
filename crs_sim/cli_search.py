"""search: which schedule to choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_options import PROBLEM_OPTION, file_of_problem, workers_options
from .errors import InputError
from .options import short
from .progress import now_and_then, print_columns, print_written, progress_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from .cluster import Workers
    from .comparison import Comparison
    from .fitting import Fit
    from .searching import Search

FIT, PRIOR = "draws of the fit", "virtual patients of the prior"


@click.command(short_help="Which schedule to choose.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    metavar="SEARCH.toml",
    help="What may be chosen and is weighed  [default: search.toml of the problem]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where tables, figure and chosen.toml go, and trials as they are made.",
)
@click.option("--resume", is_flag=True, help="Go on with the trials in FOLDER.")
@click.option(
    "--choose",
    type=int,
    metavar="TRIAL",
    help="Of chosen.toml  [default: that of the front nearest to its corner]",
)
@click.option(
    "--draws",
    default=200,
    show_default=True,
    help="Of the Laplace approximation, weighted, for the front; 0 for none.",
)
@click.option("--from", "table", type=click.Path(path_type=Path), metavar="DRAWS.csv",
              help="Draws of a posterior instead, as crs-sim sample writes them.")  # fmt: skip
@click.option("--patients", default=0, show_default=True,
              help="Virtual patients of the problem's prior, for the front.")  # fmt: skip
@workers_options("Threads", " Trials go there; draws on the front run in threads here.")
@PROBLEM_OPTION
def search(
    run: str, space: Path | None, out: Path, resume: bool, workers: Workers, **options: Any
) -> None:
    """Search schedules for the patient of RUN: the front between two endpoints.

    Each schedule is tried at the estimates; those of the front are then run with draws of the
    parameters, and beside what was done. Trials are kept as they are made, so --resume goes on
    after whatever ended the command.
    """
    from .output import check_folder
    from .searchfile import SEARCH, load_search
    from .searchfiles import CHOSEN
    from .searching import search as look
    from .storage import load_fit

    for name in ("draws", "patients"):
        if options[name] < 0:
            raise InputError(f"--{name} is {options[name]}; give 0 or more")
    result = load_fit(run, options["problem"])
    file = space or file_of_problem(run, SEARCH, "--space")
    question = load_search(file, result.problem.patient.scenario, result.model)
    check_folder(out)
    with progress_line() as line:
        found = look(result, question, folder=out, resume=resume, workers=workers,
                     progress=now_and_then(line, "trials"))  # fmt: skip
        chosen = found.best if options["choose"] is None else options["choose"]
        found.scenario(chosen)  # refuses one that is not there
        here = None if isinstance(workers, str) else workers
        comparisons = _drawn(result, found, chosen, options, here, line)
    _print(found, chosen)
    _print_outside(comparisons, f"trial {chosen}")
    print_written(_write(found, chosen, comparisons, out, result))
    click.echo(f"See it in full: crs-sim compare RUN --scenarios {out / CHOSEN}")


def _drawn(
    result: Fit, found: Search, chosen: int, options: dict[str, Any], workers: int | None,
    line: Progress,
) -> dict[str, Comparison]:  # fmt: skip
    """The front under draws of the fit, and in virtual patients, as far as they are asked for."""
    from .posterior import read_draws
    from .ranges import prior_draws
    from .searching import drawn, spaced

    trials = spaced(found.front, chosen)
    asked: dict[str, Any] = {}
    if options["table"] is not None:
        asked[FIT] = read_draws(options["table"], result.problem)
    elif options["draws"]:
        asked[FIT] = options["draws"]
    if options["patients"]:
        asked[PRIOR] = prior_draws(result, options["patients"], seed=found.question.plan.seed)
    return {
        who: drawn(result, found, trials, draws=draws, workers=workers,
                   progress=now_and_then(line, who))
        for who, draws in asked.items()
    }  # fmt: skip


def _print(found: Search, chosen: int) -> None:
    """The front, the chosen one marked, and what was done below it."""
    question = found.question
    ends = [e.name for e in question.objectives]
    rows = [[f"{'>' if t == chosen else ' '} {t}", *map("{:g}".format, found.points[t]),
             *map(short, found.values[t])] for t in found.front]  # fmt: skip
    head = ["  trial", *(v.name for v in question.variables), *ends]
    units = ["", *(v.unit for v in question.variables), *(e.unit for e in question.objectives)]
    given = ["  as given", *("" for _ in question.variables), *map(short, found.given)]
    print_columns([head, units, *rows, given])
    click.echo(f"\n{found.verdict()}")
    for trial, text in list(found.failures.items())[:5]:
        click.echo(f"trial {trial} failed: {text}")


def _print_outside(comparisons: dict[str, Comparison], name: str) -> None:
    """Where the chosen schedule leads out of what the data informed, and where draws are from."""
    for seen in comparisons.values():
        text = seen.outside[seen.scenarios.index(name)]
        if text:
            click.echo(f"{name}: extrapolated: {text}")
            break
    for seen in comparisons.values():
        failed = len(seen.predictions.ensemble.failures)
        click.echo(f"{seen.predictions.source}; {failed} runs failed")


def _write(
    found: Search, chosen: int, comparisons: dict[str, Comparison], out: Path, result: Fit
) -> list[Path]:
    from .output import write_whole
    from .plots import figure_files
    from .searchfiles import search_files
    from .searchplots import plot_front

    files = search_files(found, chosen, comparisons=comparisons, folder=out)
    title = f"{result.problem.name}: schedules tried, and the front"
    first = next(iter(comparisons.values()), None)
    figure = plot_front(found, first, chosen=chosen, title=title)
    files |= figure_files(figure, out / "pareto")
    write_whole(files)
    return list(files)
