"""Atomic file writing: each file is written under a temporary name, then renamed into place.

A simulation is written as a CSV table and a JSON file of metadata: units, labels, provenance.
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
    """Write these files atomically; if one cannot be written, none is.

    Missing folders are created. An existing file is replaced.

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
    """A table as the content of a CSV file; all digits of numbers unless ``digits`` is given."""
    float_format = None if digits is None else f"%.{digits}g"
    text: str = table.to_csv(index=False, float_format=float_format, lineterminator="\n")
    return text.encode()


def table_files(
    sim: Simulation, path: str | Path, about: Mapping[str, object]
) -> dict[Path, bytes]:
    """The files of a run, for `write_whole`: a CSV, and ``<path>.meta.json`` beside it.

    The CSV has a column ``day``, then one for each state and named quantity, with their ids. The
    metadata are their units and labels, the model's hash, the parameter values, solver statistics
    and ``about``. A scenario with triggers or holds also has ``<path>.ledger.csv``: every dose
    given or held, and why.

    Parameters
    ----------
    path : of the CSV
    about : further metadata, such as versions and options; must be JSON serialisable
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
    """The table of a run as CSV, with all digits of each number.

    Without pandas, which takes longer to import than the table to write.
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
    """Check, before a long computation, that a folder can be created and written to.

    Raises
    ------
    StorageError
        Naming the folder; nothing is created.
    """
    path = Path(folder)
    nearest = next(p for p in (path, *path.resolve().parents) if p.exists())
    if not nearest.is_dir():
        raise StorageError(f"{path}  cannot be a folder: {nearest} is a file; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"{path}  cannot be written: no permission in {nearest}; choose another")
