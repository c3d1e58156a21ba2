"""Figures of sensitivity indices, tornado and Pareto front.

The first has one row per endpoint, the second one panel per endpoint.

Panels on the right show each variable along the front.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..errors import RESEARCH_ONLY, InputError
from ..model import pretty
from ..scenarios import LEVEL, TAIL, Comparison, Search, Sensitivity
from ..simulation import Endpoint
from .panels import BLUE, GREEN, GREY, HALO, INK, ORANGE, PURPLE, SKY, SMALL, VERMILION, unit_text
from .plots import Picture, styled

SHOWN = 10
"""The number of leading parameters in a panel; the tables have all."""
MOST = 6
TRACED = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
SIDE, SHEET, HEAD, FOOT, GAP, ROW = 1.35, 9.4, 0.72, 0.98, 0.66, 0.19
"""Inches."""


@styled
def plot_sensitivity(
    found: Sensitivity, *, endpoints: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw the leading indices of each endpoint with intervals, and their convergence.

    Parameters
    ----------
    found : Sensitivity
    endpoints : names (default: the first `MOST`)
    title : str
    """
    places = _places(found, endpoints)
    table, convergence = found.table(), found.convergence()
    shown = min(SHOWN, len(found.ranges))
    high = shown * ROW
    total = HEAD + FOOT + len(places) * (high + GAP) - GAP
    figure = Picture(figsize=(SHEET, total))
    for row, k in enumerate(places):
        end = found.plan.endpoints[k]
        bottom = (total - HEAD - row * (high + GAP) - high) / total
        bars = figure.add_axes((SIDE / SHEET, bottom, 4.0 / SHEET, high / total))
        lines = figure.add_axes(((SIDE + 5.0) / SHEET, bottom, 2.0 / SHEET, high / total))
        leading = table[table["endpoint"] == end.name].head(shown)
        _indices(bars, found, leading)
        bars.set_title(_endpoint_title(found, k), fontsize=SMALL, loc="left")
        _convergence(lines, found, convergence[convergence["endpoint"] == end.name], leading)
        for ax in (bars, lines):
            ax.tick_params(labelsize=SMALL)
    title = title or f"{found.problem}: sensitivity indices"
    _title_and_legend(figure, total, title, _key(found), _method_text(found))
    return figure


@styled
def plot_tornado(found: Sensitivity, *, endpoints: Sequence[str] = (), title: str = "") -> Figure:
    """Draw each endpoint with one parameter at a time at its 5 % and its 95 % value.

    Parameters
    ----------
    found : Sensitivity
    endpoints : names (default: the first `MOST`)
    title : str
    """
    places = _places(found, endpoints)
    table = found.tornado_table()
    columns = min(2, len(places))
    rows = math.ceil(len(places) / columns)
    shown = min(SHOWN, len(found.ranges))
    high, wide = shown * ROW, 8.0 / columns - SIDE + (1.3 if columns == 1 else 0.6)
    total = HEAD + FOOT + rows * (high + GAP + 0.15) - GAP - 0.15
    figure = Picture(figsize=(SHEET, total))
    for place, k in enumerate(places):
        row, column = divmod(place, columns)
        bottom = (total - HEAD - row * (high + GAP + 0.15) - high) / total
        left = SIDE + column * (wide + SIDE + 0.1)
        ax = figure.add_axes((left / SHEET, bottom, wide / SHEET, high / total))
        end = found.plan.endpoints[k]
        _tornado(ax, table[table["endpoint"] == end.name].head(shown), end)
    low, top = f"{100 * TAIL:g} %", f"{100 * (1 - TAIL):g} %"
    of = "prior" if found.plan.within is None else f"{100 * found.plan.within:g} % interval"
    key = [Patch(fc=SKY, label=f"parameter at {low} of its {of}"),
           Patch(fc=ORANGE, label=f"at {top}; the others at their estimates"),
           Line2D([], [], color=INK, lw=1, label="at the estimates")]  # fmt: skip
    _title_and_legend(figure, total, title or f"{found.problem}: one parameter at a time", key, "")
    return figure


