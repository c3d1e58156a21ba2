"""A simulation as a CSV table, with a JSON file of metadata: units, labels, provenance."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import RESEARCH_ONLY
from .ledger import COLUMNS, Ledger
from .output import json_file
from .simulation import Simulation
from .units import pretty


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
