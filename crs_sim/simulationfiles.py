"""A simulation as a plain table, and beside it what its columns mean and how it was made."""

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
    """The files of a run, for `crs_sim.output.write_whole`: a CSV, and ``<path>.meta.json`` by it.

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
