"""Diagnostic panels of a fit: estimates against priors, cost of each start, residuals.

Each function takes an axes and one of the tables of a run folder, and returns the axes.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .noise import NORMAL_95
from .panels import BLUE, GREY, INK, ORANGE, SMALL, VERMILION, format_number, unit_text

FAR = 2.0
"""Shift from the prior, in prior standard deviations, beyond which a reason is required."""
VERDICTS = {"pass": BLUE, "near": ORANGE, "miss": VERMILION}


def estimates_panel(ax: Axes, estimates: pd.DataFrame) -> Axes:
    """Draw each estimate and 95 % interval over its prior's, relative to the prior median.

    Parameters
    ----------
    ax : Axes
    estimates : the columns of estimates.csv
    """
    for row, e in enumerate(estimates.itertuples()):
        wide = math.exp(NORMAL_95 * e.prior_sd)
        ax.barh(row, wide - 1 / wide, left=1 / wide, height=0.62, color="#DDDDDD", lw=0)
        colour = _colour(e)
        scale = 1 / e.prior_median
        ax.plot([e.low * scale, e.high * scale], [row, row], color=colour, lw=1.6)
        ax.plot(e.estimate * scale, row, marker="^" if e.at_bound else "o", ms=5, color=colour,
                mfc="white" if e.carried_by_prior else colour)  # fmt: skip
        value = f"{format_number(float(f'{e.estimate:.3g}'))} {unit_text(str(e.unit), '')}".strip()
        ax.annotate(value, (1.0, row), (6, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", va="center", fontsize=SMALL,
                    annotation_clip=False)  # fmt: skip
    ax.axvline(1, color=GREY, lw=0.8)
    _log_axis(ax, estimates)
    ax.set_xlabel("estimate / prior median (no unit, log scale); value on the right")
    return named_rows(ax, list(estimates["parameter"]))


def _colour(e: object) -> str:
    far = abs(e.shift) > FAR or e.at_bound  # type: ignore[attr-defined]
    return VERMILION if far else BLUE


def _log_axis(ax: Axes, estimates: pd.DataFrame) -> None:
    spread = np.exp(NORMAL_95 * estimates["prior_sd"])
    low = min((estimates["low"] / estimates["prior_median"]).min(), (1 / spread).min())
    high = max((estimates["high"] / estimates["prior_median"]).max(), spread.max())
    ax.set_xscale("log")
    ax.set_xlim(max(low, 1e-4) / 1.2, min(high, 1e4) * 1.2)
    steps = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def estimates_key() -> list[Line2D | Patch]:
    """Legend handles for `estimates_panel`."""
    return [
        Patch(fc="#DDDDDD", label="prior, 95 %"),
        Line2D([], [], color=BLUE, marker="o", ms=5, label="estimate, 95 %"),
        Line2D([], [], color=BLUE, marker="o", ms=5, mfc="white", label="dominated by its prior"),
        Line2D([], [], color=VERMILION, marker="o", ms=5,
               label=f"more than {FAR:g} prior sd away"),
        Line2D([], [], color=VERMILION, marker="^", ms=5, label="at a bound"),
    ]  # fmt: skip


def starts_panel(ax: Axes, starts: pd.DataFrame) -> Axes:
    """Draw the cost of every start above the lowest, in ascending order (waterfall plot).

    Parameters
    ----------
    ax : Axes
    starts : the columns of starts.csv; the final optimisation is its row "polish"
    """
    lowest = float(starts["cost"].min())
    runs = starts[starts["start"].astype(str) != "polish"].sort_values("cost")
    above = (runs["cost"] - lowest).to_numpy()
    converged = runs["converged"].to_numpy(dtype=bool)
    places = np.arange(1, len(runs) + 1)
    ax.plot(places, above, color=GREY, lw=0.8, zorder=1)
    ax.plot(places[converged], above[converged], "o", color=BLUE, ms=5, label="converged")
    ax.plot(places[~converged], above[~converged], "o", color=VERMILION, mfc="white", ms=5,
            label="stopped early")  # fmt: skip
    for place, height, name in zip(places, above, runs["start"], strict=True):
        ax.annotate(str(name), (place, height), (0, 6), textcoords="offset points", ha="center",
                    fontsize=6.5, color="#555555")  # fmt: skip
    ax.axhline(0, color=INK, lw=0.8, label="best, polished")
    ax.set_yscale("symlog", linthresh=1.0)
    ax.set_ylim(-0.4, max(2.0, float(above.max()) * 3))
    ax.set_xlim(0.3, len(runs) + 0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("starts, sorted by cost (labels: start number; 0 is the prior median)")
    ax.set_ylabel("cost above the best\n(-2 ln posterior, no unit)")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL)
    return ax


def residuals_panel(ax: Axes, observations: pd.DataFrame) -> Axes:
    """Draw the residual of every observation, grouped by kind.

    Parameters
    ----------
    ax : Axes
    observations : the columns of observations.csv, see `by_kind`
    """
    table = by_kind(observations)
    ax.axvspan(-NORMAL_95, NORMAL_95, color="#EEEEEE", lw=0)
    ax.axvline(0, color=GREY, lw=0.8)
    colours = [VERDICTS[verdict] for verdict in table["verdict"]]
    rows = np.arange(len(table))
    ax.hlines(rows, 0, table["residual"], color=colours, lw=1)
    ax.scatter(table["residual"], rows, color=colours, s=18, zorder=3)
    for row in np.flatnonzero((table["kind"] != table["kind"].shift()).to_numpy()):
        ax.annotate(str(table["kind"].iloc[row]), (1.0, row), (6, 0), va="center",
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    fontsize=SMALL, weight="bold", annotation_clip=False)  # fmt: skip
        if row:
            ax.axhline(row - 0.5, color=GREY, lw=0.5)
    widest = max(3.0, float(table["residual"].abs().max()) * 1.1)
    ax.set_xlim(-widest, widest)
    ax.set_xlabel("residual (standard deviations; grey: -1.96 to 1.96)")
    return named_rows(ax, list(table["id"]))


def by_kind(observations: pd.DataFrame) -> pd.DataFrame:
    """The observations that have a residual, grouped by kind in order of appearance."""
    table = observations[observations["residual"].notna()]
    order = {kind: k for k, kind in enumerate(dict.fromkeys(table["kind"]))}
    return table.assign(_k=table["kind"].map(order)).sort_values("_k", kind="stable")


def residuals_key() -> list[Line2D]:
    """Legend handles for `residuals_panel`."""
    return [
        Line2D([], [], ls="none", marker="o", ms=5, color=colour, label=verdict)
        for verdict, colour in VERDICTS.items()
    ]


def named_rows(ax: Axes, names: list[str]) -> Axes:
    """Label rows by name, from the top down."""
    ax.set_yticks(range(len(names)), names, fontsize=SMALL)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    return ax
