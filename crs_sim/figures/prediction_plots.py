"""Figures of predictions: bands, readings left out, courses and grades of virtual patients."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from ..errors import RESEARCH_ONLY, unknown_name
from ..fitting import NORMAL_95
from ..patients import Observation, Observations
from ..simulation import Simulation
from ..uncertainty import Band, Predictions
from .panels import (
    BLUE,
    COURSES,
    GRADES,
    GREY,
    INK,
    SMALL,
    VERMILION,
    Course,
    course_panel,
    dose_ribbon,
    observation_key,
    rare_doses,
    unit_text,
)
from .plots import (
    COURSE_HEIGHT,
    LEFT,
    ROW_HEIGHT,
    WIDTH,
    Footer,
    Picture,
    courses_of,
    finish,
    key_below,
    stack,
    styled,
)

CURVE, READING = 0.38, 0.14
"""Opacity of the two bands."""


@styled
def plot_predictions(
    predictions: Predictions,
    run: Simulation,
    *,
    observations: Observations | Iterable[Observation] = (),
    level: float = 0.95,
    title: str = "",
) -> Figure:
    """Draw the bands of every observable under one scenario, with doses and grade probabilities.

    Parameters
    ----------
    predictions : Predictions, including the scenario of the run
    run : Simulation, at the estimates, of that scenario
    observations : in the model's units; none for a scenario that was not observed
    level : float, of both bands
    title : str

    Raises
    ------
    UnknownNameError
        If the run's scenario was not predicted.
    """
    name, last = run.scenario.name, float(predictions.days[-1])
    if name not in predictions.scenarios:
        raise unknown_name("scenario", name, predictions.scenarios)
    run = run.at(run.days[run.days <= last])
    units = predictions.ensemble.units
    observed = [o for o in observations if o.day <= last and o.observable in units]
    every = (_predicted(c, predictions) for c in courses_of(run, (), observed))
    courses = [course for course in every if course.ids]
    given, graded = run.inputs, predictions.noise.grade is not None
    ribbon = max(1, len({i.drug for i in given})) * ROW_HEIGHT if given else 0.0
    heights = [h for h in (ribbon, 0.75 * graded) if h] + [COURSE_HEIGHT] * len(courses)
    keys: list[Artist] = [*observation_key(o.kind for o in observed), *band_key(level)]
    footer = Footer.measured(keys, f"Bands from {predictions.source}.", WIDTH, LEFT, columns=3)
    below = 0.5 + footer.height
    figure, axes = stack(heights, title or f"{name}: prediction bands", below=below)
    rest = iter(axes)
    if given:
        dose_ribbon(next(rest), given, run.model)
    if graded:
        grade_chance_panel(next(rest), predictions, name, observed)
    for course in courses:
        band_panel(next(rest), predictions, run, course, observed, level)
    finish(axes, last, rare_doses(given))
    footer.draw(figure, notice=False)
    return figure


def band_panel(
    ax: Axes, predictions: Predictions, run: Simulation, course: Course,
    observations: Sequence[Observation] = (), level: float = 0.95,
) -> Axes:  # fmt: skip
    """Draw the bands of one observable, the run at the estimates, and the observations."""
    course_panel(ax, run, course, observations)
    name, scenario = course.ids[0], run.scenario.name
    bands = [(predictions.curve(name, level, scenario=scenario), CURVE)]
    for entry in () if course.levels else predictions.noise_entries(name):  # of each assay
        bands.append((predictions.reading(entry, level, scenario=scenario), READING))
    for band, dark in bands:
        low = np.maximum(band.low, 1e-300) if course.log else band.low
        ax.fill_between(predictions.days, low, band.high, color=BLUE, alpha=dark, lw=0, zorder=1.5)
    for band, _ in bands[1:] or bands:
        _make_room(ax, band, log=ax.get_yscale() == "log")
    return ax


def grade_chance_panel(
    ax: Axes, predictions: Predictions, scenario: str, observations: Iterable[Observation] = ()
) -> Axes:
    """Draw the probability of each grade by day, stacked; observed grades as digits above."""
    chances = predictions.grade_chances(scenario)
    ax.stackplot(predictions.days, chances.T, colors=GRADES, lw=0)
    for o in observations:
        if o.kind == "grade":
            text = ax.text(o.day, 1.03, str(int(o.value)), ha="center", va="bottom", fontsize=7)
            text.set_gid(f"observed-{o.id}")
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])
    ax.set_ylabel("probability\nof a grade", fontsize=SMALL)
    key = [Patch(fc=colour, ec="#999999", lw=0.4, label=str(g)) for g, colour in enumerate(GRADES)]
    ax.legend(handles=key, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=5, frameon=False,
              fontsize=SMALL, handlelength=0.9, handletextpad=0.3, columnspacing=0.7,
              title="CRS grade (digits above:\nobserved)", title_fontsize=SMALL,
              alignment="left")  # fmt: skip
    return ax


def band_key(level: float) -> list[Patch]:
    """Legend handles for `band_panel`."""
    percent = f"{100 * level:g} %"
    return [
        Patch(fc=BLUE, alpha=CURVE, label=f"{percent} band of the curve: parameters"),
        Patch(fc=BLUE, alpha=READING,
              label=f"{percent} band of a reading: parameters and residual error"),
    ]  # fmt: skip


def _predicted(course: Course, predictions: Predictions) -> Course:
    """The part of a course that has bands."""
    ids = tuple(name for name in course.ids if name in predictions.ensemble.outputs)
    return replace(course, ids=ids[:1], lines=())


def _make_room(ax: Axes, band: Band, *, log: bool) -> None:
    bottom, top = ax.get_ylim()
    highest = float(band.high.max())
    if log:
        ax.set_ylim(max(min(bottom, float(band.low.min())), 0.1 * bottom), max(top, 1.2 * highest))
    else:
        ax.set_ylim(bottom, max(top, 1.05 * highest))


ROW, GAP, ABOVE, BELOW = 0.72, 0.13, 0.72, 0.95
"""Inches: a row, between rows, and the margins."""
NAME, COURSE, BETWEEN = 1.75, 1.75, 0.5
BAR, BAR_HEIGHT, RIGHT = 5.6, 0.27, 0.85
DECADES = 5.0
SEVERE_GRADE = 3
LEGIBLE = 0.06
"""Bars with a smaller share are not labelled with their number."""
COURSE_BY_ID = {course.ids[0]: course for course in COURSES}


@styled
def plot_population_bands(
    bands: pd.DataFrame, courses: Mapping[str, Mapping[str, str]], *, title: str = ""
) -> Figure:
    """Draw time courses by scenario: 5 to 95 % and 25 to 75 % of the patients, and the median.

    Parameters
    ----------
    bands : DataFrame, as `crs_sim.populationtables.Summary.bands`
    courses : mapping of name to label (``label``) and unit (``unit``), one column each
    title : str
    """
    scenarios = list(dict.fromkeys(bands["scenario"]))
    width = NAME + len(courses) * (COURSE + BETWEEN)
    height = ABOVE + BELOW + len(scenarios) * (ROW + GAP) - GAP
    figure = Picture(figsize=(width, height))
    for row, scenario in enumerate(scenarios):
        top = ABOVE + row * (ROW + GAP)
        _name(figure, scenario, (top + ROW / 2), first=row == 0)
        for place, (name, about) in enumerate(courses.items()):
            left = NAME + place * (COURSE + BETWEEN)
            ax = figure.add_axes((left / width, 1 - (top + ROW) / height, COURSE / width,
                                  ROW / height))  # fmt: skip
            _panel(ax, bands[bands["course"] == name], scenario, scenarios[0])
            _scale(ax, bands[bands["course"] == name], name)
            if row == 0:
                ax.set_title(_title(name, about), fontsize=SMALL)
            _days(ax, last=row == len(scenarios) - 1)
    handles = [
        Patch(fc=BLUE, alpha=0.25, label="5 to 95 % of the patients"),
        Patch(fc=BLUE, alpha=0.55, label="25 to 75 %"),
        Line2D([], [], color=BLUE, lw=1.4, label="median"),
        Line2D([], [], color=GREY, lw=1.0, label=f"median {scenarios[0]}"),
        Line2D([], [], color=GREY, lw=1.0, ls=":", label=f"5 and 95 % {scenarios[0]}"),
    ]
    figure.legend(handles=handles, loc="lower left", ncols=5, frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(0.0, 0.24 / height))  # fmt: skip
    _title_and_note(figure, title or "Virtual patients")
    return figure


def _panel(ax: Axes, table: pd.DataFrame, scenario: str, given: str) -> None:
    rows, base = (table[table["scenario"] == name] for name in (scenario, given))
    days = rows["day"].to_numpy()
    for low, high, dark in (("p05", "p95", 0.22), ("p25", "p75", 0.42)):
        ax.fill_between(days, rows[low], rows[high], color=BLUE, alpha=dark, lw=0)
    ax.plot(days, rows["median"], color=BLUE, lw=1.4)
    if scenario != given:
        for name, style in (("p05", ":"), ("median", "-"), ("p95", ":")):
            ax.plot(days, base[name], color=GREY, lw=1.0, ls=style)
    ax.set_xlim(float(days[0]), float(days[-1]))


def _scale(ax: Axes, table: pd.DataFrame, name: str) -> None:
    """Set the same value axis in every row."""
    top = float(table["p95"].max()) or 1.0
    if name in COURSE_BY_ID and not COURSE_BY_ID[name].log:
        ax.set_ylim(0.0, 1.05 * top)
        return
    low = table["p05"].to_numpy()
    ax.set_yscale("log")
    ax.set_ylim(max(float(low[low > 0].min(initial=top)), top * 10.0**-DECADES) / 1.3, 1.5 * top)
    ax.yaxis.set_minor_locator(NullLocator())


def _days(ax: Axes, *, last: bool) -> None:
    ax.tick_params(axis="x", labelbottom=last)
    if last:
        ax.set_xlabel("day after infusion", fontsize=SMALL)


def _title(name: str, about: Mapping[str, str]) -> str:
    label = COURSE_BY_ID[name].name if name in COURSE_BY_ID else about["label"]
    return "\n".join(textwrap.wrap(f"{label}, {unit_text(about['unit'])}", 34))


@styled
def plot_population_grades(grades: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw worst grades as stacked bars, one per scenario: share of the patients at each grade.

    Parameters
    ----------
    grades : DataFrame, as `crs_sim.populationtables.Summary.grades`
    title : str
    """
    rows = len(grades)
    width, height = NAME + BAR + RIGHT, ABOVE + 1.0 + rows * (BAR_HEIGHT + 0.13)
    figure = Picture(figsize=(width, height))
    tall = rows * (BAR_HEIGHT + 0.13)
    ax = figure.add_axes((NAME / width, 1.0 / height, BAR / width, tall / height))
    left = np.zeros(rows)
    for grade, colour in enumerate(GRADES):
        shares = 100 * grades[f"grade_{grade}"].to_numpy()
        ax.barh(np.arange(rows), shares, left=left, height=0.68, color=colour, ec="#999999", lw=0.4)
        _numbers(ax, shares, left, "white" if grade >= SEVERE_GRADE else INK)
        left += shares
    for row, (name, severe) in enumerate(
        zip(grades["scenario"], grades["grade_3_or_more"], strict=True)
    ):
        centre = ABOVE + (row + 0.5) * (BAR_HEIGHT + 0.13)
        _name(figure, name, centre, first=row == 0)
        figure.text((NAME + BAR + 0.15) / width, 1 - centre / height, f"{100 * severe:.0f} %",
                    fontsize=SMALL, va="center")  # fmt: skip
    figure.text((NAME + BAR + 0.15) / width, 1 - (ABOVE - 0.02) / height, "grade 3\nor more",
                fontsize=SMALL, va="bottom")  # fmt: skip
    ax.set(xlim=(0, 100), ylim=(rows - 0.5, -0.5), yticks=[])
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("share of the virtual patients, %", fontsize=SMALL)
    key = [Patch(fc=c, ec="#999999", lw=0.4, label=f"grade {g}") for g, c in enumerate(GRADES)]
    figure.legend(handles=key, loc="lower left", ncols=5, frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(NAME / width - 0.01, 0.24 / height))  # fmt: skip
    _title_and_note(figure, title or "Worst CRS grade of virtual patients")
    return figure


