"""What several commands share: the options of a run, and where their work is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .errors import CrsSimError, InputError

PROBLEM_OPTION = click.option(
    "--problem", metavar="PROBLEM", help="What the run answers  [default: where it lies]"
)
OUT_OPTION = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where files go  [default: the run's folder]",
)  # fmt: skip


def workers_options(what: str, on_cluster: str = "") -> Callable[..., Any]:
    """Both options, which a command gets as one ``workers``: a number, an address, or None.

    Parameters
    ----------
    what : str, what the workers of this machine are: Threads, Processes
    on_cluster : str, what a cluster does not do, if anything
    """

    def added(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--workers", type=int, help=f"{what}  [default: one for each core]")
        @click.option("--cluster", default="", metavar="ADDRESS",
                      help=f"On a Dask cluster instead: tcp://host:8786.{on_cluster}")
        @wraps(command)
        def run(*, workers: int | None, cluster: str, **options: Any) -> Any:
            if cluster and workers is not None:
                raise InputError("--workers  is of this machine; with --cluster, leave it out")
            return command(workers=cluster or workers, **options)

        return run

    return added


def folder_of(run: str) -> Path:
    """Where goes what is added to a run."""
    from .shipped import outside
    from .storage import load_run

    return outside(load_run(run).path)


def file_of_problem(run: str, name: str, option: str) -> Path:
    """A file that lies beside a run or the problem it answers, such as its scenarios.toml."""
    from .storage import load_run, problem_of

    stored = load_run(run)
    folder = stored.path
    for above in (folder, *folder.resolve().parents[:2]):
        if (above / name).is_file():
            return above / name
    with suppress(CrsSimError):  # a run that was written elsewhere, with --out
        asked = problem_of(stored).path
        if asked and (beside := Path(asked).parent / name).is_file():
            return beside
    raise InputError(f"{folder}  has no {name} beside it, so nothing is asked; write one (see the "
                     f"README) or name it with {option}")  # fmt: skip
