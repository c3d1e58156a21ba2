"""Figures of the posterior predictive check: predicted and observed readings and grades."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .fitplots import named_rows
from .panels import BLUE, GREY, INK, VERMILION, format_number, unit_text
from .plots import list_figure, styled

WIDEST = 100.0
"""Ratios of predicted to observed are clipped at this factor."""
BAND = "#BFDDF0"


@styled
def plot_predictive(predicted: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the posterior prediction of each level, relative to the level observed.

    Parameters
    ----------
    predicted : a row for each `crs_sim.predictivecheck.Predicted`; grades are ignored
    title : str
    """
    table = predicted[predicted["kind"] != "grade"]
    title = title or "Posterior predictive check: levels"
    return list_figure(predictive_panel, table, predictive_key(), len(table), title=title)


@styled
def plot_predictive_grades(predicted: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the posterior prediction of each CRS grade, and the grade observed."""
    table = predicted[predicted["kind"] == "grade"]
    title = title or "Posterior predictive check: CRS grades"
    return list_figure(grades_panel, table, predictive_key()[:4], len(table), title=title)


def predictive_panel(ax: Axes, predicted: pd.DataFrame) -> Axes:
    """Draw 95 % prediction intervals relative to the observed; an arrow if that is a limit.

    Parameters
    ----------
    ax : Axes
    predicted : columns as the fields of `crs_sim.predictivecheck.Predicted`
    """
    ax.axvline(1, color=GREY, lw=0.8, zorder=1)
    for row, p in enumerate(predicted.itertuples()):
        low, middle, high = (x / p.observed for x in (p.low, p.median, p.high))  # type: ignore[operator]
        _band(ax, row, low, middle, high)
        limit = str(p.kind).endswith(("below", "above"))
        colour = VERMILION if p.surprising else INK
        if limit:
            _arrow(ax, row, below=str(p.kind).endswith("below"), colour=colour)
        else:
            ax.plot(1, row, marker="o", ms=4.5, color=colour, zorder=4)
        _right_label(ax, row, _reading_text(p, limit), colour)
    ax.set_xscale("log")
    lowest = float((predicted["low"] / predicted["observed"]).min())
    highest = float((predicted["high"] / predicted["observed"]).max())
    ax.set_xlim(max(min(lowest, 0.5), 1 / WIDEST) / 1.15, min(max(highest, 2.0), WIDEST) * 1.15)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_xlabel("predicted / observed reading (no unit, log scale)")
    return named_rows(ax, list(predicted["id"]))


def grades_panel(ax: Axes, predicted: pd.DataFrame) -> Axes:
    """Draw 95 % prediction intervals of grades, a line at the median, a point at the observed.

    Parameters
    ----------
    ax : Axes
    predicted : columns as the fields of `crs_sim.predictivecheck.Predicted`
    """
    for row, p in enumerate(predicted.itertuples()):
        low, high = float(p.low), float(p.high)  # type: ignore[arg-type]
        _band(ax, row, low - 0.3, float(p.median), high + 0.3)  # type: ignore[arg-type]
        colour = VERMILION if p.surprising else INK
        ax.plot(float(p.observed), row, marker="o", ms=4.5, color=colour, zorder=4)  # type: ignore[arg-type]
        text = f"probability of grade {p.observed:.0f}: {_percent(p.chance)}"
        _right_label(ax, row, text, colour)
    ax.set_xlim(-0.5, 4.5)
    ax.set_xticks(range(5))
    ax.set_xlabel("CRS grade (ASTCT)")
    return named_rows(ax, list(predicted["id"]))


def predictive_key() -> list[Line2D | Patch]:
    """Legend handles for `predictive_panel`."""
    point = {"ls": "none", "marker": "o", "ms": 4.5}
    return [
        Patch(fc=BAND, label="predicted, 95 %"),
        Line2D([], [], ls="none", marker="|", ms=9, mew=1.4, color=BLUE, label="median"),
        Line2D([], [], color=INK, label="observed", **point),  # type: ignore[arg-type]
        Line2D([], [], color=VERMILION, label="observed, surprising", **point),  # type: ignore[arg-type]
        Line2D([], [], ls="none", marker=r"$\leftarrow$", ms=10, color=INK,
               label="observed: below, above"),
    ]  # fmt: skip


def _band(ax: Axes, row: int, low: float, middle: float, high: float) -> None:
    ax.barh(row, high - low, left=low, height=0.56, color=BAND, lw=0, zorder=2)
    ax.plot([middle] * 2, [row - 0.28, row + 0.28], color=BLUE, lw=1.4, zorder=3)


def _arrow(ax: Axes, row: int, *, below: bool, colour: str) -> None:
    """Draw an arrow from the limit towards the reading."""
    ax.plot([1, 1], [row - 0.32, row + 0.32], color=colour, lw=1.3, zorder=4)
    ax.annotate("", (1, row), (-20 if below else 20, 0), textcoords="offset points", zorder=4,
                arrowprops={"arrowstyle": "<-", "color": colour, "lw": 1.2, "shrinkA": 0,
                            "shrinkB": 0})  # fmt: skip


def _reading_text(p: object, limit: bool) -> str:
    """The reading, and its percentile in the prediction."""
    kind, observed, chance = (getattr(p, name) for name in ("kind", "observed", "chance"))
    unit = unit_text(str(p.unit), "")  # type: ignore[attr-defined]
    sign = {"below": "< ", "above": "> "}.get(str(kind).removeprefix("ratio_"), "")
    times = "× " if str(kind).startswith("ratio") else ""
    level = f"{sign}{times}{format_number(observed)} {unit}".strip()
    return f"{level}: {'prob.' if limit else 'percentile'} {_percent(chance)}"


def _percent(chance: float) -> str:
    """A probability in per cent.

    >>> _percent(0.031), _percent(0.0001), _percent(0.9999)
    ('3 %', '< 1 %', '> 99 %')
    """
    percent = 100.0 * chance
    if percent < 1.0:
        return "< 1 %"
    return "> 99 %" if percent > 99.0 else f"{percent:.0f} %"


def _right_label(ax: Axes, row: int, text: str, colour: str) -> None:
    ax.annotate(text, (1.0, row), (6, 0), xycoords=("axes fraction", "data"), va="center",
                textcoords="offset points", fontsize=6.5, color=colour,
                annotation_clip=False)  # fmt: skip
