"""The scenarios of the public suite nmtests, run as data sets, and compared row by row.

The suite (mrgsolve/nmtests, commit 5235a69) is not part of this repository: a folder holds its data
set ``1001.csv``, NONMEM 7.5.1's table ``1001.tab`` and the names of the scenarios,
``1001-run-key.csv``. Instead of a table the data set may have a column ``cp`` with the published
values, as nmtest of the R package nlmixr2data (NONMEM 7.4.3), written with
``write.csv(nlmixr2data::nmtest, "nmtest.csv", row.names = FALSE, na = ".")``.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crs_sim.fitting.datasets import run_study
from crs_sim.model import load_model
from crs_sim.patients import read_nonmem

from .closed_form import V, amounts

CONTROL_STREAM = {"cl": 1.1 * 24, "v": 20.0, "ka": 1.5 * 24}
"""CL 1.1 L/h, V 20 L, KA 1.5 per hour, in the model's units."""
SCALE = 1000.0
"""CP is 1000 times the amount over the volume."""
ROUNDING = 5e-5
"""NONMEM's tables have five digits: the largest relative error of their rounding."""
COLUMN_MAP = """
time_unit = "hours"
ignore = ["MODE", "mode", "cp", "CP"]

[drugs]
1 = "oral"
2 = "iv"

[observables]
1 = "c_central"
2 = "c_central"

[covariates]
"""
COLUMNS = {"lagt": "lag_iv", "bioav": "f_iv", "dur2": "d_iv", "rat2": "r_iv"}
"""The parameter of each column: compartment 2 alone has a lag, a share, a duration and a rate."""


@dataclass(frozen=True)
class Suite:
    """A suite: its data set, the published value of every record, and the names of scenarios."""

    path: Path
    published: np.ndarray
    names: dict[str, str]


def suites(folder: Path) -> list[Suite]:
    """The suites in a folder: every data set with a table of its name, or with a column ``cp``."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        table, key = path.with_suffix(".tab"), path.with_name(f"{path.stem}-run-key.csv")
        rows = pd.read_csv(path, dtype=str)
        inside = [name for name in rows.columns if name.lower() == "cp"]
        if table.exists():
            published = pd.read_csv(table, sep=r"\s+", skiprows=1)["CP"].to_numpy(dtype=float)
        elif inside:
            published = pd.to_numeric(rows[inside[0]], errors="coerce").to_numpy(dtype=float)
        else:
            continue
        named = pd.read_csv(key, dtype=str) if key.exists() else pd.DataFrame()
        names = dict(zip(named["ID"], named["descr"], strict=True)) if len(named) else {}
        found.append(Suite(path, published, names))
    return found


def column_map(path: Path) -> str:
    """The map of a suite's data set: the covariates that it has."""
    header = pd.read_csv(path, nrows=0).columns
    known = [name for name in header if name.lower() in COLUMNS]
    lines = [f'{COLUMNS[name.lower()]} = "{name}"' for name in known]
    return COLUMN_MAP + "\n".join(lines) + "\n"


def predicted(path: Path) -> pd.DataFrame:
    """One row per record of a data set: ID, TIME, EVID, and the predicted CP."""
    model = load_model("one_compartment").with_values(**CONTROL_STREAM, f_oral=1.0, lag_oral=0.0)
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "map.toml")
        words.write_text(column_map(path), encoding="utf-8")
        run = run_study(model, read_nonmem(path, model, columns=words), rtol=1e-9)
    table = run.table[["ID", "row", "TIME", "EVID"]].copy()
    table["predicted"] = SCALE * run.table["c_central"]
    return table


def exact(path: Path) -> np.ndarray:
    """The closed form of CP at every record of a data set."""
    rows = pd.read_csv(path, na_values=".")
    rows.columns = [name.lower() for name in rows.columns]
    parts = [SCALE * amounts(part) / V for _, part in rows.groupby("id", sort=False)]
    return np.concatenate(parts)


def compared(suite: Suite) -> pd.DataFrame:
    """The records of a suite: predicted, published and exact values, and relative differences."""
    table = predicted(suite.path)
    place = table["row"].to_numpy(dtype=int) - 2
    table["published"] = suite.published[place]
    table["exact"] = exact(suite.path)[place]
    table = table[np.isfinite(table["published"])].copy()
    table["difference"] = relative(table["predicted"], table["published"])
    table["from_exact"] = relative(table["predicted"], table["exact"])
    return table


def relative(predicted: pd.Series, published: pd.Series) -> pd.Series:
    """The difference relative to the published value; where that is 0, to 1e-4 of the largest.

    With `ROUNDING` a published 0 is then met within 5e-9 of the largest value: records of one time
    are some nanodays apart.
    """
    scale = published.abs().where(published != 0.0, 1e-4 * published.abs().max())
    return (predicted - published).abs() / scale


def verdicts(suite: Suite) -> pd.DataFrame:
    """One row per scenario: records that differ from the published, the largest differences."""
    rows = []
    for id, part in compared(suite).groupby("ID", sort=False):
        off = part[part["difference"] > ROUNDING]
        rows.append({
            "scenario": id.removesuffix(".0"), "what": suite.names.get(id, ""),
            "records": len(part), "records_off": len(off),
            "largest_difference": f"{part['difference'].max():.1e}",
            "times_off": " ".join(off["TIME"].head(8)),
            "from_closed_form": f"{part['from_exact'].max():.1e}",
            "verdict": _verdict(len(off), part["from_exact"].max()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _verdict(off: int, from_exact: float) -> str:
    """As published; or, where the published values are not, as the closed form; or wrong."""
    if not off:
        return "as published"
    return "as the closed form, not as published" if from_exact <= ROUNDING else "wrong"
