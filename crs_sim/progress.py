"""How far a command is: a line on a terminal, or plain lines where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

LINES = 20


def progress_line() -> Progress:
    """A line on the terminal that says how far it is; nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
               TextColumn("{task.completed} of {task.total}  {task.fields[last]}"),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def progress_of(
    progress: Progress, name: str, words: Callable[[Any], str]
) -> Callable[[int, int, Any], None]:
    """A function to be called as (finished, of how many, what) that moves a bar."""
    task = progress.add_task(name, total=None, last="")

    def told(finished: int, total: int, what: Any) -> None:
        progress.update(task, completed=finished, total=total, last=words(what))
        if not progress.console.is_terminal:
            click.echo(f"{name}: {finished} of {total}, {words(what)}", err=True)

    return told


def now_and_then(progress: Progress, name: str) -> Callable[[int, int], None]:
    """As `progress_of`, called as (finished, of how many): where there is no terminal, some
    twenty lines.
    """
    tell, last = progress_of(progress, name, str), 0

    def told(finished: int, total: int) -> None:
        nonlocal last
        often = progress.console.is_terminal or finished - last >= total / LINES
        if often or finished == total:
            tell(finished, total, f"{100 * finished / total:.0f} %")
            last = finished

    return told
