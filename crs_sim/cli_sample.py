"""The sample command: draw from the posterior of a problem by MCMC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .options import print_columns, print_written, progress_line, throttled_progress

if TYPE_CHECKING:
    from .posterior import Posterior
    from .problem import FitProblem
    from .sampler import PosteriorMode
    from .storage import Run

RESULT = "result.json"


@click.command(short_help="Sample the posterior of a problem.", epilog=RESEARCH_ONLY)
@click.argument("problem", metavar="PROBLEM|RUN")
@click.option("--draws", default=500, show_default=True,
              help="Draws of each walker, including warm-up.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder of draws, tables, figures and posterior.md.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume the run in FOLDER, up to --draws.")
@click.option("--walkers", type=int,
              help="Walkers in each group  [default: 2.4 per free parameter]")  # fmt: skip
@click.option("--groups", default=4, show_default=True, help="Independent groups of walkers.")
@click.option("--seed", type=int, help="Random seed  [default: the problem's]")
@click.option("--workers", type=int, help="Threads  [default: one for each core]")
def sample(problem: str, out: Path, resume: bool, workers: int | None, **size: Any) -> None:
    """Sample the posterior of PROBLEM, starting around its latest fit, or around a RUN.

    Draws are saved to FOLDER/chain as they are made. After an interruption, --resume continues,
    with the same numbers as an uninterrupted run.
    """
    from .output import check_folder
    from .posterior import CHAIN, SamplePlan
    from .sampler import sample as draw
    from .summaries import write_posterior

    loaded, run = problem_and_run(problem)
    seed = loaded.seed if size["seed"] is None else size["seed"]
    plan = SamplePlan(**{**size, "seed": seed})
    check_folder(out)
    with progress_line() as progress:
        report = throttled_progress(progress, f"{loaded.name}: draws", "ln posterior {:.1f}".format)
        start = loaded if resume or run is None else peak(loaded, run)
        found = draw(start, plan, folder=out / CHAIN, resume=resume, workers=workers,
                     progress=report)  # fmt: skip
    written = write_posterior(found, out)
    print_posterior(found)
    print_written(written)


def problem_and_run(name: str) -> tuple[FitProblem, Run | None]:
    """The problem to sample, and the fit to start from, if there is one of the same model.

    For a patient without a problem.toml the prior is that of the fit, else the model's.
    """
    from .errors import StorageError, UnknownNameError
    from .problem import load_problem, patient_at
    from .storage import load_run, problem_of

    try:
        run = load_run(name)
        problem = problem_of(run)
        run.refuse_other(problem.model)
    except (StorageError, UnknownNameError) as error:
        if (Path(name) / RESULT).is_file():  # <problem>/runs/<run>: the name is a run
            raise
        problem = load_problem(name)
        prior = (
            ""
            if patient_at(name) is None
            else ", with the model's own prior (for another, fit first: crs-sim fit --prior)"
        )
        click.echo(f"No fit to start from, so one is made first{prior} ({error}).", err=True)
        return problem, None
    return problem, run


def peak(problem: FitProblem, run: Run) -> PosteriorMode:
    """The optimum and covariance of a run, from which the walkers start."""
    from .sampler import posterior_mode

    starts = [(start["cost"], start["values"]) for start in run.result["starts"]]
    return posterior_mode(problem, run.values, run.covariance, starts)


def print_posterior(found: Posterior) -> None:
    """Print quantiles, R-hat and effective draws of each parameter, then the verdict."""
    from .summaries import COLUMNS, summary_words

    rows = [summary_words(row)[:-1] for row in found.summary().to_dict("records")]
    print_columns([COLUMNS[:-1], *rows], right=True)
    click.echo(f"\n{found.runs} runs, {found.failed_runs} failed")
    click.echo(found.verdict)
