"""One page of the refitted patients: readings, and the course fitted to IFN-g and IL-6."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .design import LAST_FITTED, MAIN

BLUE, VERMILION, INK, GREY = "#0072B2", "#D55E00", "#222222", "#999999"
COLOURS = {"ifng": BLUE, "il6": VERMILION}
LABELS = {"ifng": "IFN-γ", "il6": "IL-6"}
COLUMNS, SIDE, SMALL = 5, 2.35, 7.5
LOWEST, HIGHEST = 0.1, 2e4
"""pg/mL: the axis of every panel."""


def plot_patients(found: pd.DataFrame) -> Figure:
    """A panel for each patient of the main variant, all with the same axes."""
    rows = [] if "fit" not in found else [
        row for row in found[found["variant"] == MAIN.name].to_dict("records") if not row["failed"]
    ]  # fmt: skip
    lines = max(1, math.ceil(len(rows) / COLUMNS))
    figure = Figure(figsize=(COLUMNS * SIDE, lines * SIDE + 0.7), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, row in zip(axes, rows, strict=False):
        draw_patient(ax, row)
    for ax in axes[len(rows) :]:
        ax.set_visible(False)
    figure.supxlabel("day after infusion", fontsize=SMALL + 1)
    figure.supylabel("pg/mL", fontsize=SMALL + 1)
    keys = [Line2D([], [], color=COLOURS[name], label=LABELS[name]) for name in COLOURS]
    for mark, label in (("o", "reading"), ("^", "at the assay's ceiling")):
        keys.append(Line2D([], [], marker=mark, ls="", color=GREY, ms=4, label=label))
    figure.legend(handles=keys, ncols=4, fontsize=SMALL, frameon=False, loc="outside upper right")
    return figure


def draw_patient(ax: Axes, row: dict[Any, Any]) -> Axes:
    """Readings and fitted course of one patient; the title has grade, fitted grade and error."""
    course = row["course"]
    for name, colour in COLOURS.items():
        ax.plot(course.days, np.maximum(course[name], 1e-6), color=colour, lw=1.2)
    for o in row["fit"].problem.patient.observations:
        if o.observable in COLOURS:
            mark = {"above": "^", "below": "v"}.get(o.kind, "o")
            ax.plot([o.day], [o.value], mark, color=COLOURS[o.observable], ms=3, mew=0)
    ax.set_yscale("log")
    ax.set_ylim(LOWEST, HIGHEST)
    ax.set_xlim(-0.5, LAST_FITTED + 1.0)
    wrong = row["grade"] != row["fitted_grade"]
    ax.set_title(f"{row['id']}: grade {row['grade']:g}, fitted {row['fitted_grade']:g}, "
                 f"rms {row['rms']:.2f}", fontsize=SMALL, loc="left",
                 color=VERMILION if wrong else INK)  # fmt: skip
    ax.tick_params(labelsize=SMALL, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
