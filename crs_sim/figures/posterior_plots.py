"""Figures of a posterior: parameter pairs, traces, predicted readings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.ndimage import gaussian_filter

from ..errors import RESEARCH_ONLY, InputError, unknown_name
from ..fitting import Free, from_scale
from ..model import Array
from ..uncertainty import Posterior
from .fit_plots import list_figure, named_rows
from .panels import BLUE, GREY, INK, LINES, SMALL, VERMILION, format_number, unit_text
from .plots import LEFT, WIDTH, Picture, stack, styled

MOST_PAIRED = 6
"""Default number of parameters in a corner plot; more are not legible."""
BINS = 34
INSIDE = (0.9, 0.5)
"""Shares of the draws inside the contours of a corner plot."""
TRACE_HEIGHT = 0.5
SIDE = 1.35


# --- corner plot ----------------------------------------------------------------------------------


@styled
def plot_corner(posterior: Posterior, names: Sequence[str] = (), *, title: str = "") -> Figure:
    """Draw the joint posterior of pairs of parameters, and each marginal over its prior.

    Parameters
    ----------
    posterior : Posterior
    names : parameters to show (default: the `MOST_PAIRED` most correlated)
    title : str

    Raises
    ------
    UnknownNameError
        For a name that was not sampled.
    """
    shown = tuple(dict.fromkeys(names)) or most_correlated(posterior)
    sampled = posterior.problem.names
    for name in shown:
        if name not in sampled:
            raise unknown_name("sampled parameter", name, sampled)
    title = title or f"{posterior.problem.name}: pairs of parameters, " + (
        "as named" if names else "the most correlated"
    )
    places = [sampled.index(name) for name in shown]
    free = [posterior.problem.free[place] for place in places]
    draws = posterior.kept.reshape(-1, len(sampled))[:, places]
    labels = [_label(posterior, name) for name in shown]
    figure, axes = _grid(len(shown), title)
    for (row, column), ax in axes.items():
        if row == column:
            _marginal(ax, free[row], draws[:, row])
        else:
            _pair(ax, draws[:, [column, row]], [free[column].scale, free[row].scale])
        _corner_axes(ax, labels, [f.scale for f in free], row, column)
    handles = [
        Patch(fc="#9CC7E2", label="draws"),
        Line2D([], [], color=GREY, label="prior"),
        Line2D([], [], color=BLUE, lw=1.2, label="contours containing 50 % and 90 % of the draws"),
    ]
    figure.legend(handles=handles, loc="upper right", frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(0.99, 1 - 0.45 / figure.get_figheight()))  # fmt: skip
    return figure


def _label(posterior: Posterior, name: str) -> str:
    return f"{name}\n{unit_text(posterior.problem.model[name].unit, '')}".rstrip()


def most_correlated(posterior: Posterior) -> tuple[str, ...]:
    """The `MOST_PAIRED` most correlated parameters, in the problem's order.

    Raises
    ------
    InputError
        If there are no draws.
    """
    names = posterior.problem.names
    draws = posterior.kept.reshape(-1, len(names))
    if len(draws) < 2:
        raise InputError(f"{posterior.problem.name}: there are no draws yet; sample first")
    if len(names) <= MOST_PAIRED:
        return names
    strength = np.triu(np.abs(np.corrcoef(draws.T)), 1)
    chosen = set[int]()
    for pair in np.argsort(-strength, axis=None, kind="stable").tolist():
        both = chosen | set(divmod(pair, len(names)))
        chosen = both if len(both) <= MOST_PAIRED else chosen  # only whole pairs
    return tuple(names[k] for k in sorted(chosen))


def _grid(count: int, title: str) -> tuple[Figure, dict[tuple[int, int], Axes]]:
    """The lower triangle of a grid of panels."""
    left, below, above, gap = 0.95, 1.15, 0.5, 0.1
    width = left + count * (SIDE + gap) + 0.2
    size = (max(width, 6.2), below + count * (SIDE + gap) + above)
    figure = Picture(figsize=size)
    axes = {}
    for row, column in product(range(count), repeat=2):
        if column <= row:
            x = left + column * (SIDE + gap)
            y = below + (count - 1 - row) * (SIDE + gap)
            box = (x / size[0], y / size[1], SIDE / size[0], SIDE / size[1])
            axes[row, column] = figure.add_axes(box)
    figure.text(0.02, 1 - 0.24 / size[1], title, fontsize=10, weight="bold", va="center")
    figure.text(0.02, 0.1 / size[1], RESEARCH_ONLY, fontsize=SMALL, color="#555555")
    return figure, axes


def _marginal(ax: Axes, free: Free, draws: Array) -> None:
    """Density of the draws and of the prior, both on the parameter's scale."""
    low, high = _limits(draws)
    edges = np.linspace(low, high, BINS + 1)
    density, _ = np.histogram(draws, edges, density=True)
    ax.stairs(density, from_scale(edges, free.scale), fill=True, color="#9CC7E2")
    x = np.linspace(low, high, 200)
    prior = np.exp(-0.5 * ((x - free.to_scale(free.median)) / free.sd) ** 2)
    prior /= free.sd * math.sqrt(2 * math.pi)
    ax.plot(from_scale(x, free.scale), prior, color=GREY, lw=1)
    ax.set_yticks([])
    ax.set_ylim(0, None)
    ax.set_xlim(*from_scale([low, high], free.scale))


