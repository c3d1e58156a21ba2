"""Figures of a fit: estimates, starts, residuals, profiles.

Each function takes an axes and one of the tables of a run folder, and returns the axes.

Each function returns a figure, like those of `crs_sim.figures.plots`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..errors import RESEARCH_ONLY
from ..fitting import NORMAL_95, from_scale, to_scale
from ..uncertainty import PROFILE_LEVELS, Profile, limit
from .panels import BLUE, GREY, INK, ORANGE, SMALL, VERMILION, format_number, unit_text
from .plots import LEFT, ROW_HEIGHT, WIDTH, Picture, stack, styled

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
    low, high = _prior_ratios(estimates)
    ax.barh(range(len(low)), high - low, left=low, height=0.62, color="#DDDDDD", lw=0)
    for row, e in enumerate(estimates.itertuples()):
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


def _prior_ratios(estimates: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the priors' 95 % intervals, relative to their medians; (n,) each."""
    scales = list(estimates["scale"]) if "scale" in estimates else "log"  # an older table
    median, sd = (estimates[name].to_numpy() for name in ("prior_median", "prior_sd"))
    x, wide = to_scale(median, scales), NORMAL_95 * sd
    return from_scale(x - wide, scales) / median, from_scale(x + wide, scales) / median


def _log_axis(ax: Axes, estimates: pd.DataFrame) -> None:
    lowest, highest = _prior_ratios(estimates)
    low = min((estimates["low"] / estimates["prior_median"]).min(), lowest.min())
    high = max((estimates["high"] / estimates["prior_median"]).max(), highest.max())
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


COLUMNS = 4
HIGHEST = 6.5
"""Top of the cost axis, slightly above the 95 % limit."""
PANEL_HEIGHT = 1.25


@styled
def plot_profiles(profiles: Sequence[Profile], *, title: str = "") -> Figure:
    """Draw the profile of each parameter in its own panel, with its verdict.

    Parameters
    ----------
    profiles : sequence of Profile, all of one fit
    title : str
    """
    n_rows = math.ceil(len(profiles) / COLUMNS)
    above, below, gap, room = 0.42, 0.8, 0.3, 0.42
    total = above + below + n_rows * (PANEL_HEIGHT + gap + room)
    figure = Picture(figsize=(WIDTH, total))
    left, width = LEFT - 0.8, (WIDTH - (LEFT - 0.8) - 0.25) / COLUMNS
    for k, one in enumerate(profiles):
        row, column = divmod(k, COLUMNS)
        bottom = total - above - (row + 1) * (PANEL_HEIGHT + room) - row * gap
        box = (left + column * width, bottom, width - 0.52, PANEL_HEIGHT)
        ax = figure.add_axes((box[0] / WIDTH, box[1] / total, box[2] / WIDTH, box[3] / total))
        profile_panel(ax, one)
        if column == 0:
            ax.set_ylabel("cost above the\nlowest (no unit)", fontsize=SMALL)
    figure.text(left / WIDTH, 1 - 0.25 / total, title or "Profile likelihoods", fontsize=10,
                weight="bold", va="center")  # fmt: skip
    figure.text(left / WIDTH, 0.12 / total, RESEARCH_ONLY, fontsize=SMALL, color="#555555")
    figure.legend(handles=profile_key(), loc="lower left", ncols=3, frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(left / WIDTH - 0.01, 0.25 / total))  # fmt: skip
    return figure


