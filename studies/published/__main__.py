"""python -m studies.published FOLDER: populations whose estimates are known, estimated again."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from scipy.stats import chi2

from crs_sim import FitProblem, Population, PopulationFit, Roles, fit_all
from crs_sim.population import how_estimated, population_fit_warnings
from crs_sim.store import markdown

from .design import FILES, Study, studies

HERE = Path(__file__).parent


def main() -> None:
    """Run the studies; write the table and the report."""
    parser = argparse.ArgumentParser(prog="python -m studies.published", description=__doc__)
    parser.add_argument("folder", type=Path, help=f"holds {' and '.join(FILES)}")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    for name in FILES:
        if not (options.folder / name).is_file():
            parser.error(f"{options.folder}: no {name} in it")
    tables, pages = [], [HEAD]
    for study in studies():
        problems, population = study.problems(options.folder)
        start = time.perf_counter()
        result = fit_all(problems, population, Roles(correlated=study.correlated),
                         workers=options.workers)  # fmt: skip
        taken = time.perf_counter() - start
        tables.append(table(study, result))
        pages.append(page(study, result, tables[-1], taken))
        if study.drawn:
            pages[-1] += f"\n\n{at_the_truth(problems, population, result, options.workers)}"
        print(pages[-1])
    options.out.mkdir(parents=True, exist_ok=True)
    whole = pd.concat(tables, ignore_index=True)
    whole.to_csv(options.out / "published.csv", index=False, lineterminator="\n")
    (options.out / "published.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")


HEAD = (
    "# Populations whose estimates are known\n\nResearch use only. Command: `make published` "
    "(`python -m studies.published FOLDER`); the data are read from the folder and are not part of "
    "this repository (`design.py` says where they are). Prior weight 0, but for the synthetic "
    "patients (one patient). ± are standard errors in per cent; *off* is the difference of the "
    "logarithm of the median from the known one, in standard errors."
)


def table(study: Study, result: PopulationFit) -> pd.DataFrame:
    """One row per parameter: estimate, two-stage estimate, and what is known."""
    found = result.table()
    known = [study.known.get(name) for name in found["parameter"]]
    found.insert(0, "study", study.name)
    found["known_median"] = [k.median if k else math.nan for k in known]
    found["known_sd"] = [k.sd if k else math.nan for k in known]
    found["source"] = [k.source if k else "" for k in known]
    ratio = found["median"] / found["known_median"]
    found["off"] = [math.log(r) / e for r, e in zip(ratio, found["median_error"], strict=True)]
    return found


def page(study: Study, result: PopulationFit, found: pd.DataFrame, taken: float) -> str:
    """A study's part of the report."""
    rows = [
        (r.parameter, r.role, number(r.median), percent(r.median_error), number(r.sd),
         percent(r.sd_error), number(r.two_stage_median), number(r.two_stage_sd),
         number(r.known_median), number(r.known_sd), number(r.off))
        for r in found.itertuples()
    ]  # fmt: skip
    columns = ("parameter", "role", "median", "±", "sd", "±", "two-stage median", "its sd",
               "known median", "known sd", "off")  # fmt: skip
    lines = [f"## {study.name}", f"{len(result.fits)} patients, {taken:.0f} s. "
             f"{how_estimated(result)}", markdown(columns, rows)]  # fmt: skip
    lines += [f"Correlation of {r[1]} and {r[2]}: {r[3]:.2f} (± {number(r[4]) or 'unknown'})."
              for r in result.correlations().itertuples()]  # fmt: skip
    sources = sorted({k.source for k in study.known.values()})
    lines.append(f"Known: {'; '.join(sources)}.")
    return "\n\n".join([*lines, *population_fit_warnings(result)])


FIXED = 1e9
"""Weight of a prior, in patients, that leaves nothing to estimate."""


def at_the_truth(
    problems: list[FitProblem], population: Population, found: PopulationFit, workers: int | None
) -> str:
    """How far the population they were drawn from is below the maximum of the likelihood."""
    truth = fit_all(problems, replace(population, patients=FIXED), workers=workers)
    rise = truth.minus_2_ln_l - found.minus_2_ln_l
    return (
        f"-2 ln likelihood at the population they were drawn from: {truth.minus_2_ln_l:.2f} "
        f"(Monte-Carlo error {truth.minus_2_ln_l_error:.2f}), {rise:.1f} above the maximum, for "
        f"{found.estimated} numbers: chance of more {chi2.sf(rise, found.estimated):.2f}."
    )


def number(value: float) -> str:
    """Three digits; nothing for nan."""
    return "" if math.isnan(value) else f"{value:.3g}"


def percent(value: float) -> str:
    """A share as per cent; nothing for nan."""
    return "" if math.isnan(value) else f"{100 * value:.0f} %"


if __name__ == "__main__":
    main()