def _pair(ax: Axes, draws: Array, scales: Sequence[str]) -> None:
    """Contours of the draws of two parameters, (n, 2), the first across."""
    limits = [_limits(draws[:, k]) for k in (0, 1)]
    counts, *edges = np.histogram2d(draws[:, 0], draws[:, 1], BINS, limits)
    smooth = gaussian_filter(counts.T, 1.0)
    levels = share_levels(smooth, INSIDE)
    x, y = (from_scale((e[1:] + e[:-1]) / 2, scale) for e, scale in zip(edges, scales, strict=True))
    ax.contourf(x, y, smooth, [*levels, smooth.max()], colors=("#D6E8F4", "#9CC7E2"))
    ax.contour(x, y, smooth, levels, colors=BLUE, linewidths=(0.7, 1.1))
    ax.set_xlim(*from_scale(limits[0], scales[0]))
    ax.set_ylim(*from_scale(limits[1], scales[1]))


def share_levels(counts: Array, shares: Sequence[float]) -> list[float]:
    """Levels above which the given shares of all counts lie, ascending.

    >>> share_levels(np.array([1.0, 2.0, 3.0, 4.0]), (0.9, 0.4))
    [2.0, 4.0]
    """
    ordered = np.sort(counts, axis=None)[::-1]
    reached = np.cumsum(ordered) / ordered.sum()
    found = [float(ordered[np.searchsorted(reached, share - 1e-9)]) for share in shares]
    for k in range(1, len(found)):  # contour levels must increase
        found[k] = max(found[k], found[k - 1] * (1.0 + 1e-6))
    return found


def _limits(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.001, 0.999])
    margin = 0.08 * (high - low) + 1e-9
    return float(low - margin), float(high + margin)


def _corner_axes(
    ax: Axes, names: Sequence[str], scales: Sequence[str], row: int, column: int
) -> None:
    ax.set_xscale(scales[column])
    _few_ticks(ax, "x")
    ax.tick_params(axis="x", labelbottom=row == len(names) - 1, rotation=60)
    ax.grid(visible=False)
    if row != column:
        ax.set_yscale(scales[row])
        _few_ticks(ax, "y")
        ax.tick_params(axis="y", labelleft=column == 0)
        if column == 0:
            ax.set_ylabel(names[row], fontsize=SMALL)
            ax.yaxis.set_label_coords(-0.42, 0.5)
    else:
        ax.set_title(names[row].split("\n")[0], fontsize=SMALL, pad=3)
    if row == len(names) - 1:
        ax.set_xlabel(names[column], fontsize=SMALL)
        ax.xaxis.set_label_coords(0.5, -0.45)


