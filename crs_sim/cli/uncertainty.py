"""The commands `profile`, `leave-one-out` and `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import RESEARCH_ONLY, command
from .options import (
    OUT_OPTION,
    PROBLEM_OPTION,
    folder_of,
    print_columns,
    print_written,
    progress_line,
    throttled_progress,
    workers_options,
)

if TYPE_CHECKING:
    from ..fitting import Fit, FitProblem, Run
    from ..simulation import Workers
    from ..uncertainty import Omission, Posterior, PosteriorMode, Profile


@click.command(short_help="Profile likelihood of each parameter.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--parameter", "names", multiple=True, metavar="NAME",
              help="Only this parameter; repeatable  [default: all free parameters]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume; finished profiles are kept.")
@PROBLEM_OPTION
@OUT_OPTION
@workers_options("Processes")
def profile(
    run: str, names: tuple[str, ...], resume: bool, problem: str | None, out: Path | None,
    workers: Workers,
) -> None:  # fmt: skip
    """Profile the likelihood of each parameter fitted in RUN (or in the latest run of a problem).

    Each parameter is changed in steps and all others are refitted. Each profile is saved when
    finished: after an interruption, continue with --resume.
    """
    from ..fitting import load_fit

    result = load_fit(run, problem)
    folder = out or folder_of(run)
    write_profiles(result, folder, names=names, resume=resume, workers=workers)
    click.echo(RESEARCH_ONLY)


def write_profiles(
    result: Fit, folder: Path, *, names: Sequence[str] = (), resume: bool = False,
    workers: Workers = None,
) -> None:  # fmt: skip
    """Profile a fit, write the results to a folder, and print verdicts and files."""
    from ..reports import add_profiles, better_optima, profile_words
    from ..store import check_log
    from ..uncertainty import FILE, append_profile, profile as run_profiles, read_profiles

    path = folder / FILE
    check_log(path, resume=resume)
    done = read_profiles(path, result)

    def report(finished: int, total: int, one: Profile) -> None:
        append_profile(path, one)
        click.echo(f"profiles: {finished} of {total}, {one.parameter}: {one.verdict}", err=True)

    found = run_profiles(result, names or None, done=done, workers=workers, progress=report)
    every = {p.parameter: p for p in (*done, *found)}
    ordered = [every[name] for name in result.problem.names if name in every]
    written = add_profiles(ordered, folder)
    for text in better_optima(ordered):
        click.secho(f"Warning: {text}.", bold=True)
    columns = ("parameter", "estimate", "95 %", "data only", "verdict")
    print_columns([columns, *(profile_words(p) for p in found)])
    for file in (path, *written):
        click.echo(f"wrote {file}")


@click.command("leave-one-out", short_help="Leave-one-out cross-validation of a fit.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("run")
@click.option("--group", "groups", multiple=True, metavar="ID,ID,...",
              help="Leave these out together; repeatable.")  # fmt: skip
@click.option("--after", type=float, metavar="DAY",
              help="Leave out together all observations after a day.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume; finished refits are kept.")
@PROBLEM_OPTION
@OUT_OPTION
@workers_options("Processes")
def leave_one_out(
    run: str, groups: tuple[str, ...], after: float | None, resume: bool, **options: Any
) -> None:
    """Refit RUN without each of its observations in turn, and predict the one left out.

    With --group or --after, only those groups are left out. Each refit is saved when finished:
    after an interruption, continue with --resume.
    """
    from ..fitting import load_fit
    from ..store import check_log
    from ..uncertainty import append_omission, leave_out, read_omissions

    result = load_fit(run, options["problem"])
    folder = options["out"] or folder_of(run)
    left_out = requested_groups(result, groups, after)
    name = "leave_one_out" if left_out is None else "left_out"
    path = folder / f"{name}.jsonl"
    check_log(path, resume=resume)
    done = read_omissions(path, result)

    def report(finished: int, total: int, omission: Omission) -> None:
        append_omission(path, omission, result)
        label = omission.ids[0] if len(omission.ids) == 1 else f"{len(omission.ids)} observations"
        click.echo(f"left out: {finished} of {total}, {label}", err=True)

    found = leave_out(result, left_out, done=done, workers=options["workers"], progress=report)
    write_left_out(result, found, folder, name)
    click.echo(f"wrote {path}\n{RESEARCH_ONLY}")


def requested_groups(
    result: Fit, groups: Sequence[str], after: float | None
) -> list[list[str]] | None:
    """The groups of ids to leave out together; None if no group is given."""
    from ..errors import InputError

    requested = [[name.strip() for name in text.split(",") if name.strip()] for text in groups]
    if after is not None:
        late = [o.id for o in result.problem.patient.observations if o.until > after]
        if not late:
            raise InputError(
                f"--after {after:g}  there is no observation after that day; give an earlier one"
            )
        requested.append(late)
    return requested or None


def write_left_out(result: Fit, found: Sequence[Omission], folder: Path, name: str) -> None:
    """Write the tables and the figure of the observations left out; print the table."""
    from ..figures import figure_files, plot_left_out
    from ..store import csv_file, level_text, write_atomic
    from ..uncertainty import influence_table, leave_out_table

    table = leave_out_table(result, found)
    files = {folder / f"{name}.csv": csv_file(table),
             folder / "influence.csv": csv_file(influence_table(result)),
             **figure_files(plot_left_out(table), folder / name)}  # fmt: skip
    write_atomic(files)
    head = ("left out", "observation", "observed", "predicted", "error (sd)", "probability",
            "largest shift")  # fmt: skip
    rows = [
        (r.left_out, r.id, level_text(r.observed, 4), level_text(r.predicted, 4),
         "" if r.off_by != r.off_by else f"{r.off_by:+.2f}", f"{r.chance:.2g}",
         f"{r.most_moved} {r.moved_by:+.2f}")
        for r in table.itertuples()
    ]  # fmt: skip
    print_columns([head, *rows])
    for path in files:
        click.echo(f"wrote {path}")


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
    from ..reports import write_posterior
    from ..store import check_folder
    from ..uncertainty import CHAIN, SamplePlan, sample as draw

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
    from ..errors import StorageError, UnknownNameError
    from ..fitting import RESULT, load_problem, load_run, problem_of
    from ..patients import patient_at

    try:
        run = load_run(name)
        problem = problem_of(run)
        run.refuse_other(problem.model)
    except (StorageError, UnknownNameError) as error:
        if (Path(name) / RESULT).is_file():  # <problem>/runs/<run>: the name is a run
            raise
        problem, another = load_problem(name), command("fit", name, "--prior", "PRIOR")
        prior = (
            ""
            if patient_at(name) is None
            else f", with the model's own prior (for another, fit first: {another})"
        )
        click.echo(f"No fit to start from, so one is made first{prior} ({error}).", err=True)
        return problem, None
    return problem, run


def peak(problem: FitProblem, run: Run) -> PosteriorMode:
    """The optimum and covariance of a run, from which the walkers start."""
    from ..uncertainty import posterior_mode

    starts = [(start["cost"], start["values"]) for start in run.result["starts"]]
    return posterior_mode(problem, run.values, run.covariance, starts)


def print_posterior(found: Posterior) -> None:
    """Print quantiles, R-hat and effective draws of each parameter, then the verdict."""
    from ..reports import COLUMNS, summary_words

    rows = [summary_words(row)[:-1] for row in found.summary().to_dict("records")]
    print_columns([COLUMNS[:-1], *rows], right=True)
    click.echo(f"\n{found.runs} runs, {found.failed_runs} failed")
    click.echo(found.verdict)
