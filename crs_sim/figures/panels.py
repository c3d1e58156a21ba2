"""Single panels of a figure: doses, CRS grade, or a time course with its observations.

Each function takes an axes and returns it. Every artist for a single observation has the gid
``observed-<id>``, so that it can be found in a figure and in an SVG file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..dosing import Input
from ..fitting import Noise, levels_within
from ..model import Array, Model, pretty
from ..patients import Observation
from ..simulation import Simulation

# the Okabe-Ito palette, distinguishable with colour-vision deficiency
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, GREY, INK = "#CC79A7", "#56B4E9", "#999999", "#222222"
LINES = (BLUE, VERMILION, GREEN, PURPLE)
DRUGS = (INK, PURPLE, BLUE, GREEN, ORANGE, SKY, VERMILION, GREY)
GRADES = ("#F1F1F1", "#FEE08B", "#FDAE61", "#E06010", "#7A2A04")
SMALL = 7.5
DECADES_SHOWN = 5.0
FEW_DOSES = 2

_M, _L = Outline.MOVETO, Outline.LINETO
_ARROW = ((-0.4, 0), (0.4, 0), (0, 0), (0, -1), (-0.28, -0.62), (0, -1), (0.28, -0.62))
DOWN = Outline(_ARROW, (_M, _L, _M, _L, _M, _L, _L))
UP = Outline([(x, -y) for x, y in _ARROW], DOWN.codes)
MARKS: dict[str, dict[str, Any]] = {
    "value": {"marker": "o", "markersize": 5, "mfc": INK},
    "below": {"marker": DOWN, "markersize": 20, "mfc": "none"},
    "above": {"marker": UP, "markersize": 20, "mfc": "none"},
    "peak": {"marker": "D", "markersize": 4.5, "mfc": "white"},
    "sometime": {"marker": "o", "markersize": 5, "mfc": "white"},
    "ratio": {"marker": "s", "markersize": 4.5, "mfc": ORANGE},
}
MARKS["ratio_below"], MARKS["ratio_above"] = MARKS["below"], MARKS["above"]
# the sign before a ratio, and the offset of its text above the mark in points: away from the arrow
RATIO_TEXT = {"ratio": ("", -6), "ratio_below": ("≤ ", 8), "ratio_above": ("≥ ", -8)}
HALO = [withStroke(linewidth=2, foreground="white")]
KEY = {
    "value": "observed",
    "below": "observed: below",
    "above": "observed: above",
    "peak": "observed peak, within the bar",
    "sometime": "observed once, within the bar",
    "ratio": "observed ratio (×) to the square",
}


@dataclass(frozen=True)
class Course:
    """A panel of time courses sharing a unit: its name, the ids drawn, and line labels."""

    name: str
    ids: tuple[str, ...]
    lines: tuple[str, ...] = ()
    log: bool = True
    levels: tuple[str, ...] = ()


COURSES = (
    Course("VCN", ("vcn",)),
    Course("IFN-γ", ("ifng", "ifng_total"), ("free", "free and\nbound")),
    Course("IL-6", ("il6",), ("as assayed",)),
    Course("CXCL10", ("cxcl10",)),
    Course("Ferritin", ("ferritin",)),
    Course("sIL-2R", ("sil2r",)),
    Course("CRP", ("crp",), log=False),
    Course("PSA", ("psa",)),
    Course("Shock", ("shock",), log=False, levels=("grade_1", "grade_2", "grade_3", "grade_4")),
)


def format_number(value: float) -> str:
    """Format a number compactly.

    >>> [format_number(x) for x in (5e6, 0.4, 21033, 8.0)]
    ['5e6', '0.4', '21033', '8']
    """
    text = f"{value:.3g}" if abs(value) >= 1e6 or 0 < abs(value) < 1e-3 else f"{value:.6g}"
    return text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


# --- doses ----------------------------------------------------------------------------------------


def drug_colours(model: Model) -> dict[str, str]:
    """The colour of each drug of a model, the same in every figure."""
    return {drug.name: DRUGS[k % len(DRUGS)] for k, drug in enumerate(model.drugs)}


def dose_ribbon(ax: Axes, given: Sequence[Input], model: Model) -> Axes:
    """Draw one row per drug: a tick per dose, a bar per infusion, a band under repeated doses.

    Parameters
    ----------
    ax : Axes
    given : the doses of a run (its ``inputs``)
    model : Model, with these drugs
    """
    colours = drug_colours(model)
    drugs = list(dict.fromkeys(i.drug for i in given))
    for row, drug in enumerate(drugs):
        doses = sorted((i for i in given if i.drug == drug), key=lambda i: i.start)
        colour = colours[drug]
        for first, last in _repeats(doses):
            ax.barh(row, last - first, left=first, height=0.7, color=colour, alpha=0.18, lw=0)
        infusions = [(i.start, i.stop - i.start) for i in doses if i.stop > i.start]
        ax.broken_barh(infusions, (row - 0.3, 0.6), color=colour, lw=0)
        ax.vlines([i.start for i in doses], row - 0.38, row + 0.38, color=colour, lw=1.1)
        _right_label(ax, row, _amounts(doses))
    ax.set_yticks(range(len(drugs)), drugs, fontsize=SMALL)
    ax.set_ylim(len(drugs) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    return ax


def _right_label(ax: Axes, height: float, text: str) -> None:
    ax.annotate(text, (1.0, height), (6, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=SMALL,
                annotation_clip=False)  # fmt: skip


def _repeats(given: Sequence[Input]) -> list[tuple[float, float]]:
    """First and last day of each series of more than three doses, at most a day apart."""
    series: list[list[Input]] = [[]]
    for dose in given:
        if series[-1] and dose.start - series[-1][-1].start > 1.01:
            series.append([])
        series[-1].append(dose)
    return [(s[0].start, s[-1].stop) for s in series if len(s) > 3]


def _amounts(given: Sequence[Input]) -> str:
    counts = Counter(f"{format_number(i.dose.amount)} {i.dose.unit}".strip() for i in given)
    if len(counts) > 2:
        return f"{len(given)} doses"
    return ", ".join(text if n == 1 else f"{n} × {text}" for text, n in counts.items())


def rare_doses(given: Sequence[Input]) -> list[float]:
    """Days of the drugs given once or twice, to be marked in every panel."""
    counts = Counter(i.drug for i in given)
    return sorted({i.start for i in given if counts[i.drug] <= FEW_DOSES})


# --- the grade ------------------------------------------------------------------------------------


def grade_ribbon(ax: Axes, sim: Simulation, observations: Iterable[Observation] = ()) -> Axes:
    """Draw the CRS grade as colour: simulated in the lower row, observed in the upper.

    An observed grade is drawn one day wide, or narrower where observations are closer.
    """
    graded = sorted((o for o in observations if o.kind == "grade"), key=lambda o: o.day)
    for start, stop, grade in _grade_periods(sim.days, sim["crs_grade"]):
        ax.barh(0, stop - start, left=start, height=0.86, color=GRADES[grade], lw=0)
        if stop - start >= 0.6:
            _digit(ax, (start + stop) / 2, 0, grade)
    days = np.array([o.day for o in graded])
    width = min(1.0, float(np.diff(days).min())) if len(set(days)) == len(days) > 1 else 1.0
    for o in graded:
        bar = ax.barh(1, width, left=o.day - width / 2, height=0.86, color=GRADES[int(o.value)],
                      ec="white", lw=0.6)  # fmt: skip
        bar[0].set_gid(f"observed-{o.id}")
        _digit(ax, o.day, 1, int(o.value))
    rows = ["model", "observed"][: 2 if graded else 1]
    ax.set_yticks(range(len(rows)), rows, fontsize=SMALL)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    key = [Patch(fc=colour, ec=GREY, lw=0.4, label=str(g)) for g, colour in enumerate(GRADES)]
    ax.legend(handles=key, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=5, frameon=False,
              fontsize=SMALL, handlelength=0.9, handletextpad=0.3, columnspacing=0.7,
              title="CRS grade (ASTCT)", title_fontsize=SMALL, alignment="left")  # fmt: skip
    return ax


def _grade_periods(days: Array, grades: Array) -> list[tuple[float, float, int]]:
    """(first day, last day, grade) of each period of one grade; a sample holds until the next."""
    edges = [0, *(np.flatnonzero(np.diff(grades)) + 1), len(days) - 1]
    pairs = [(a, b) for a, b in pairwise(edges) if b > a]
    return [(float(days[a]), float(days[b]), int(grades[a])) for a, b in pairs]


def _digit(ax: Axes, day: float, row: float, grade: int) -> None:
    colour = "white" if grade >= 3 else INK
    ax.text(day, row, str(grade), ha="center", va="center", fontsize=7, color=colour, clip_on=True)


# --- time courses ---------------------------------------------------------------------------------


def course_panel(
    ax: Axes,
    sim: Simulation,
    course: Course,
    observations: Iterable[Observation] = (),
    *,
    noise: Noise | None = None,
) -> Axes:
    """Draw time courses that share a unit, with their observations.

    Parameters
    ----------
    ax : Axes
    sim : Simulation
    course : Course, to be drawn
    observations : those of other observables are ignored
    noise : if given, each observed value gets an error bar (95 % of the residual error)
    """
    shown = [o for o in observations if o.observable in course.ids and o.kind != "grade"]
    if not any((sim[name] > 0).any() for name in course.ids) and not shown:
        course = replace(course, log=False)
    for k, name in enumerate(course.ids):
        curve = np.where(sim[name] > 0, sim[name], np.nan) if course.log else sim[name]
        label = course.lines[k] if course.lines else "_"
        ax.plot(sim.days, curve, color=LINES[k % len(LINES)], lw=1.4, label=label,
                zorder=3 - 0.1 * k)  # fmt: skip
    for o in shown:
        mark(ax, o, sim, noise=noise)
    _scale(ax, sim, course, shown)
    ax.set_ylabel(f"{course.name}\n{unit_text(sim.model[course.ids[0]].unit)}", fontsize=SMALL)
    if course.lines:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=SMALL,
                  handlelength=1.2, borderaxespad=0.3)  # fmt: skip
    levels = [name for name in course.levels if name in sim.model.symbols]
    if levels:
        _levels(ax, sim, levels)
    return ax


def unit_text(unit: str, none: str = "(no unit)") -> str:
    """Format a unit for an axis or a report; ``none`` if there is no unit.

    >>> unit_text("copies_per_ug * day"), unit_text("1")
    ('copies/µg · day', '(no unit)')
    """
    text = " · ".join(pretty(part) for part in unit.split(" * ")).replace("ug", "µg")
    return none if text in ("1", "") else text


def _scale(ax: Axes, sim: Simulation, course: Course, shown: Sequence[Observation]) -> None:
    levels = [o.value for o in shown if not o.kind.startswith("ratio")]
    tops = [float(sim[name].max()) for name in course.ids] + levels
    tops += [level(sim, name) for name in course.levels if name in sim.model.symbols]
    top = max(tops) if max(tops) > 0 else 1.0
    if course.log:
        _log_scale(ax, sim, course, top, min(levels, default=top))
        return
    arrow = any(o.kind.endswith("below") for o in shown)
    ax.set_ylim(-(0.2 if arrow else 0.06) * top, 1.2 * top)
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _log_scale(ax: Axes, sim: Simulation, course: Course, top: float, lowest: float) -> None:
    """Set a log axis with at most `DECADES_SHOWN` of the curves, and every observation."""
    lows = [float(sim[n][sim[n] > 0].min()) for n in course.ids if (sim[n] > 0).any()]
    bottom = min(max(min(lows, default=top), top * 10**-DECADES_SHOWN), lowest, top / 10)
    # space for an arrow at a limit, one fifth of the panel height
    bottom, top = bottom * (bottom / top) ** 0.2, top * (top / bottom) ** 0.14
    ax.set_yscale("log")
    ax.set_ylim(bottom, top)
    narrow = top / bottom < 150
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if narrow else (1.0,), numticks=5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_number(y)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def _levels(ax: Axes, sim: Simulation, names: Sequence[str]) -> None:
    """Draw dashed lines at the cut-points, labelled on the right without overlap."""
    heights = [level(sim, name) for name in names]
    bottom, top = ax.get_ylim()
    gap = 0.14 * (top - bottom)
    places = spread_out(heights, gap, bottom + gap / 2)
    for k, (height, place) in enumerate(zip(heights, places, strict=True)):
        ax.axhline(height, color=GRADES[min(k + 1, 4)], lw=0.9, ls=(0, (4, 2)), zorder=1)
        ax.annotate(f"grade {k + 1}", (1.0, height), (1.035, place), va="center",
                    xycoords=("axes fraction", "data"), textcoords=("axes fraction", "data"),
                    fontsize=SMALL, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY,
                                "shrinkA": 0, "shrinkB": 0})  # fmt: skip


def level(sim: Simulation, name: str) -> float:
    """The value of a cut-point: a parameter, or a quantity computed from parameters."""
    return sim.model.values[name] if name in sim.model.values else float(sim[name][0])


def spread_out(heights: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Move ascending heights up (never down) until each is a gap above the one before.

    >>> spread_out([0.0, 0.5, 5.0], 1.0, -9.0)
    [0.0, 1.0, 5.0]
    """
    places: list[float] = []
    for height in heights:
        places.append(max(height, lowest if not places else places[-1] + gap))
    return places


