"""What a command shows: how far it is, then tables, and what was written."""

# Bars and tables on a terminal are rich's; ours is what to say where there is none, since
# rich then says nothing, and wraps rows that are long.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import RESEARCH_ONLY

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LINES = 20
WIDE = 118


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


def now_and_then(
    progress: Progress, name: str, words: Callable[[Any], str] = str
) -> Callable[..., None]:
    """As `progress_of`, called as (finished, of how many) or with what as well: where there is no
    terminal, some twenty lines.
    """
    tell, last = progress_of(progress, name, words), 0

    def told(finished: int, total: int, *what: Any) -> None:
        nonlocal last
        often = progress.console.is_terminal or finished - last >= total / LINES
        if often or finished == total:
            tell(finished, total, *what or (f"{100 * finished / total:.0f} %",))
            last = finished

    return told


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; misses stand out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = "bold red" if "miss" in row else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    screen().print(table)


def print_columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """A plain table; the first row is its head. To the left, or to the right but for the first."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = [str.ljust, *[str.rjust if right else str.ljust] * (len(widths) - 1)]
    for row in rows:
        cells = (pad(cell, n) for pad, cell, n in zip(sides, row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def screen() -> Console:
    """Standard output; wide enough for our tables where nobody said how wide it is."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def print_written(files: Iterable[Path]) -> None:
    """What was written, and what it is for."""
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)
