"""The figure: work-precision curves of every tool, and time against problem size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .case import GOOD
from .growth import Grown
from .precision import COPASI, OURS, PLAIN, ROADRUNNER, Point

STYLES = {OURS: ("C0", "o"), ROADRUNNER: ("C1", "s"), COPASI: ("C2", "^"), PLAIN: ("C3", "D")}
ROOM = 4.0
WORST = 1.0
"""Points with larger errors are left out."""
GROWTH = {
    "patients": ("virtual patients (synthetic)", "time for all on two cores (s)", 1.0),
    "doses": ("doses in 40 days (synthetic schedule)", "time for one patient (ms)", 1e3),
    "states": ("states (synthetic chain)", "time for one run (ms)", 1e3),
}


def draw(points: Sequence[Point], grown: Sequence[Grown], path: Path, caption: str) -> None:
    """Write the figure, with a caption that names the machine."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    precision(axes[0, 0], points)
    for ax, what in zip(axes.flat[1:], GROWTH, strict=True):
        growth(ax, [g for g in grown if g.what == what], what)
    figure.supxlabel(caption, fontsize=8, color="0.35")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def fastest(points: Sequence[Point]) -> list[Point]:
    """The Pareto front of error and time among the points of a tool."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.timing.minimum, p.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def precision(ax: Any, points: Sequence[Point]) -> None:
    """Work-precision curves: every point, and the Pareto front of each tool as a line."""
    for tool, (colour, marker) in STYLES.items():
        usable = [p for p in points if p.tool == tool and p.error < WORST]
        if not usable:
            continue
        ax.plot(*coordinates(usable), marker, color=colour, alpha=0.3, markersize=4)
        ax.plot(*coordinates(fastest(usable)), "-", color=colour, label=tool)
    ax.axvline(GOOD, color="0.6", linestyle=":")
    ax.text(GOOD * 0.8, 0.3, f"{GOOD:.0e}", transform=ax.get_xaxis_transform(), color="0.4")
    ax.set(xscale="log", yscale="log", title="The case, 40 days, one core",
           xlabel="largest relative error in any state or quantity (1)",
           ylabel="time for one patient (ms)")  # fmt: skip
    ax.invert_xaxis()
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * ROOM)  # room for the legend above the curves
    ax.legend(fontsize=8, loc="upper center", ncols=2)
    ax.grid(alpha=0.25)


def coordinates(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Errors, and times in ms."""
    errors = np.array([p.error for p in points])
    return errors, np.array([1e3 * p.timing.minimum for p in points])


def growth(ax: Any, grown: Sequence[Grown], what: str) -> None:
    """Time against size, with the line of proportional time through the largest size."""
    label, time, factor = GROWTH[what]
    sizes = np.array([g.size for g in grown], dtype=float)
    times = factor * np.array([g.timing.minimum for g in grown])
    ax.plot(sizes, times, "o-", color="C0", label="crs_sim")
    ax.plot(sizes, times[-1] * sizes / sizes[-1], ":", color="0.5", label="in proportion")
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel=time, title=f"More {what}")
    ax.set_ylim(bottom=times.min() / 2)
    ax.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}" if times.max() < 10 * times.min() else "")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.25)
