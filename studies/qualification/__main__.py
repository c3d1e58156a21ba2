"""python -m studies.qualification FOLDER: the model beside published cohorts and real patients."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from crs_sim import CrsSimError

from . import forecast, refit, rows
from .checks import all_checks
from .cohort import Cohort, read_cohort
from .design import PATIENTS, PRODUCTS
from .figure import save_figure
from .published import targets
from .report import page
from .virtual import Virtual, simulate_cohort

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data" / "cd22"
PARTS = ("rows", "refit", "forecast")


def main() -> None:
    """Run the parts asked for; write tables, figure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.qualification", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA, help="of the CD22 patients")
    parser.add_argument("--patients", type=int, default=PATIENTS, help="virtual, of each cohort")
    parser.add_argument("--only", choices=PARTS, action="append", help="some of the parts")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    cohort, parts = read_cohort(options.folder), options.only or PARTS
    options.out.mkdir(parents=True, exist_ok=True)
    found, fitted, foreseen = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    if "rows" in parts:
        found = timed("rows", lambda: all_rows(cohort, options.patients))
        write(options.out / "rows.csv", found)
        save_figure(found, options.out / "rows.png")
    if "refit" in parts:
        fitted = timed("refit", lambda: refit.refits(cohort, PRODUCTS["cd22"], options.workers))
        write(options.out / "patients.csv", fitted)
    if "forecast" in parts:
        foreseen = timed("forecast", lambda: forecast.forecasts(cohort, PRODUCTS["cd22"],
                                                                options.workers))  # fmt: skip
        write(options.out / "forecast.csv", foreseen)
    whole = [read(options.out / f"{name}.csv") for name in ("rows", "patients", "forecast")]
    text = page(whole[0], refit.summary(whole[1]) if len(whole[1]) else (),
                forecast.summary(whole[2]) if len(whole[2]) else (),
                f"make qualification` (`python -m studies.qualification FOLDER --patients "
                f"{options.patients}")  # fmt: skip
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)


def all_rows(cohort: Cohort, patients: int) -> pd.DataFrame:
    """The rows of the published table, then the checks."""

    @cache
    def virtual(product: str, arm: str) -> Virtual:
        return simulate_cohort(PRODUCTS[product], arm, patients)

    found = []
    for target in targets():
        made, why = None, ""
        try:
            made = virtual(target.product, target.arm)
        except CrsSimError as error:
            why = f"cannot be simulated: {str(error).splitlines()[0]}"
        found.append(rows.row_of(target, made, cohort, why))
    return rows.table([*found, *all_checks(virtual, patients)])


def timed(what: str, work: Callable[[], Any]) -> Any:
    """The result of some work; says how long it took."""
    start = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - start:.0f} s", flush=True)
    return result


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table with four digits, without an index."""
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """A table written before; empty if there is none."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    return table.fillna({name: "" for name in ("reason", "failed") if name in table})


if __name__ == "__main__":
    main()
