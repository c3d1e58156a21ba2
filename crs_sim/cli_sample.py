"""The command that samples a posterior."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .progress import now_and_then, print_columns, print_written, progress_line

if TYPE_CHECKING:
    from .posterior import Posterior
    from .problem import FitProblem
    from .sampler import Peak
    from .storage import Run

RESULT = "result.json"


@click.command(short_help="Sample the posterior of a problem.", epilog=RESEARCH_ONLY)
@click.argument("problem", metavar="PROBLEM|RUN")
@click.option("--draws", default=500, show_default=True,
              help="Of each walker, warm-up included.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where draws, tables, figures and posterior.md go.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the run in FOLDER, up to --draws.")
@click.option("--walkers", type=int, help="In each group  [default: 2.4 a free parameter]")
@click.option("--groups", default=4, show_default=True, help="Independent groups of walkers.")
@click.option("--seed", type=int, help="[default: the problem's]")
@click.option("--workers", type=int, help="Threads  [default: one for each core]")
def sample(problem: str, out: Path, resume: bool, workers: int | None, **size: Any) -> None:
    """Sample the posterior of PROBLEM, around its latest fit, or around that of a RUN.

    Draws are kept in FOLDER/chain as they are made. Whatever ends the command, --resume goes on
    from there, with the numbers of a run that was never interrupted.
    """
    from .output import check_folder
    from .posterior import CHAIN, SamplePlan
    from .posteriorreport import write_posterior
    from .sampler import sample as draw

    asked, run = problem_and_run(problem)
    seed = asked.seed if size["seed"] is None else size["seed"]
    plan = SamplePlan(**{**size, "seed": seed})
    check_folder(out)
    with progress_line() as progress:
        told = now_and_then(progress, f"{asked.name}: draws", "ln posterior {:.1f}".format)
        question = asked if resume or run is None else peak(asked, run)
        found = draw(question, plan, folder=out / CHAIN, resume=resume, workers=workers,
                     progress=told)  # fmt: skip
    written = write_posterior(found, out)
    print_posterior(found)
    print_written(written)


def problem_and_run(name: str) -> tuple[FitProblem, Run | None]:
    """What to sample, and the fit of it to start from, if there is one of the same model.

    A patient without a problem.toml is asked with the prior of that fit; else with the model's.
    """
    from .errors import StorageError, UnknownNameError
    from .problem import load_problem, patient_at
    from .storage import load_run, problem_of

    try:
        run = load_run(name)
        asked = problem_of(run)
        run.refuse_other(asked.model)
    except (StorageError, UnknownNameError) as error:
        if (Path(name) / RESULT).is_file():  # <problem>/runs/<run>: nothing else can be meant
            raise
        asked = load_problem(name)
        told = "" if patient_at(name) is None else \
            ", with the model's own prior (for another, fit first: crs-sim fit --prior)"
        click.echo(f"No fit to start from, so one is made first{told} ({error}).", err=True)
        return asked, None
    return asked, run


def peak(problem: FitProblem, run: Run) -> Peak:
    """Where the run found the posterior to be high."""
    from .sampler import peak_of

    starts = [(start["cost"], start["values"]) for start in run.result["starts"]]
    return peak_of(problem, run.values, run.covariance, starts)


def print_posterior(found: Posterior) -> None:
    """Quantiles, R-hat and effective draws of each parameter, then the verdict."""
    from .posteriorreport import COLUMNS, summary_words

    rows = [summary_words(row)[:-1] for row in found.summary().to_dict("records")]
    print_columns([COLUMNS[:-1], *rows], right=True)
    click.echo(f"\n{found.runs} runs, {found.failed_runs} failed")
    click.echo(found.verdict)
