"""python -m studies.calibration: ranks of the true values of synthetic patients, and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binom

from .design import PRIORS, RANKS, Ranked, chance, run

HERE = Path(__file__).parent
BINS = 8


def main() -> None:
    """Run the study and write the results."""
    parser = argparse.ArgumentParser(prog="python -m studies.calibration", description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    if options.patients < 5 * BINS:
        parser.error(f"patients: at least {5 * BINS}, for the test to be valid")
    ranked = run(options.patients, workers=options.workers)
    options.out.mkdir(parents=True, exist_ok=True)
    table(ranked).to_csv(options.out / "ranks.csv", index=False, lineterminator="\n")
    figure(ranked).savefig(options.out / "ranks.png", dpi=120, metadata={"Software": None})
    (options.out / "found.md").write_text(page(ranked), encoding="utf-8")
    print(page(ranked))


def table(ranked: list[Ranked]) -> pd.DataFrame:
    """One row per synthetic patient: true values and ranks."""
    rows = [
        {"patient": one.number}
        | {f.name: value for f, value in zip(PRIORS, one.truth, strict=True)}
        | {f"rank_{f.name}": rank for f, rank in zip(PRIORS, one.ranks, strict=True)}
        for one in ranked
    ]
    return pd.DataFrame(rows)


def page(ranked: list[Ranked]) -> str:
    """The results as a Markdown page."""
    lines = [
        "# Simulation-based calibration of the posterior",
        "",
        f"{len(ranked)} synthetic patients, drawn from the prior of a small model; data with "
        "levels, readings below and above a limit, and a grade. Ranks of the true value among "
        f"{RANKS - 1} draws must be uniform (Talts et al. 2018, arXiv:1804.06788). Command: "
        f"`make calibration` (`python -m studies.calibration --patients {len(ranked)}`).",
        "",
        "| parameter | ranks by eighth | p of uniform ranks (chi-square) | coverage of 80 % |",
        "| --- | --- | --- | --- |",
    ]
    for k, free in enumerate(PRIORS):
        ranks = np.array([one.ranks[k] for one in ranked])
        counts = np.bincount(ranks * BINS // RANKS, minlength=BINS)
        inside = np.mean((ranks >= 0.1 * RANKS) & (ranks < 0.9 * RANKS))
        lines.append(f"| {free.name} | {' '.join(map(str, counts))} | {chance(ranks.tolist()):.2f} "
                     f"| {100 * inside:.0f} % |")  # fmt: skip
    return "\n".join([*lines, "", "![Ranks](ranks.png)"]) + "\n"


def figure(ranked: list[Ranked]) -> Figure:
    """A histogram of ranks for each parameter, with the band expected by chance."""
    drawn = Figure(figsize=(9.0, 2.9), layout="constrained")
    low, middle, high = binom.ppf([0.005, 0.5, 0.995], len(ranked), 1 / BINS)
    for k, (ax, free) in enumerate(zip(drawn.subplots(1, len(PRIORS), sharey=True), PRIORS,
                                       strict=True)):  # fmt: skip
        ax.axhspan(low, high, color="#E4E4E4", lw=0)
        ax.axhline(middle, color="#999999", lw=0.8)
        ax.hist([one.ranks[k] for one in ranked], bins=np.linspace(0, RANKS, BINS + 1),
                color="#0072B2", rwidth=0.92)  # fmt: skip
        ax.set_title(free.name, fontsize=9)
        ax.set_xlabel(f"rank of the true value among {RANKS - 1} draws", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_ylabel("synthetic patients\n(grey: 99 % by chance)", fontsize=8)
    return drawn


if __name__ == "__main__":
    main()