def _few_ticks(ax: Axes, which: str) -> None:
    """Set two to four round tick labels, also on a narrow axis."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    wide = LogLocator(subs=(1.0, 3.0) if high / low < 100 else (1.0,), numticks=5)
    axis.set_major_locator(wide if high / low > 10 else MaxNLocator(3, prune="both"))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axis.set_minor_locator(NullLocator())


# --- trace ----------------------------------------------------------------------------------------


@styled
def plot_trace(posterior: Posterior, *, title: str = "") -> Figure:
    """Draw the trace of each group of walkers: median, and 5 to 95 % of its walkers.

    Groups that overlap after the warm-up (grey) sample the same distribution.
    """
    names = posterior.problem.names
    chain = from_scale(posterior.chain, posterior.problem.scales)
    rows = [("linear", posterior.log_posterior), *(
        (free.scale, chain[..., k]) for k, free in enumerate(posterior.problem.free)
    )]  # fmt: skip
    title = title or f"{posterior.problem.name}: trace of the walkers"
    figure, axes = stack([TRACE_HEIGHT] * len(rows), title, below=0.95)
    draws = np.arange(1.0, len(posterior.chain) + 1)
    labels = ["log posterior", *(_label(posterior, name) for name in names)]
    for ax, (scale, values), label in zip(axes, rows, labels, strict=True):
        _course(ax, draws, values, scale)
        ax.axvspan(1, posterior.warm_up + 0.5, color="#EEEEEE", lw=0, zorder=0)
        ax.set_ylabel(label, fontsize=6.5, rotation=0, ha="right", va="center")
        ax.set_xlim(1, max(2, len(draws)))
        ax.tick_params(axis="x", labelbottom=ax is axes[-1])
    _rhat_beside(axes[1:], posterior)
    axes[-1].set_xlabel(f"draw of each walker (thinned: every {posterior.plan.thin} moves)")
    groups = range(posterior.chain.shape[1])
    handles = [Line2D([], [], color=LINES[g % len(LINES)], label=f"group {g + 1}") for g in groups]
    handles.append(Patch(fc="#EEEEEE", label="warm-up, discarded"))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="lower left", ncols=6, frameon=False, fontsize=SMALL,
                  bbox_to_anchor=(LEFT / WIDTH, 0.28 / figure.get_figheight()))  # fmt: skip
    return figure


def _course(ax: Axes, draws: Array, values: Array, scale: str) -> None:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=2)
    for group in range(values.shape[1]):
        colour = LINES[group % len(LINES)]
        ax.fill_between(draws, low[:, group], high[:, group], color=colour, alpha=0.12, lw=0)
        ax.plot(draws, middle[:, group], color=colour, lw=0.8)
    if scale != "linear":
        ax.set_yscale(scale)
        _few_ticks(ax, "y")
    else:
        ax.yaxis.set_major_locator(MaxNLocator(3))


def _rhat_beside(axes: Sequence[Axes], posterior: Posterior) -> None:
    for ax, one in zip(axes, posterior.convergence, strict=True):
        text = (f"R-hat {one.rhat:.3f}, walkers {one.walkers_rhat:.2f}\n"
                f"{one.ess:.0f} effective draws")  # fmt: skip
        ax.annotate(text, (1.0, 0.5), (6, 0), xycoords="axes fraction", va="center",
                    textcoords="offset points", fontsize=6.5, annotation_clip=False,
                    color=INK if one.reached else VERMILION)  # fmt: skip


WIDEST = 100.0
"""Ratios of predicted to observed are clipped at this factor."""
BAND = "#BFDDF0"


@styled
def plot_predictive(predicted: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the posterior prediction of each level, relative to the level observed.

    Parameters
    ----------
    predicted : a row for each `crs_sim.uncertainty.Predicted`; grades are ignored
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
    predicted : columns as the fields of `crs_sim.uncertainty.Predicted`
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
    predicted : columns as the fields of `crs_sim.uncertainty.Predicted`
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
