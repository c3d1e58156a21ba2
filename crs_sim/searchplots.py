"""The figure of a schedule search: all trials, the Pareto front, and the schedule as given.

Panels on the right show each variable along the front.
"""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import RESEARCH_ONLY
from .comparison import LEVEL, Comparison
from .errors import InputError
from .panels import BLUE, GREEN, GREY, HALO, INK, SMALL, VERMILION, unit_text
from .plots import Picture, styled
from .searching import Search
from .units import pretty

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
    comparison : of trials on the front (`crs_sim.searching.compare_trials`): each gets error bars
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
    figure.legend(handles=_key(comparison, level), loc="lower left", ncols=3, frameon=False,
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


def _key(comparison: Comparison | None, level: float) -> list[Line2D]:
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
