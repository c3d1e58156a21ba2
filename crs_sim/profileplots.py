"""Figures of profile likelihoods and of leave-one-out cross-validation.

Each function returns a figure, like those of `crs_sim.plots`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from . import RESEARCH_ONLY
from .noise import NORMAL_95
from .panels import BLUE, GREY, INK, SMALL, VERMILION, format_number, unit_text
from .plots import LEFT, ROW_HEIGHT, WIDTH, Picture, key_below, stack, styled
from .profiles import PROFILE_LEVELS, Profile, limit

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
    across = np.exp(np.linspace(math.log(low), math.log(high), 200))
    prior = (np.log(across / profile.prior_median) / profile.prior_sd) ** 2
    ax.plot(across, prior, color=GREY, lw=1.0, ls=":", zorder=2)
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
    wide = math.exp(NORMAL_95 * profile.prior_sd)
    low = min(float(inside.min()), max(profile.prior_median / wide, profile.lower))
    high = max(float(inside.max()), min(profile.prior_median * wide, profile.upper))
    return low / 1.03, high * 1.03


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
def plot_left_out(left_out: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the error of each reading, in the fit and predicted with the reading left out.

    Parameters
    ----------
    left_out : the columns of `crs_sim.leaveout.leave_out_table`
    title : str
    """
    title = title or "Leave-one-out prediction of each observation"
    figure, (ax,) = stack([max(0.6, len(left_out) * ROW_HEIGHT)], title, below=1.15)
    left_out_panel(ax, left_out)
    key_below(figure, left_out_key())
    return figure


def left_out_panel(ax: Axes, left_out: pd.DataFrame) -> Axes:
    """Draw one row per reading: its residual in the fit, and its error when left out.

    Parameters
    ----------
    ax : Axes
    left_out : as `plot_left_out`
    """
    ax.axvspan(-NORMAL_95, NORMAL_95, color="#EEEEEE", lw=0)
    ax.axvline(0, color=GREY, lw=0.8)
    off = left_out["off_by"].fillna(left_out["residual"]).to_numpy()
    rows = np.arange(len(left_out))
    unscaled = left_out["off_by"].isna().to_numpy()
    colours = [VERMILION if chance < 0.05 else BLUE for chance in left_out["chance"]]
    ax.hlines(rows, left_out["residual_with"], off, color=GREY, lw=0.8)
    ax.scatter(left_out["residual_with"], rows, s=14, facecolors="white", edgecolors=INK, lw=0.8,
               zorder=3)  # fmt: skip
    for marker, chosen in (("o", ~unscaled), ("s", unscaled)):
        ax.scatter(off[chosen], rows[chosen], s=20, marker=marker, zorder=4,
                   c=[c for c, use in zip(colours, chosen, strict=True) if use])  # fmt: skip
    for row, chance in zip(rows, left_out["chance"], strict=True):
        ax.annotate(f"{chance:.2g}", (1.0, row), (6, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", va="center", fontsize=SMALL,
                    annotation_clip=False)  # fmt: skip
    widest = max(3.0, 1.1 * float(np.abs([*off, *left_out["residual_with"]]).max()))
    ax.set_xlim(-widest, widest)
    ax.set_xlabel("error (standard deviations; grey: -1.96 to 1.96); probability on the right")
    ax.set_yticks(rows, left_out["id"], fontsize=SMALL)
    ax.set_ylim(len(left_out) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    return ax


def left_out_key() -> list[Line2D]:
    """Legend handles for `left_out_panel`."""
    style: dict[str, Any] = {"ls": "none", "mec": BLUE, "color": BLUE}
    return [
        Line2D([], [], ls="none", marker="o", ms=4, mfc="white", mec=INK,
               label="in the fit (sd of the reading)"),
        Line2D([], [], marker="o", ms=5, label="left out (sd of the prediction)", **style),
        Line2D([], [], marker="s", ms=5, label="left out: limit or grade (root of -2 ln p)",
               **style),
        Line2D([], [], ls="none", marker="o", ms=5, color=VERMILION,
               label="probability below 5 %"),
    ]  # fmt: skip
