"""Options and helpers shared by several commands: problem, output folder, workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .errors import CrsSimError, InputError

PROBLEM_OPTION = click.option(
    "--problem", metavar="PROBLEM", help="The problem of the run  [default: found from its folder]"
)
OUT_OPTION = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Output folder  [default: the run's folder]",
)  # fmt: skip


def workers_options(what: str, on_cluster: str = "") -> Callable[..., Any]:
    """Add --workers and --cluster, passed on as one ``workers``: a number, an address, or None.

    Parameters
    ----------
    what : str, the kind of local workers: Threads, Processes
    on_cluster : str, note on work that is not done on the cluster, if any
    """

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--workers", type=int, help=f"{what}  [default: one for each core]")
        @click.option(
            "--cluster",
            default="",
            metavar="ADDRESS",
            help=f"Use a Dask cluster instead: tcp://host:8786.{on_cluster}",
        )
        @wraps(command)
        def run(*, workers: int | None, cluster: str, **options: Any) -> Any:
            if cluster and workers is not None:
                raise InputError("--workers  is for this machine; leave it out with --cluster")
            return command(workers=cluster or workers, **options)

        return run

    return added


def folder_of(run: str) -> Path:
    """The folder for files that are added to a run."""
    from .shipped import results_folder
    from .storage import load_run

    return results_folder(load_run(run).path)


def file_of_problem(run: str, name: str, option: str) -> Path:
    """The path of a file beside a run or beside its problem, such as its scenarios.toml."""
    from .storage import load_run, problem_of

    stored = load_run(run)
    folder = stored.path
    for above in (folder, *folder.resolve().parents[:2]):
        if (above / name).is_file():
            return above / name
    with suppress(CrsSimError):  # a run that was written elsewhere, with --out
        problem = problem_of(stored).path
        if problem and (beside := Path(problem).parent / name).is_file():
            return beside
    raise InputError(f"{folder}  has no {name} beside it; write one (see the README) or name it "
                     f"with {option}")  # fmt: skip
