"""Terminal output of the commands: progress, tables, and the list of written files."""

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
    """A progress bar on the terminal; disabled if there is no terminal."""
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
    """A callback (finished, total, latest item) that updates a progress bar.

    Without a terminal it writes one line per call.
    """
    task = progress.add_task(name, total=None, last="")

    def report(finished: int, total: int, item: Any) -> None:
        progress.update(task, completed=finished, total=total, last=words(item))
        if not progress.console.is_terminal:
            click.echo(f"{name}: {finished} of {total}, {words(item)}", err=True)

    return report


def throttled_progress(
    progress: Progress, name: str, words: Callable[[Any], str] = str
) -> Callable[..., None]:
    """As `progress_of`, with arguments (finished, total) or (finished, total, latest item).

    Without a terminal it writes about `LINES` lines.
    """
    update, last = progress_of(progress, name, words), 0

    def report(finished: int, total: int, *item: Any) -> None:
        nonlocal last
        due = progress.console.is_terminal or finished - last >= total / LINES
        if due or finished == total:
            update(finished, total, *item or (f"{100 * finished / total:.0f} %",))
            last = finished

    return report


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table; rows with the verdict "miss" are red."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = "bold red" if "miss" in row else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    screen().print(table)


def print_columns(rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a plain table with a header row; ``right`` aligns all columns but the first."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    sides = [str.ljust, *[str.rjust if right else str.ljust] * (len(widths) - 1)]
    for row in rows:
        cells = (pad(cell, n) for pad, cell, n in zip(sides, row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def screen() -> Console:
    """Standard output; `WIDE` columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def print_written(files: Iterable[Path]) -> None:
    """Print the files written, and the research-only notice."""
    for path in files:
        click.echo(f"wrote {path}")
    click.echo(RESEARCH_ONLY)
