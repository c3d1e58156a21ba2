"""The commands that ask how far a fit can be trusted: profiles, and observations left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY
from .cli_options import OUT_OPTION, PROBLEM_OPTION, folder_of, workers_options
from .progress import print_columns

if TYPE_CHECKING:
    from .cluster import Workers
    from .fitting import Fit
    from .leaveout import Omission
    from .profiles import Profile


@click.command(short_help="What the data tell of each parameter.", epilog=RESEARCH_ONLY)
@click.argument("run")
@click.option("--parameter", "names", multiple=True, metavar="NAME",
              help="Only this one; may be given again  [default: all that are free]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Keep the profiles that are finished already.")
@PROBLEM_OPTION
@OUT_OPTION
@workers_options("Processes")
def profile(
    run: str, names: tuple[str, ...], resume: bool, problem: str | None, out: Path | None,
    workers: Workers,
) -> None:  # fmt: skip
    """Profile the likelihood of each parameter fitted in RUN (or in the latest run of a problem).

    Each is moved step by step and all others are fitted again. Finished ones are kept as they
    come: should it be stopped, go on with --resume.
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
    """Profile a fit into a folder, print the verdicts, and say what was written."""
    from .profilefiles import FILE, append_profile, read_profiles
    from .profiling import profile as run_profiles
    from .report import add_profiles, better_optima, profile_words
    from .runlog import check_new

    path = folder / FILE
    check_new(path, resume=resume)
    done = read_profiles(path, result)

    def told(finished: int, total: int, one: Profile) -> None:
        append_profile(path, one)
        click.echo(f"profiles: {finished} of {total}, {one.parameter}: {one.verdict}", err=True)

    found = run_profiles(result, names or None, done=done, workers=workers, progress=told)
    every = {p.parameter: p for p in (*done, *found)}
    ordered = [every[name] for name in result.problem.names if name in every]
    written = add_profiles(ordered, folder)
    for text in better_optima(ordered):
        click.secho(f"Take care: {text}.", bold=True)
    columns = ("parameter", "estimate", "95 %", "the data alone", "verdict")
    print_columns([columns, *(profile_words(p) for p in found)])
    for file in (path, *written):
        click.echo(f"wrote {file}")


@click.command("leave-one-out", short_help="What the others foretell of each observation.",
               epilog=RESEARCH_ONLY)  # fmt: skip
@click.argument("run")
@click.option("--group", "groups", multiple=True, metavar="ID,ID,...",
              help="Leave these out together; may be given again.")  # fmt: skip
@click.option("--after", type=float, metavar="DAY",
              help="Leave out together all that was observed after a day.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Keep those that are finished already.")
@PROBLEM_OPTION
@OUT_OPTION
@workers_options("Processes")
def leave_one_out(
    run: str, groups: tuple[str, ...], after: float | None, resume: bool, **options: Any
) -> None:
    """Fit RUN again without each of its observations in turn, and foretell the one left out.

    With --group or --after, only those groups are left out. Finished ones are kept as they come:
    should it be stopped, go on with --resume.
    """
    from .leaveout import leave_out
    from .profilefiles import append_omission, read_omissions
    from .runlog import check_new
    from .storage import load_fit

    result = load_fit(run, options["problem"])
    folder = options["out"] or folder_of(run)
    asked = groups_asked(result, groups, after)
    name = "leave_one_out" if asked is None else "left_out"
    path = folder / f"{name}.jsonl"
    check_new(path, resume=resume)
    done = read_omissions(path, result)

    def told(finished: int, total: int, omission: Omission) -> None:
        append_omission(path, omission, result)
        said = omission.ids[0] if len(omission.ids) == 1 else f"{len(omission.ids)} observations"
        click.echo(f"left out: {finished} of {total}, {said}", err=True)

    found = leave_out(result, asked, done=done, workers=options["workers"], progress=told)
    write_left_out(result, found, folder, name)
    click.echo(f"wrote {path}\n{RESEARCH_ONLY}")


def groups_asked(
    result: Fit, groups: Sequence[str], after: float | None
) -> list[list[str]] | None:
    """The groups of ids to leave out together; None if none was asked for."""
    from .errors import InputError

    asked = [[name.strip() for name in text.split(",") if name.strip()] for text in groups]
    if after is not None:
        late = [o.id for o in result.problem.patient.observations if o.until > after]
        if not late:
            raise InputError(f"--after {after:g}  nothing was observed after that day")
        asked.append(late)
    return asked or None


def write_left_out(result: Fit, found: Sequence[Omission], folder: Path, name: str) -> None:
    """Write table and figures of what was left out; print the table."""
    from .influence import influence_table
    from .leaveout import leave_out_table
    from .output import csv_file, write_whole
    from .plots import figure_files
    from .profileplots import plot_left_out

    table = leave_out_table(result, found)
    files = {folder / f"{name}.csv": csv_file(table),
             folder / "influence.csv": csv_file(influence_table(result)),
             **figure_files(plot_left_out(table), folder / name)}  # fmt: skip
    write_whole(files)
    head = ("left out", "observation", "observed", "foretold", "off by (sd)", "chance",
            "moves most")  # fmt: skip
    rows = [
        (r.left_out, r.id, f"{r.observed:.4g}", f"{r.predicted:.4g}",
         "" if r.off_by != r.off_by else f"{r.off_by:+.2f}", f"{r.chance:.2g}",
         f"{r.most_moved} {r.moved_by:+.2f}")
        for r in table.itertuples()
    ]  # fmt: skip
    print_columns([head, *rows])
    for path in files:
        click.echo(f"wrote {path}")