def _places(found: Sensitivity, names: Sequence[str]) -> list[int]:
    from ..errors import unknown_name

    available = [e.name for e in found.plan.endpoints]
    for name in names:
        if name not in available:
            raise unknown_name("endpoint", name, available)
    return [available.index(name) for name in (names or available[:MOST])]


def _indices(ax: Axes, found: Sensitivity, table: pd.DataFrame) -> None:
    """Draw bars for the leading index with its interval, and markers for the other index."""
    key = found.leading
    heights = np.arange(len(table))
    values = table[key].to_numpy()
    ax.barh(heights, values, color=BLUE, alpha=0.55, height=0.7)
    ax.hlines(heights, table[f"{key}_low"], table[f"{key}_high"], color=INK, lw=0.9)
    if key == "ST":
        ax.hlines(heights + 0.22, table["S1_low"], table["S1_high"], color=VERMILION, lw=0.9)
        ax.plot(table["S1"], heights + 0.22, "o", ms=3.5, color=VERMILION)
    else:
        ax.plot(table["sigma"], heights, "D", ms=3.5, mfc="white", mec=VERMILION)
    ax.set_yticks(heights, table["parameter"])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlim(left=min(0.0, 1.05 * float(table[f"{key}_low"].min())))
    ax.set_xlabel(_axis(found, table), fontsize=SMALL)


def _axis(found: Sensitivity, table: pd.DataFrame) -> str:
    if found.leading == "ST":
        return "share of the variance (no unit)"
    name = str(table["endpoint"].iloc[0])
    end = next(e for e in found.plan.endpoints if e.name == name)
    log = table["scale"].iloc[0] == "log"
    return f"change over the interval, in {'natural logarithms' if log else unit_text(end.unit)}"


def _convergence(ax: Axes, found: Sensitivity, table: pd.DataFrame, leading: pd.DataFrame) -> None:
    key = found.leading
    for colour, name in zip(TRACED, leading["parameter"], strict=False):
        mine = table[table["parameter"] == name].sort_values("blocks")
        ax.plot(mine["blocks"], mine[key], "o-", color=colour, ms=3, lw=1.1, label=name)
        ax.fill_between(mine["blocks"], mine[f"{key}_low"], mine[f"{key}_high"], color=colour,
                        alpha=0.12, lw=0)  # fmt: skip
    ax.set_xscale("log", base=2)
    blocks = sorted(set(table["blocks"]))
    ax.set_xticks(blocks, [str(b) for b in blocks])
    ax.minorticks_off()
    ax.set_ylabel("ST" if key == "ST" else "mu*", fontsize=SMALL)
    ax.set_xlabel("blocks of runs", fontsize=SMALL)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=6.5)


def _tornado(ax: Axes, table: pd.DataFrame, end: Endpoint) -> None:
    middle = float(table["at_estimate"].iloc[0])
    heights = np.arange(len(table))
    for column, colour in (("at_low", SKY), ("at_high", ORANGE)):
        ax.barh(heights, table[column] - middle, left=middle, color=colour, height=0.7)
    ax.axvline(middle, color=INK, lw=1)
    levels = table[["at_low", "at_high"]].to_numpy()
    if end.log and np.nanmin(levels) > 0 and np.nanmax(levels) > 20 * np.nanmin(levels):
        ax.set_xscale("log")
        ax.set_xlim(np.nanmin(levels) / 1.2, np.nanmax(levels) * 1.2)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6))
    for height, (low, high) in enumerate(levels):
        if np.isnan(low) or np.isnan(high):
            ax.text(middle, height, "  a run failed", fontsize=6.5, va="center", color=GREY)
    ax.set_yticks(heights, table["parameter"])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(unit_text(end.unit), fontsize=SMALL)
    ax.set_title(textwrap.shorten(end.label, 58, placeholder=" ..."), fontsize=SMALL, loc="left")


def _endpoint_title(found: Sensitivity, k: int) -> str:
    end = found.plan.endpoints[k]
    scale = " (its logarithm)" if found.scale(k) == "log" else ""
    return textwrap.shorten(end.label, 70, placeholder=" ...") + scale