# --- observations ---------------------------------------------------------------------------------


def mark(ax: Axes, o: Observation, sim: Simulation, *, noise: Noise | None = None) -> Axes:
    """Draw one observation: a point, an arrow at a limit, a bar over a window, a ratio line."""
    draw: Callable[[Axes, Observation, Simulation], Line2D] = _point
    if o.kind.startswith("ratio"):
        draw = _ratio
    elif o.kind in ("peak", "sometime"):
        draw = _window
    draw(ax, o, sim).set_gid(f"observed-{o.id}")
    if noise is not None and o.kind in ("value", "peak", "sometime"):
        middle = (o.day + o.until) / 2
        low, high = levels_within(noise.spread(o), o.value)
        high = high if math.isfinite(high) else o.value
        ax.vlines(middle, low, high, color=INK, lw=0.9, zorder=3)
    return ax


def _style(kind: str) -> dict[str, Any]:
    return {"ls": "none", "mec": INK, "mew": 1.1, "zorder": 4, **MARKS[kind]}


def _point(ax: Axes, o: Observation, sim: Simulation) -> Line2D:
    return ax.plot(o.day, o.value, **_style(o.kind))[0]


def _window(ax: Axes, o: Observation, sim: Simulation) -> Line2D:
    ax.plot([o.day, o.until], [o.value] * 2, color=INK, lw=1.2, marker="|", markersize=7, zorder=3)
    middle = (o.day + o.until) / 2
    return ax.plot(middle, o.value, **_style(o.kind))[0]