def _numbers(ax: Axes, shares: Any, left: Any, colour: str) -> None:
    for row, (share, start) in enumerate(zip(shares, left, strict=True)):
        if share >= 100 * LEGIBLE:
            ax.text(start + share / 2, row, f"{share:.0f}", ha="center", va="center",
                    fontsize=SMALL, color=colour)  # fmt: skip


def _name(figure: Figure, name: str, down: float, *, first: bool) -> None:
    """Write a scenario's name at a distance from the top in inches."""
    width, height = figure.get_size_inches()
    figure.text(0.08 / width, 1 - down / height, "\n".join(textwrap.wrap(name, 20)),
                fontsize=SMALL, va="center", weight="bold" if first else "normal")  # fmt: skip


def _title_and_note(figure: Figure, title: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.08 / width, 1 - 0.2 / height, title, fontsize=10, weight="bold", va="center")
    figure.text(0.08 / width, 0.1 / height, RESEARCH_ONLY, fontsize=SMALL, color="#555555")


def figures_of(
    bands: pd.DataFrame, grades: pd.DataFrame | None, courses: Mapping[str, Mapping[str, str]],
    title: str,
) -> Sequence[tuple[str, Figure]]:  # fmt: skip
    """The available figures, with the names of their files."""
    found = []
    if len(bands):
        found.append(("bands", plot_population_bands(bands, courses, title=f"{title}: courses")))
    if grades is not None:
        found.append(("grades", plot_population_grades(grades, title=f"{title}: worst CRS grade")))
    return found


@styled
def plot_left_out(left_out: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the error of each reading, in the fit and predicted with the reading left out.

    Parameters
    ----------
    left_out : the columns of `crs_sim.uncertainty.leave_out_table`
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
    averaged = np.copysign(np.sqrt(left_out["deviance"].clip(lower=0)), left_out["residual"])
    off = left_out["off_by"].fillna(averaged).to_numpy()  # of a limit or grade, as its probability
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
