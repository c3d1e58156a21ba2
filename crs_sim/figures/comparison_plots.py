"""The figure of a scenario comparison: doses, time courses and endpoints, one row per scenario.

The treatment as given is repeated in grey in every row; on the right each endpoint has a column,
as in a forest plot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from ..dosing import Input
from ..errors import InputError, unknown_name
from ..model import GRADE
from ..scenarios import LEVEL, Comparison
from ..simulation import Endpoint
from ..uncertainty import Band
from .panels import BLUE, COURSES, GREY, INK, SMALL, VERMILION, drug_colours, unit_text
from .plots import EDGE, Footer, Picture, styled, wrapped

ROW, GAP, LANE, AXIS = 0.62, 0.13, 0.125, 0.5
"""Inches: the least row, between rows, a drug that is given alike in all, below the last row."""
NAME, RIBBON, COURSE, FOREST, BETWEEN = 1.75, 1.5, 1.35, 1.15, 0.42
"""Inches across: name, doses, a time course, an endpoint, between columns."""
MOST_COURSES, MOST_ENDPOINTS = 3, 6
TITLE: dict[str, Any] = {"fontsize": 10, "weight": "bold"}
DECADES = 5.0
SHORT_NAMES = {course.ids[0]: course.name for course in COURSES}


@dataclass(frozen=True)
class _Sheet:
    """Layout of a figure with a given number of rows, in inches from its top left corner."""

    figure: Figure
    rows: int
    width: float
    row: float
    above: float
    below: float

    @property
    def tall(self) -> float:
        """The height of all rows."""
        return self.rows * (self.row + GAP) - GAP

    @property
    def height(self) -> float:
        return self.above + self.tall + self.below

    def axes(self, left: float, width: float, row: int | None = None) -> Axes:
        """Axes in one row, or spanning all rows."""
        top = self.above + (0 if row is None else row * (self.row + GAP))
        return self.box(left, width, top, self.tall if row is None else self.row)

    def box(self, left: float, width: float, top: float, tall: float) -> Axes:
        """Axes anywhere."""
        place = (left / self.width, 1 - (top + tall) / self.height, width / self.width,
                 tall / self.height)  # fmt: skip
        return self.figure.add_axes(place)

    def middle(self, row: int) -> float:
        """The middle of a row, in inches from the top of the first."""
        return row * (self.row + GAP) + self.row / 2


@styled
def plot_comparison(
    comparison: Comparison,
    *,
    courses: Sequence[str] = (),
    endpoints: Sequence[str] = (),
    level: float = LEVEL,
    title: str = "",
) -> Figure:
    """Draw scenarios as rows: doses, time courses with bands over those as given, endpoints.

    Parameters
    ----------
    comparison : Comparison
    courses : names of predicted quantities (default: those of the first endpoints)
    endpoints : names of endpoints (default: the first `MOST_ENDPOINTS`, without days of peaks)
    level : float, of bands and error bars
    title : str

    Raises
    ------
    UnknownNameError, InputError
        For a course or endpoint that the comparison does not have.
    """
    shown = _courses(comparison, courses)
    ends = _endpoints(comparison, endpoints)
    width = (NAME + RIBBON + len(shown) * COURSE + len(ends) * FOREST
             + (1 + len(shown) + len(ends)) * BETWEEN)  # fmt: skip
    names = [_name(comparison, row) for row in range(len(comparison.scenarios))]
    drugs, same = _drugs(comparison)
    title = wrapped(title or "Alternative scenarios", width - 2 * EDGE, **TITLE)
    source = f"Bands from {comparison.predictions.source.rstrip('.')}."
    footer = Footer.measured(_key(drugs, level), source, width, EDGE, columns=4)
    lines = max([2, *(_end_title(comparison, end).count("\n") + 1 for end in ends)])
    top = 0.2 + 0.17 * (title.count("\n") + 1)
    above = top + 0.05 + (0.22 + len(same) * LANE if same else 0.0) + 0.14 * lines
    tall = max(ROW, *(0.125 * (name.count("\n") + 1) for name in names))
    sheet = _Sheet(Picture(), len(names), width, tall, above, AXIS + footer.height)
    sheet.figure.set_size_inches(width, sheet.height)
    sheet.figure.text(EDGE / width, 1 - 0.1 / sheet.height, title, va="top", **TITLE)
    footer.draw(sheet.figure)
    _names(sheet, names)
    left = NAME
    if same:
        _same_in_all(sheet.box(left, RIBBON, top + 0.22, len(same) * LANE), comparison, same)
    for row in range(sheet.rows):
        _ribbon(sheet.axes(left, RIBBON, row), comparison, row, drugs)
    left += RIBBON + BETWEEN
    for name in shown:
        for row, ax in enumerate(_column(sheet, left, COURSE)):
            _course(ax, comparison, name, row, level)
        left += COURSE + BETWEEN
    for end in ends:
        _forest(sheet.axes(left, FOREST), sheet, comparison, end, level)
        left += FOREST + BETWEEN
    return sheet.figure


def _courses(comparison: Comparison, names: Sequence[str]) -> tuple[str, ...]:
    outputs = comparison.predictions.ensemble.outputs
    for name in names:
        if name not in outputs:
            raise unknown_name("course of the comparison", name, outputs)
    needed = dict.fromkeys(e.needs for e in comparison.endpoints if e.needs != GRADE)
    return tuple(names) or tuple(needed)[:MOST_COURSES]


def _endpoints(comparison: Comparison, names: Sequence[str]) -> tuple[Endpoint, ...]:
    by_name = {e.name: e for e in comparison.endpoints}
    for name in names:
        if name not in by_name:
            raise unknown_name("endpoint", name, by_name)
    if len(names) > 2 * MOST_ENDPOINTS:
        raise InputError(f"{len(names)} endpoints do not fit a figure; name fewer")
    default = [name for name in by_name if not name.startswith("day_of_peak")]
    graded = [name for name in default if by_name[name].needs == GRADE]
    first = [*graded, *(name for name in default if name not in graded)][:MOST_ENDPOINTS]
    return tuple(by_name[name] for name in names or first)


def _drugs(comparison: Comparison) -> tuple[dict[str, str], tuple[str, ...]]:
    """The colours of the drugs whose doses differ between scenarios; those given alike in all."""
    colours = drug_colours(comparison.predictions.ensemble.model)
    given = [run.inputs for run in comparison.runs]
    drugs = dict.fromkeys(i.drug for doses in given for i in doses)
    differ = [d for d in drugs if len({_days_of(doses, d) for doses in given}) > 1]
    return {d: colours[d] for d in differ}, tuple(d for d in drugs if d not in differ)


def _days_of(given: Sequence[Input], drug: str) -> tuple[tuple[float, float], ...]:
    return tuple((i.start, i.amount) for i in given if i.drug == drug)


def _column(sheet: _Sheet, left: float, width: float) -> Iterator[Axes]:
    for row in range(sheet.rows):
        yield sheet.axes(left, width, row)


def _name(comparison: Comparison, row: int) -> str:
    """The name of a scenario in lines, and whether it is extrapolated."""
    text = "\n".join(textwrap.wrap(comparison.scenarios[row], 25))
    return f"{text}\n(extrapolated)" if comparison.outside[row] else text


def _names(sheet: _Sheet, names: Sequence[str]) -> None:
    for row, name in enumerate(names):
        height = 1 - (sheet.above + sheet.middle(row)) / sheet.height
        sheet.figure.text(EDGE / sheet.width, height, name, fontsize=SMALL, va="center",
                          weight="bold" if row == 0 else "normal")  # fmt: skip


def _same_in_all(ax: Axes, comparison: Comparison, drugs: Sequence[str]) -> None:
    """Draw the doses of the drugs that every scenario gives alike, once and in grey."""
    for place, drug in enumerate(drugs):
        days = [i.start for i in comparison.runs[0].inputs if i.drug == drug]
        ax.vlines(days, place - 0.42, place + 0.42, color=GREY, lw=0.9)
    ax.set_ylim(len(drugs) - 0.4, -0.6)
    ax.set_yticks(range(len(drugs)), drugs, fontsize=SMALL, color="#555555")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    _days(ax, comparison, -1)
    ax.set_title("drugs as given in all", fontsize=SMALL, color="#555555")


def _ribbon(ax: Axes, comparison: Comparison, row: int, drugs: Mapping[str, str]) -> None:
    """Draw the doses of a scenario, one line per drug in its colour."""
    for place, (drug, colour) in enumerate(drugs.items()):
        days = [i.start for i in comparison.runs[row].inputs if i.drug == drug]
        ax.vlines(days, place - 0.42, place + 0.42, color=colour, lw=0.9)
    ax.set_ylim(len(drugs) - 0.4, -0.6)
    ax.set_yticks([])
    ax.grid(axis="y", visible=False)
    _days(ax, comparison, row)
    if row == 0:
        words = "drugs that differ (see legend)" if drugs else "no drug differs"
        ax.set_title(words, fontsize=SMALL)


def _course(ax: Axes, comparison: Comparison, name: str, row: int, level: float) -> None:
    """Draw the band of a time course, over the band as given."""
    predictions = comparison.predictions
    given = predictions.curve(name, level, scenario=comparison.scenarios[0])
    band_here = predictions.curve(name, level, scenario=comparison.scenarios[row])
    days, log = comparison.predictions.days, _log(name)
    for band, run, colour in ((given, 0, GREY), (band_here, row, BLUE)):
        if run or colour == GREY:
            low = np.maximum(band.low, 1e-300) if log else band.low
            ax.fill_between(days, low, band.high, color=colour, alpha=0.3, lw=0)
            ax.plot(days, comparison.runs[run][name], color=colour if run else INK, lw=1.1)
    _scale(ax, comparison, name, level, log=log)
    _days(ax, comparison, row)
    if row == 0:
        ax.set_title(_title(comparison, name), fontsize=SMALL)


def _scale(ax: Axes, comparison: Comparison, name: str, level: float, *, log: bool) -> None:
    """Set the same value axis in every row."""
    bands: list[Band] = [
        comparison.predictions.curve(name, level, scenario=s) for s in comparison.scenarios
    ]
    top = max(float(band.high.max()) for band in bands) or 1.0
    if not log:
        ax.set_ylim(0.0, 1.05 * top)
        return
    positive = [float(band.low[band.low > 0].min(initial=top)) for band in bands]
    ax.set_yscale("log")
    ax.set_ylim(max(min(positive), top * 10.0**-DECADES), 1.5 * top)
    ax.yaxis.set_minor_locator(NullLocator())


def _forest(ax: Axes, sheet: _Sheet, comparison: Comparison, end: Endpoint, level: float) -> None:
    """Draw medians and intervals of an endpoint; filled where the difference excludes 0."""
    place = comparison.endpoints.index(end)
    tails = (0.5, 0.5 - level / 2, 0.5 + level / 2)
    ends = np.quantile(comparison.draws[:, place], tails, axis=1)
    ax.axvspan(ends[1, 0], ends[2, 0], color=GREY, alpha=0.25, lw=0)
    ax.axvline(ends[0, 0], color=INK, lw=0.8)
    for row in range(sheet.rows):
        height, colour = sheet.middle(row), INK if row == 0 else VERMILION
        ax.plot(ends[1:, row], [height, height], color=colour, lw=1.4, solid_capstyle="butt")
        sure = row == 0 or comparison.sure(comparison.scenarios[row], end.name, level)
        ax.plot(ends[0, row], height, "o", ms=4.5, mec=colour, mfc=colour if sure else "white")
        ax.plot(comparison.estimates[row, place], height, "|", ms=7, color=colour, mew=0.9)
    ax.set_ylim(sheet.tall, 0.0)
    ax.set_yticks([])
    ax.grid(axis="y", visible=False)
    if end.log and float(ends.min()) > 0 and float(ends.max()) > 20 * float(ends.min()):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(2, integer=end.needs == GRADE))
    ax.set_title(_end_title(comparison, end), fontsize=SMALL)
    ax.set_xlabel(unit_text(end.unit), fontsize=SMALL)


def _key(drugs: Mapping[str, str], level: float) -> list[Line2D | Patch]:
    percent = f"{100 * level:g} %"
    return [
        Patch(fc=GREY, alpha=0.4, label=f"as given: {percent} band of the parameters"),
        Patch(fc=BLUE, alpha=0.4, label=f"scenario: {percent} band; line: at the estimates"),
        Line2D([], [], color=VERMILION, marker="o", ms=4.5,
               label=f"median, {percent}; filled: paired difference excludes 0"),
        Line2D([], [], color=VERMILION, marker="|", ms=7, lw=0, label="at the estimates"),
        *(Line2D([], [], color=colour, marker="|", ms=7, mew=1.2, lw=0, label=drug)
          for drug, colour in drugs.items()),
    ]  # fmt: skip


def _days(ax: Axes, comparison: Comparison, row: int) -> None:
    days = comparison.predictions.days
    ax.set_xlim(float(days[0]) - 0.01 * float(days[-1]), float(days[-1]))
    last = row == len(comparison.scenarios) - 1
    ax.tick_params(axis="x", labelbottom=last)
    if last:
        ax.set_xlabel("day after infusion", fontsize=SMALL)


def _title(comparison: Comparison, name: str) -> str:
    part = comparison.predictions.ensemble.model[name]
    return f"{SHORT_NAMES.get(name, part.label)}, {unit_text(part.unit)}"


def _label(comparison: Comparison, end: Endpoint) -> str:
    """The label of an endpoint, with the short name of its quantity."""
    part = comparison.predictions.ensemble.model[end.needs]
    return end.label.replace(part.label, SHORT_NAMES.get(end.needs, part.label))


def _end_title(comparison: Comparison, end: Endpoint) -> str:
    return "\n".join(textwrap.wrap(_label(comparison, end), 19))


def _log(name: str) -> bool:
    return next((c.log for c in COURSES if c.ids[0] == name), True)
