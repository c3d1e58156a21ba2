"""The commands for fit diagnostics: profile likelihoods and leave-one-out cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .options import OUT_OPTION, PROBLEM_OPTION, folder_of, print_columns, workers_options

if TYPE_CHECKING:
    from .cluster import Workers
    from .fitting import Fit
    from .leaveout import Omission
    from .profiles import Profile


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
    from .storage import load_fit

    result = load_fit(run, problem)
    folder = out or folder_of(run)
    write_profiles(result, folder, names=names, resume=resume, workers=workers)
    click.echo(RESEARCH_ONLY)


def write_profiles(
    result: Fit, folder: Path, *, names: Sequence[str] = (), resume: bool = False,
    workers: Workers = None,
) -> None:  # fmt: skip
    """Profile a fit, write the results to a folder, and print verdicts and files."""
    from .profiles import FILE, append_profile, read_profiles
    from .profiling import profile as run_profiles
    from .report import add_profiles, better_optima, profile_words
    from .runlog import check_log

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
    from .leaveout import leave_out
    from .profiles import append_omission, read_omissions
    from .runlog import check_log
    from .storage import load_fit

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
    from .errors import InputError

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
    from .fitplots import plot_left_out
    from .leaveout import leave_out_table
    from .output import csv_file, write_atomic
    from .plots import figure_files
    from .verdict import influence_table

    table = leave_out_table(result, found)
    files = {folder / f"{name}.csv": csv_file(table),
             folder / "influence.csv": csv_file(influence_table(result)),
             **figure_files(plot_left_out(table), folder / name)}  # fmt: skip
    write_atomic(files)
    head = ("left out", "observation", "observed", "predicted", "error (sd)", "probability",
            "largest shift")  # fmt: skip
    rows = [
        (r.left_out, r.id, f"{r.observed:.4g}", f"{r.predicted:.4g}",
         "" if r.off_by != r.off_by else f"{r.off_by:+.2f}", f"{r.chance:.2g}",
         f"{r.most_moved} {r.moved_by:+.2f}")
        for r in table.itertuples()
    ]  # fmt: skip
    print_columns([head, *rows])
    for path in files:
        click.echo(f"wrote {path}")
