"""python -m studies.ancestors FOLDER: patients fitted with a published model and with ours."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from crs_sim import CrsSimError, Fit, compare_fits, fit
from crs_sim.store import markdown

from .design import FEWEST, MODELS, OBSERVABLES, Subject, problem, subjects

HERE = Path(__file__).parent
COLUMNS = ["patient", "grade", "model", "observations", "free", "minus_2_ln_l", "prior_penalty",
           "delta_aic", "delta_aic_effective", "sd_ifng", "sd_il6", "agreeing"]  # fmt: skip


def main() -> None:
    """Fit every patient with both models; write the table and the page."""
    parser = argparse.ArgumentParser(prog="python -m studies.ancestors", description=__doc__)
    parser.add_argument("folder", type=Path, help="patients.csv, cytokines.csv, markers.csv")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    try:
        patients = list(subjects(options.folder))
    except CrsSimError as error:
        parser.error(str(error))
    tables = []
    for subject in patients:
        fits = {name: fit(problem(subject, name), workers=options.workers) for name in MODELS}
        tables.append(table(subject, fits))
        print(tables[-1].to_string(index=False))
    found = pd.concat(tables, ignore_index=True)
    options.out.mkdir(parents=True, exist_ok=True)
    found.to_csv(options.out / "ancestors.csv", index=False, float_format="%.5g",
                 lineterminator="\n")  # fmt: skip
    (options.out / "ancestors.md").write_text(page(found), encoding="utf-8")


def table(subject: Subject, fits: dict[str, Fit]) -> pd.DataFrame:
    """One row a model, the best AIC first, as `crs-sim compare-fits` has it."""
    compared = compare_fits(fits)
    for observable in OBSERVABLES:
        name = f"sd_{observable}"
        compared[name] = [fits[model].values[name] for model in compared["fit"]]
    return compared.assign(patient=subject.patient.id, grade=subject.grade)[COLUMNS]


def text(value: object) -> str:
    """A cell of the page."""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def page(found: pd.DataFrame) -> str:
    """The results as a Markdown page."""
    by_model = found.set_index(["patient", "model"])["delta_aic"].unstack()
    better = {name: int((by_model[name] == 0).sum()) for name in MODELS}
    sds = found.groupby("model")[["sd_ifng", "sd_il6"]].median()
    scatter = "; ".join(f"{name}: {sds.loc[name, 'sd_ifng']:.2f} and {sds.loc[name, 'sd_il6']:.2f}"
                        for name in MODELS)  # fmt: skip
    lines = [
        "# A published model beside ours, on the same patients",
        "",
        f"{len(by_model)} patients with CD22 CAR-T cells (doi:10.1182/blood.2021011898) who got no "
        "drug against CRS, have no level at the assay's ceiling, and at least "
        f"{FEWEST} readings of IFN-γ and of IL-6 each. Each is fitted with each model, its shipped "
        "prior and estimated residual errors, from eight starts (*agreeing*: within 1 of the best "
        "cost). The cell dose (1e6 cells/kg) and the weight (70 kg) are assumptions. Neither model "
        "was made for these patients. Command: `make ancestors DATA=FOLDER`; the data are "
        "not part of this repository.",
        "",
        f"The lower AIC: {', '.join(f'{name} in {n}' for name, n in better.items())}. Median "
        f"residual error (sd of the logarithm) of IFN-γ and of IL-6, {scatter}; "
        "an assay alone would leave about 0.2. An AIC includes the penalty of the prior, and the "
        "priors differ: that of hardiansyah2019 is wide, from two patients.",
        "",
        markdown(COLUMNS, ([text(row[c]) for c in COLUMNS] for row in found.to_dict("records"))),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
