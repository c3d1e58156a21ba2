"""Where a command's work is done: --workers on this machine, or --cluster on others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from .errors import InputError


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
