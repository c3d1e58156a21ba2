"""A table on the screen: the other door to rich beside how far a command is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 118


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; misses stand out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = "bold red" if "miss" in row else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    screen().print(table)


def screen() -> Console:
    """Standard output; wide enough for our tables where nobody said how wide it is."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