def profile_panel(ax: Axes, profile: Profile) -> Axes:
    """Draw the cost (-2 ln posterior, others refitted) against one parameter, and the limits.

    Parameters
    ----------
    ax : Axes
    profile : Profile
    """
    values, costs = profile.curve()
    _, data = profile.curve(own_prior=False)
    for level in PROFILE_LEVELS:
        ax.axhline(
            limit(level), color=GREY, lw=0.9 if level == max(PROFILE_LEVELS) else 0.5, zorder=1
        )
        ax.annotate(f"{100 * level:.0f} %", (1.0, limit(level)), (2, 0), va="center",
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    fontsize=6, color="#555555", annotation_clip=False)  # fmt: skip
    low, high = _shown(values, np.minimum(costs, data), profile)
    across = np.geomspace(low, high, 200)
    ax.plot(across, profile.prior_cost(across), color=GREY, lw=1.0, ls=":", zorder=2)
    ax.plot(values, data, color=VERMILION, lw=1.3, ls=(0, (4, 1.5)), zorder=3)
    ax.plot(values, costs, color=BLUE, lw=1.4, zorder=4)
    heights = profile.costs - profile.costs.min()
    ax.plot(profile.values, heights, "o", color=BLUE, ms=2.5, zorder=5)
    at = max(0.0, profile.fit_cost - float(profile.costs.min()))
    ax.plot(profile.estimate, at, "D", color=INK, ms=4, zorder=6)
    for bound in (profile.lower, profile.upper):
        if low <= bound <= high:
            ax.axvline(bound, color=INK, lw=1.2, zorder=1)
    _log_values(ax, low, high)
    ax.set_ylim(-0.3, HIGHEST)
    ax.set_yticks([0, 2, 4, 6])
    ax.set_xlabel(unit_text(profile.unit), fontsize=SMALL, labelpad=1)
    verdict = "\n".join(textwrap.wrap(profile.verdict.split(" (")[0], 34)[:2])
    ax.set_title(f"{profile.parameter}\n{verdict}", fontsize=SMALL, loc="left", pad=3,
                 color=INK if profile.verdict == "determined" else VERMILION)  # fmt: skip
    return ax


def profile_key() -> list[Line2D]:
    """Legend handles for `profile_panel`."""
    return [
        Line2D([], [], color=BLUE, marker="o", ms=2.5, lw=1.4, label="with its own prior"),
        Line2D([], [], color=VERMILION, ls=(0, (4, 1.5)), lw=1.3,
               label="without its own prior (basis of the verdict)"),
        Line2D([], [], color=GREY, ls=":", label="its prior alone"),
        Line2D([], [], color=INK, marker="D", ms=4, ls="none", label="estimate"),
        Line2D([], [], color=GREY, lw=0.9, label="limits of the 50, 80 and 95 % intervals"),
        Line2D([], [], color=INK, lw=1.2, label="bound"),
    ]  # fmt: skip


def _shown(values: np.ndarray, lower: np.ndarray, profile: Profile) -> tuple[float, float]:
    """Limits of the value axis: where a curve or the prior is below the top."""
    inside = values[lower <= HIGHEST]
    ends = NORMAL_95 * profile.prior_sd * np.array([-1.0, 1.0])
    prior = from_scale(to_scale(profile.prior_median, profile.scale) + ends, profile.scale)
    low = min(float(inside.min()), max(float(prior[0]), profile.lower))
    high = max(float(inside.max()), min(float(prior[1]), profile.upper))
    x = to_scale([low, high], profile.scale) + np.log([1 / 1.03, 1.03])
    return tuple(from_scale(x, profile.scale).tolist())


def _log_values(ax: Axes, low: float, high: float) -> None:
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    subs: tuple[float, ...] = (1.0, 3.0) if high / low < 60 else (1.0,)
    if high / low < 12:
        subs = (1.0, 2.0, 5.0)
    if high / low < 2.5:
        subs = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_number(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


# --- leave-one-out --------------------------------------------------------------------------------


@styled
def plot_estimates(estimates: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw estimates against priors, one row per parameter; see `estimates_panel`."""
    return list_figure(estimates_panel, estimates, estimates_key(), len(estimates),
                        title=title or "Estimates against their priors")  # fmt: skip


@styled
def plot_residuals(observations: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw residuals by observation, grouped by kind; see `residuals_panel`."""
    return list_figure(residuals_panel, observations, residuals_key(), len(by_kind(observations)),
                        title=title or "Residuals by observation")  # fmt: skip


@styled
def plot_starts(starts: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the cost of all starts; see `starts_panel`."""
    figure, (ax,) = stack([2.6], title or "The cost of every start", below=0.85)
    starts_panel(ax, starts)
    return figure


def list_figure(
    panel: Callable[[Axes, pd.DataFrame], Axes],
    table: pd.DataFrame,
    key: Sequence[Artist],
    rows: int,
    *,
    title: str,
) -> Figure:
    """One panel with one row per table row, and a legend below."""
    figure, (ax,) = stack([max(0.6, rows * ROW_HEIGHT)], title, below=1.05)
    panel(ax, table)
    figure.legend(handles=key, loc="lower left", ncols=len(key), frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(LEFT / WIDTH - 0.01, 0.3 / figure.get_figheight()))  # fmt: skip
    return figure
