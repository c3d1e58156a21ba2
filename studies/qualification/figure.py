"""One page: every row as published and as modelled, in panels of one unit each."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from crs_sim.figures import format_number, unit_text

# the Okabe-Ito palette of crs_sim.figures, distinguishable with colour-vision deficiency
INK, GREEN, VERMILION, GREY, BAND = "#222222", "#009E73", "#D55E00", "#999999", "#E4E4E4"
PANELS = {
    "grades22": "Worst grade, CD22", "grades19": "Worst grade, CD19", "shares": "Shares",
    "days": "Days", "fall": "Falls of ln level", "ifng": "Peak IFN-γ", "il6": "Peak IL-6",
    "il10": "Peak IL-10", "ferritin": "Ferritin", "crp": "CRP", "cells": "CAR-T cells",
    "white": "White cells", "temperature": "Highest temperature", "kinetics": "Cells, kinetics",
    "effect": "Dose and burden", "counts": "Robustness", "chance": "Mix of grades",
}  # fmt: skip
PLAIN = ("grades22", "grades19", "shares", "temperature", "effect", "counts", "chance")
"""Panels with a linear axis."""
COLUMNS, WIDTH, LINE, EXTRA = 2, 14.0, 0.23, 0.78
"""Columns of panels; inches: page, a row, what a panel needs besides its rows."""
DECADES = 4.0
SMALL, TITLE = 7.5, 9.0
NAMES = 46
"""Longest name of a row."""


def plot_rows(rows: pd.DataFrame) -> Figure:
    """All rows, in panels; each row has what was published above, the model's below."""
    present = [name for name in PANELS if (rows["panel"] == name).any()]
    columns = _split(rows, present)
    heights = [sum(_height(rows, name) for name in names) for names in columns]
    tall = max(heights) + 0.9
    figure = Figure(figsize=(WIDTH, tall), layout=None)
    for k, names in enumerate(columns):
        top = tall - 0.65
        for name in names:
            part, high = rows[rows["panel"] == name], _height(rows, name)
            left = k / COLUMNS * WIDTH + 2.95
            box = (left / WIDTH, (top - high + 0.55) / tall, 3.1 / WIDTH, (high - EXTRA) / tall)
            draw_panel(figure.add_axes(box), part, PANELS[name], plain=name in PLAIN)
            top -= high
    _legend(figure, rows, tall)
    return figure


def _split(rows: pd.DataFrame, names: list[str]) -> list[list[str]]:
    """The panels in columns of about the same height, in their order."""
    total, columns, so_far = sum(_height(rows, name) for name in names), [[]], 0.0  # type: ignore[var-annotated]
    for name in names:
        if so_far + 0.5 * _height(rows, name) > len(columns) * total / COLUMNS:
            columns.append([])
        columns[-1].append(name)
        so_far += _height(rows, name)
    return columns


def _height(rows: pd.DataFrame, name: str) -> float:
    return float((rows["panel"] == name).sum()) * LINE + EXTRA


def draw_panel(ax: Axes, part: pd.DataFrame, title: str, *, plain: bool) -> Axes:
    """Draw the rows of one panel, which share a unit or are labelled with their own."""
    units = part["unit"].unique()
    ax.set_title(title, fontsize=TITLE, weight="bold", loc="left")
    limits = _limits(part, plain)
    for y, row in enumerate(part.itertuples()):
        _row(ax, y, row, limits)
    ax.set_yticks(range(len(part)), [f"{_short(r.quantity)}  {r.id}" for r in part.itertuples()],
                  fontsize=SMALL)  # fmt: skip
    for label, passed in zip(ax.get_yticklabels(), part["passed"], strict=True):
        label.set_color(INK if passed else VERMILION)
    ax.set_ylim(len(part) - 0.5, -0.5)
    ax.set_xscale("linear" if plain else "log")
    ax.set_xlim(*limits)
    if plain:
        ax.xaxis.set_major_locator(MaxNLocator(6))
    else:
        narrow = limits[1] / limits[0] < 100.0
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=9))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_number(x)))
    ax.set_xlabel(" or ".join(unit_text(u) for u in units if u not in ("1", "")) or "share of 1",
                  fontsize=SMALL)  # fmt: skip
    ax.tick_params(labelsize=SMALL, length=2)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return ax


