"""Files written whole or not at all: every one lies complete beside its place before it gets there.

A simulation becomes a plain table, and beside it what its columns mean and how it was made.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import RESEARCH_ONLY
from .errors import StorageError
from .ledger import COLUMNS, Ledger
from .simulation import Simulation
from .units import pretty

if TYPE_CHECKING:
    import pandas as pd


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write these files; should one of them fail, none is there.

    Folders that are missing are made. A file that is there already is replaced.

    Raises
    ------
    StorageError
        Naming the file that cannot be written.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    path = Path()
    try:
        for path, content in files.items():
            if path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{path}  cannot be written: {reason}; choose another place") from None
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown(("a", "b"), [("1", "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\\|y |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def json_file(content: Mapping[str, Any]) -> bytes:
    """A mapping as the content of a JSON file."""
    return (json.dumps(content, indent=1) + "\n").encode()


def csv_file(table: pd.DataFrame, digits: int | None = None) -> bytes:
    """A table as the content of a CSV file; numbers with all their digits, unless it is said."""
    shown = None if digits is None else f"%.{digits}g"
    text: str = table.to_csv(index=False, float_format=shown, lineterminator="\n")
    return text.encode()


def table_files(
    sim: Simulation, path: str | Path, about: Mapping[str, object]
) -> dict[Path, bytes]:
    """A run as the files of `write_whole`: a CSV, and ``<path>.meta.json`` beside it.

    The CSV has a column ``day``, then one for each state and named quantity, with their ids. The
    other file has their units and labels, the model's hash, the parameter values, what the solver
    did, and ``about``. Of a scenario with triggers or holds comes ``<path>.ledger.csv`` as well:
    every dose given or held, and why.

    Parameters
    ----------
    path : of the CSV
    about : what else to note, such as versions and options; must go into JSON
    """
    path = Path(path)
    columns = sim.model.course_ids
    meta = {
        "note": RESEARCH_ONLY,
        "model": {"name": sim.model.name, "hash": sim.model.hash},
        "scenario": sim.scenario.name,
        "units": {"day": "day", **{name: pretty(sim.model[name].unit) for name in columns}},
        "labels": {"day": "day after infusion", **{n: sim.model[n].label for n in columns}},
        "parameters": sim.model.values,
        "doses": len(sim.ledger.given),
        "solver": sim.solver._asdict(),
        **about,
    }
    ledger = path.with_name(f"{path.name}.ledger.csv")
    return {
        path: csv_text(sim).encode(),
        **({} if sim.scenario.decided else {ledger: ledger_text(sim.ledger).encode()}),
        path.with_name(f"{path.name}.meta.json"): json_file(meta),
    }


def csv_text(sim: Simulation) -> str:
    """The table of a run as CSV, numbers with all their digits.

    Written here, since loading pandas takes longer than everything else about a table.
    """
    header = ",".join(("day", *sim.model.course_ids))
    rows = np.column_stack([sim.days, sim.states, sim.quantities]).tolist()
    return "\n".join([header, *(",".join(map(repr, row)) for row in rows), ""])


def ledger_text(ledger: Ledger) -> str:
    """A ledger as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row.values() for row in ledger.rows()])
    return text.getvalue()


def check_folder(folder: str | Path) -> None:
    """Refuse, before long work, a folder that cannot be made or written to.

    Raises
    ------
    StorageError
        Naming the folder; nothing is left behind.
    """
    path = Path(folder)
    nearest = next(p for p in (path, *path.resolve().parents) if p.exists())
    if not nearest.is_dir():
        raise StorageError(f"{path}  cannot be a folder: {nearest} is a file; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"{path}  cannot be written: {nearest} is not ours; choose another")