def _ratio(ax: Axes, o: Observation, sim: Simulation) -> Line2D:
    """Draw a line from the simulated reference level to that level times the observed ratio."""
    before = float(np.interp(o.reference, sim.days, sim[o.observable]))
    after = before * o.value
    ax.plot([o.reference, o.day], [before, after], color=ORANGE, lw=1, ls=":", zorder=3)
    ax.plot(o.reference, before, marker="s", markersize=4.5, mfc="white", mec=ORANGE, zorder=4)
    sign, rise = RATIO_TEXT[o.kind]
    ax.annotate(f"{sign}× {o.value:g}", (o.day, after), (5, rise), textcoords="offset points",
                fontsize=SMALL, va="center", color=INK, zorder=5, path_effects=HALO)  # fmt: skip
    style = {**_style(o.kind), "mec": ORANGE}
    return ax.plot(o.day, after, **style)[0]


def observation_key(kinds: Iterable[str], *, noise: bool = False) -> list[Line2D]:
    """Legend handles for the kinds of observation in a figure."""
    shown = {name for kind in kinds for name in (kind, kind.removeprefix("ratio_"))}
    shown |= {"ratio"} if any(kind.startswith("ratio") for kind in shown) else set()
    handles = [Line2D([], [], label=KEY[kind], **_style(kind)) for kind in KEY if kind in shown]
    for handle in handles:
        handle.set_markersize(min(handle.get_markersize(), 14))
    if noise and handles:
        style: dict[str, Any] = {"ls": "none", "marker": "|", "ms": 9, "color": INK}
        handles.append(Line2D([], [], label="95 % residual error of a reading", **style))
    return [Line2D([], [], color=BLUE, lw=1.4, label="model"), *handles] if handles else []