def _row(ax: Axes, y: int, row: object, limits: tuple[float, float]) -> None:
    """The band of what passes, the published value, and the model's value with its interval."""
    low, high, published, value, ends, passed = (
        row.low, row.high, row.published, row.model, (row.model_low, row.model_high), row.passed,  # type: ignore[attr-defined]
    )  # fmt: skip
    colour, (left, right) = GREEN if passed else VERMILION, limits
    start, stop = max(low, left), min(high, right)
    ax.barh(y, stop - start if stop > start else 0.004 * (right - left), left=start, height=0.8,
            color=BAND, lw=0)  # fmt: skip
    if not math.isnan(published):
        ax.plot([min(max(published, left), right)], [y - 0.17], "D", color=INK, ms=4, clip_on=False)
    if math.isnan(value):
        _verdict(ax, y, "not in the model" if "not in" in row.reason else "no value", colour)  # type: ignore[attr-defined]
        return
    shown = min(max(value, left), right)
    if not math.isnan(ends[0]):
        ax.plot([min(max(e, left), right) for e in ends], [y + 0.17] * 2, "-", color=colour, lw=1.4)
    mark = "o" if shown == value else "<" if value < left else ">"
    ax.plot([shown], [y + 0.17], mark, color=colour, ms=5, clip_on=False)
    _verdict(ax, y, "pass" if passed else "fail", colour)


def _verdict(ax: Axes, y: int, text: str, colour: str) -> None:
    ax.text(1.02, y, text, color=colour, fontsize=SMALL - 1, va="center",
            transform=ax.get_yaxis_transform())  # fmt: skip


def _limits(part: pd.DataFrame, plain: bool) -> tuple[float, float]:
    """The limits of an axis: around what passes, and the model's values, if not too far."""
    wanted = part[["low", "high", "published"]].to_numpy().ravel()
    model = part[["model", "model_low", "model_high"]].to_numpy().ravel()
    wanted, model = wanted[np.isfinite(wanted)], model[np.isfinite(model)]
    if plain:
        both = np.concatenate([wanted, model])
        low, high = float(both.min()), float(both.max())
        low = 0.0 if low < 0.5 * high else low
        return low, high + 0.06 * (high - low or 1.0)
    wanted, model = wanted[wanted > 0], model[model > 0]
    low, high = float(wanted.min()), float(wanted.max())
    if len(model):
        low = max(min(low, float(model.min())), high / 10.0**DECADES)
        high = min(max(high, float(model.max())), low * 10.0 ** (DECADES + 1.0))
    return low / 1.3, high * 1.3


def _short(text: str) -> str:
    return text if len(text) <= NAMES else text[: NAMES - 1].rstrip() + "…"


def _legend(figure: Figure, rows: pd.DataFrame, tall: float) -> None:
    keys = [
        Line2D([], [], marker="D", ls="", color=INK, ms=5, label="published"),
        Patch(color=BAND, label="where the model's value passes"),
        Line2D([], [], marker="o", color=GREEN, label="model: passes, with its 95 % interval"),
        Line2D([], [], marker="o", color=VERMILION, label="model: fails"),
        Line2D([], [], marker=">", ls="", color=VERMILION, label="beyond the axis"),
    ]
    figure.legend(handles=keys, loc="upper right", ncols=5, fontsize=SMALL + 0.5, frameon=False,
                  bbox_to_anchor=(0.99, 1.0 - 0.05 / tall))  # fmt: skip
    figure.text(0.01, 1.0 - 0.15 / tall, f"{int(rows['passed'].sum())} of {len(rows)} rows pass",
                fontsize=11, weight="bold", va="top")  # fmt: skip
    figure.text(0.01, 0.12 / tall, "Research use only.", fontsize=SMALL, color=GREY)
