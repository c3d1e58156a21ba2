"""python -m studies.grades: coverage of intervals from daily grades, by either likelihood."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from .design import DESIGN, LEVELS, PERSISTENT, run, summary

HERE = Path(__file__).parent
FOUND = (
    "Where errors persist, the independent likelihood is overconfident, and the persistent one "
    "covers what it says; where they do not, persistence that is assumed widens the intervals. "
    "Estimates are hardly better for it. The standard errors that a fit reports are some 1.3 times "
    "too wide for grades of either kind, since the slope of the root of -2 ln P, as Gauss-Newton "
    "takes it, is not the score: an independent likelihood that is wrong then looks right. Draws "
    "(`crs-sim sample`) and profiles use the likelihood itself."
)


def main() -> None:
    """Run the study and write the results."""
    parser = argparse.ArgumentParser(prog="python -m studies.grades", description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    found = run(options.patients, workers=options.workers)
    options.out.mkdir(parents=True, exist_ok=True)
    found.to_csv(options.out / "estimates.csv", index=False, float_format="%.5g",
                 lineterminator="\n")  # fmt: skip
    text = page(found)
    (options.out / "found.md").write_text(text, encoding="utf-8")
    print(text)


def page(found: pd.DataFrame) -> str:
    """The results as a Markdown page."""
    count = found["patient"].nunique()
    widths = [f"within {100 * level:g} %" for level in LEVELS]
    lines = [
        "# Daily grades whose errors persist",
        "",
        f"{count} synthetic patients with a grade on each of {len(DESIGN.days)} days; their true "
        "values are drawn from the prior. The error of a grade has an sd of "
        f"{PERSISTENT.sd:g}; it is independent from day to day, or "
        f"{100 * PERSISTENT.persistence:g} % "
        f"of its variance persists with a memory of {PERSISTENT.memory:g} days. Each patient is "
        "fitted with either likelihood. Share of the intervals (mode of the posterior and its "
        "curvature there, on the log scale) that contain the truth, and root mean square of the "
        "error in standard errors, which is 1 if these are right; also in the standard errors that "
        "a fit reports, which are those of Gauss-Newton. By chance, "
        f"{count} patients leave a share of 95 % within {196 * (0.95 * 0.05 / count) ** 0.5:.0f} %"
        ", of 50 % within "
        f"{196 * (0.25 / count) ** 0.5:.0f} %. Command: `make grades` "
        f"(`python -m studies.grades --patients {count}`).",
        "",
        f"| errors | likelihood | parameter | {' | '.join(widths)} | rms error, in standard errors "
        "| in those reported | of the logarithm |",
        "| --- | --- | --- |" + " --- |" * (len(LEVELS) + 3),
    ]
    for row in summary(found).to_dict("records"):
        shares = " | ".join(f"{100 * row[f'within_{100 * level:g}']:.0f} %" for level in LEVELS)
        lines.append(f"| {row['errors']} | {row['likelihood']} | {row['parameter']} | {shares} "
                     f"| {row['rms_off']:.2f} | {row['rms_off_reported']:.2f} "
                     f"| {row['rms_log_error']:.3f} |")  # fmt: skip
    lines += ["", FOUND]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