def _key(found: Sensitivity) -> list[Artist]:
    if found.leading == "ST":
        return [
            Patch(fc=BLUE, alpha=0.55, label="ST: total, 95 %"),
            Line2D([], [], color=VERMILION, marker="o", ms=3.5, label="S1: first order, 95 %"),
        ]
    return [Patch(fc=BLUE, alpha=0.55, label="mu*: mean absolute effect, 95 %"),
            Line2D([], [], color=VERMILION, marker="D", ms=3.5, mfc="white", lw=0,
                   label="sigma: nonlinearity and interactions")]  # fmt: skip


def _method_text(found: Sensitivity) -> str:
    over = "the priors" if found.plan.within is None else (
        f"the fit's {100 * found.plan.within:g} % intervals, varied independently")  # fmt: skip
    failed = f", {len(found.failures)} failed" if found.failures else ""
    return f"{found.plan.method}, {found.runs} runs over {over}{failed}"


def _title_and_legend(
    figure: Figure, total: float, title: str, key: Sequence[Artist], about: str
) -> None:
    figure.text(0.08 / SHEET, 1 - 0.22 / total, title, fontsize=10, weight="bold", va="center")
    figure.legend(handles=list(key), loc="lower left", ncols=3, frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(0.0, 0.2 / total))  # fmt: skip
    figure.text(0.08 / SHEET, 0.1 / total, RESEARCH_ONLY, fontsize=SMALL, color="#555555")
    figure.text(1 - 0.08 / SHEET, 0.1 / total, about, fontsize=SMALL, ha="right")


WIDTH, HIGH, LEFT, ABOVE, BELOW = 9.4, 4.6, 1.0, 0.72, 1.28
"""Inches."""


@styled
def plot_front(
    found: Search, comparison: Comparison | None = None, *, chosen: int | None = None,
    level: float = LEVEL, title: str = "",
) -> Figure:  # fmt: skip
    """Draw the Pareto front of two endpoints, with the schedule as given and the chosen one.

    Parameters
    ----------
    found : Search
    comparison : of trials on the front (`crs_sim.scenarios.compare_trials`): each gets error bars
        that contain ``level`` of the draws
    chosen : a trial (default: `Search.best`)
    level : float
    title : str

    Raises
    ------
    InputError
        If no trial could be run.
    """
    if not found.front:
        raise InputError("no schedule could be run, so there is no front to draw")
    mark = found.best if chosen is None else chosen
    figure = Picture(figsize=(WIDTH, HIGH + ABOVE + BELOW))
    total = HIGH + ABOVE + BELOW
    ax = figure.add_axes((LEFT / WIDTH, BELOW / total, 4.2 / WIDTH, HIGH / total))
    _trials(ax, found, mark)
    if comparison is not None:
        _bars(ax, comparison, level)
    _axes(ax, found)
    _variables(figure, found, mark, ax)
    figure.text(0.08 / WIDTH, 1 - 0.22 / total, title or "Schedules tried, and the Pareto front",
                fontsize=10, weight="bold", va="center")  # fmt: skip
    figure.legend(handles=_front_key(comparison, level), loc="lower left", ncols=3, frameon=False,
                  fontsize=SMALL, bbox_to_anchor=(0.0, 0.2 / total))  # fmt: skip
    figure.text(0.08 / WIDTH, 0.1 / total, RESEARCH_ONLY, fontsize=SMALL, color="#555555")
    source = comparison.predictions.source if comparison is not None else "at the estimates"
    figure.text(0.08 / WIDTH, 1 - 0.42 / total, source, fontsize=SMALL, va="center")
    return figure


def _trials(ax: Axes, found: Search, mark: int) -> None:
    values, front = found.values, list(found.front)
    ax.plot(values[:, 0], values[:, 1], "o", ms=2.6, color=GREY, alpha=0.55, mew=0)
    ax.plot(values[front, 0], values[front, 1], "o-", color=BLUE, ms=4.5, lw=1.3)
    ax.plot(*found.given, "*", ms=13, color=VERMILION, mec="white", mew=0.6, zorder=4)
    ax.plot(*values[mark], "o", ms=11, mfc="none", mec=GREEN, mew=1.6, zorder=5)
    ax.annotate(f"trial {mark}", values[mark], xytext=(-9, 6), textcoords="offset points",
                fontsize=SMALL, color=GREEN, ha="right", path_effects=HALO)  # fmt: skip


