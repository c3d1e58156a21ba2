"""Figures of prediction bands: of the curve, of a new reading, with the observations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .errors import unknown_name
from .panels import (
    BLUE,
    GRADES,
    SMALL,
    Course,
    course_panel,
    dose_ribbon,
    observation_key,
    rare_doses,
)
from .patient import Observation, Observations
from .plots import COURSE_HEIGHT, ROW_HEIGHT, courses_of, finish, key_below, stack, styled
from .predictions import Band, Predictions
from .simulation import Simulation

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
    figure, axes = stack(heights, title or f"{name}: prediction bands", below=1.55)
    rest = iter(axes)
    if given:
        dose_ribbon(next(rest), given, run.model)
    if graded:
        grade_chance_panel(next(rest), predictions, name, observed)
    for course in courses:
        band_panel(next(rest), predictions, run, course, observed, level)
    finish(axes, last, rare_doses(given))
    keys: list[Artist] = [*observation_key(o.kind for o in observed), *band_key(level)]
    key_below(figure, keys)
    source = "\n".join(textwrap.wrap(f"Bands from {predictions.source}.", 80))
    figure.text(0.99, 0.1 / figure.get_figheight(), source, fontsize=SMALL, ha="right", va="bottom")
    return figure


def band_panel(
    ax: Axes, predictions: Predictions, run: Simulation, course: Course,
    observations: Sequence[Observation] = (), level: float = 0.95,
) -> Axes:  # fmt: skip
    """Draw the bands of one observable, the run at the estimates, and the observations."""
    course_panel(ax, run, course, observations)
    name, scenario = course.ids[0], run.scenario.name
    bands = [(predictions.curve(name, level, scenario=scenario), CURVE)]
    if name in predictions.noise.spreads and not course.levels:
        bands.append((predictions.reading(name, level, scenario=scenario), READING))
    for band, dark in bands:
        low = np.maximum(band.low, 1e-300) if course.log else band.low
        ax.fill_between(predictions.days, low, band.high, color=BLUE, alpha=dark, lw=0, zorder=1.5)
    _make_room(ax, bands[-1][0], log=ax.get_yscale() == "log")
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
