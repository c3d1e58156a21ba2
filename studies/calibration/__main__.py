"""python -m studies.calibration: ranks of the true values of synthetic patients, and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binom

from .design import NOISES, RANKS, Ranked, chance, run

HERE = Path(__file__).parent
BINS = 8


def main() -> None:
    """Run the study and write the results."""
    parser = argparse.ArgumentParser(prog="python -m studies.calibration", description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--noise", choices=tuple(NOISES), default="stated",
                        help="residual errors known, or estimated with a prior")  # fmt: skip
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=HERE / "found")
    options = parser.parse_args()
    if options.patients < 5 * BINS:
        parser.error(f"patients: at least {5 * BINS}, for the test to be valid")
    noise = options.noise
    ranked = run(options.patients, noise=noise, workers=options.workers)
    options.out.mkdir(parents=True, exist_ok=True)
    names = ("ranks", "found") if noise == "stated" else ("estimated_ranks", "estimated")
    ranks, text = (options.out / name for name in names)
    table(ranked, noise).to_csv(f"{ranks}.csv", index=False, lineterminator="\n")
    figure(ranked, noise).savefig(f"{ranks}.png", dpi=120, metadata={"Software": None})
    text.with_suffix(".md").write_text(page(ranked, noise), encoding="utf-8")
    print(page(ranked, noise))


def table(ranked: list[Ranked], noise: str) -> pd.DataFrame:
    """One row per synthetic patient: true values and ranks."""
    rows = [
        {"patient": one.number}
        | {f.name: value for f, value in zip(NOISES[noise], one.truth, strict=True)}
        | {f"rank_{f.name}": rank for f, rank in zip(NOISES[noise], one.ranks, strict=True)}
        for one in ranked
    ]
    return pd.DataFrame(rows)


def page(ranked: list[Ranked], noise: str) -> str:
    """The results as a Markdown page."""
    errors = " The residual errors are estimated as well." if noise == "estimated" else ""
    lines = [
        "# Simulation-based calibration of the posterior",
        "",
        f"{len(ranked)} synthetic patients, drawn from the prior of a small model; data with "
        f"levels, readings below and above a limit, and a grade.{errors} Ranks of the true value "
        "among "
        f"{RANKS - 1} draws must be uniform (Talts et al. 2018, arXiv:1804.06788). Command: "
        f"`make calibration` (`python -m studies.calibration --noise {noise} --patients "
        f"{len(ranked)}`).",
        "",
        "| parameter | ranks by eighth | p of uniform ranks (chi-square) | coverage of 80 % |",
        "| --- | --- | --- | --- |",
    ]
    for k, free in enumerate(NOISES[noise]):
        ranks = np.array([one.ranks[k] for one in ranked])
        counts = np.bincount(ranks * BINS // RANKS, minlength=BINS)
        inside = np.mean((ranks >= 0.1 * RANKS) & (ranks < 0.9 * RANKS))
        lines.append(f"| {free.name} | {' '.join(map(str, counts))} | {chance(ranks.tolist()):.2f} "
                     f"| {100 * inside:.0f} % |")  # fmt: skip
    drawn = "estimated_ranks.png" if noise == "estimated" else "ranks.png"
    return "\n".join([*lines, "", f"![Ranks]({drawn})"]) + "\n"


def figure(ranked: list[Ranked], noise: str) -> Figure:
    """A histogram of ranks for each parameter, with the band expected by chance."""
    priors = NOISES[noise]
    drawn = Figure(figsize=(3.0 * len(priors), 2.9), layout="constrained")
    low, middle, high = binom.ppf([0.005, 0.5, 0.995], len(ranked), 1 / BINS)
    for k, (ax, free) in enumerate(zip(drawn.subplots(1, len(priors), sharey=True), priors,
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