def _bars(ax: Axes, comparison: Comparison, level: float) -> None:
    """Draw medians and ``level`` intervals, of the front and of the schedule as given."""
    tails = (0.5, 0.5 - level / 2, 0.5 + level / 2)
    for row in range(len(comparison.scenarios)):
        x, y = np.quantile(comparison.draws[row, :2], tails, axis=1).T
        colour = VERMILION if row == 0 else BLUE
        ax.plot(x[1:], [y[0], y[0]], color=colour, lw=0.7, alpha=0.5)
        ax.plot([x[0], x[0]], y[1:], color=colour, lw=0.7, alpha=0.5)
        ax.plot(x[0], y[0], "s", ms=3, color=colour, mfc="white")


def _axes(ax: Axes, found: Search) -> None:
    for k, axis in enumerate((ax.xaxis, ax.yaxis)):
        end, sign = found.question.objectives[k], found.question.signs[k]
        direction = "lower is better" if sign > 0 else "higher is better"
        unit = unit_text(end.unit, "no unit")
        label = "\n".join(textwrap.wrap(f"{end.label}, {unit} ({direction})", 60))
        axis.set_label_text(label, fontsize=SMALL)
        values = np.append(found.values[:, k], found.given[k])
        shown = values[np.isfinite(values)]
        if end.log and shown.min() > 0 and shown.max() > 20 * shown.min():
            (ax.set_xscale if k == 0 else ax.set_yscale)("log")


def _variables(figure: Figure, found: Search, mark: int, main: Axes) -> None:
    """Draw each variable along the front in its own panel, against the first endpoint."""
    count, gap, front = len(found.question.variables), 0.3, list(found.front)
    total = HIGH + ABOVE + BELOW
    high = (HIGH - (count - 1) * gap) / count
    for k, variable in enumerate(found.question.variables):
        bottom = BELOW + (count - 1 - k) * (high + gap)
        ax = figure.add_axes((6.1 / WIDTH, bottom / total, 3.15 / WIDTH, high / total))
        ax.plot(found.values[front, 0], found.points[front, k], "o-", color=BLUE, ms=4, lw=1)
        ax.plot(found.values[mark, 0], found.points[mark, k], "o", ms=10, mfc="none", mec=GREEN,
                mew=1.5)  # fmt: skip
        room = 0.08 * (variable.high - variable.low)
        ax.set_ylim(variable.low - room, variable.high + room)
        ax.axhline(variable.usual, color=VERMILION, lw=0.9, ls="--")
        ax.set_xscale(main.get_xscale())
        if len(front) == 1:
            ax.set_xlim(main.get_xlim())
        unit = "" if variable.what == "day" else f" ({pretty(variable.unit)})"
        ax.set_title(f"{variable.name}{unit}", fontsize=SMALL, loc="left")
        last = k == count - 1
        ax.tick_params(axis="x", labelbottom=last)
        if last:
            end = found.question.objectives[0]
            ax.set_xlabel(f"{end.label}, {unit_text(end.unit, 'no unit')}", fontsize=SMALL)


def _front_key(comparison: Comparison | None, level: float) -> list[Line2D]:
    key = [
        Line2D([], [], color=VERMILION, marker="*", ms=11, lw=0, label="as given (or - -)"),
        Line2D([], [], color=BLUE, marker="o", ms=4.5, label="Pareto front, at the estimates"),
        Line2D([], [], color=GREY, marker="o", ms=3, lw=0, label="other schedules tried"),
        Line2D([], [], color=GREEN, marker="o", ms=9, mfc="none", lw=0, label="chosen"),
    ]
    if comparison is not None:
        key.append(Line2D([], [], color=INK, marker="s", ms=3, mfc="white", lw=0.7,
                          label=f"median and {100 * level:g} % of the draws"))  # fmt: skip
    return key
