"""python -m studies.qualification FOLDER: the model beside published cohorts and real patients."""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path

import pandas as pd

from crs_sim import CrsSimError

from . import forecast, refit, rows
from .checks import all_checks
from .cohort import Cohort, read_cohort
from .courses import plot_patients
from .design import MODEL, PATIENTS, Product, products
from .figure import plot_rows
from .published import targets
from .report import page
from .virtual import Virtual, simulate_cohort

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data" / "cd22"
DPI = 150


def main() -> None:
    """Run the parts asked for; write tables, figure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.qualification", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA, help="of the CD22 patients")
    parser.add_argument("--patients", type=int, default=PATIENTS, help="virtual, of each cohort")
    parser.add_argument("--only", choices=PARTS, action="append", help="some of the parts")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--prior", action="append", default=[], metavar="PRODUCT=PRIOR")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    try:
        cohort, chosen = read_cohort(options.folder), products(options.prior, options.model)
    except CrsSimError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only or PARTS:
        start = time.perf_counter()
        PARTS[part](cohort, chosen, options)
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
    found, fitted, foreseen = (
        read(options.out / f"{name}.csv") for name in ("rows", "patients", "forecast")
    )
    command = "`make qualification` (`python -m studies.qualification FOLDER --patients {}`)"
    text = page(found, fitted, foreseen, command.format(options.patients), chosen)
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)


def run_rows(cohort: Cohort, chosen: dict[str, Product], options: argparse.Namespace) -> None:
    """Virtual cohorts beside published figures: table and figure."""
    found = all_rows(cohort, chosen, options.patients)
    write(options.out / "rows.csv", found)
    plot_rows(found).savefig(options.out / "rows.png", dpi=DPI)


def run_refits(cohort: Cohort, chosen: dict[str, Product], options: argparse.Namespace) -> None:
    """Real patients refitted: table and figure."""
    found = refit.refits(cohort, chosen["cd22"], options.workers)
    write(options.out / "patients.csv", found.drop(columns=["fit", "course"], errors="ignore"))
    plot_patients(found).savefig(options.out / "patients.png", dpi=DPI)


def run_forecasts(cohort: Cohort, chosen: dict[str, Product], options: argparse.Namespace) -> None:
    """Peaks foreseen: table, without the readings themselves."""
    found = forecast.forecasts(cohort, chosen["cd22"], options.workers)
    write(options.out / "forecast.csv", found.drop(columns=[*forecast.MEASURED]))


PARTS = {"rows": run_rows, "refit": run_refits, "forecast": run_forecasts}


def all_rows(cohort: Cohort, chosen: dict[str, Product], patients: int) -> pd.DataFrame:
    """The rows of the published table, then the checks."""

    @cache
    def virtual(product: str, arm: str) -> Virtual:
        return simulate_cohort(chosen[product], arm, patients)

    found = []
    for target in targets():
        made, why = None, ""
        try:
            made = virtual(target.product, target.arm)
        except CrsSimError as error:
            why = f"cannot be simulated: {str(error).splitlines()[0]}"
        found.append(rows.row_of(target, made, cohort, why))
    return rows.table([*found, *all_checks(chosen, virtual, patients)])


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table with four digits, without an index."""
    table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """A table written before; empty if there is none."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    for name in ("reason", "failed"):
        if name in table:
            table[name] = table[name].astype(object).where(table[name].notna(), "")
    return table


if __name__ == "__main__":
    main()
