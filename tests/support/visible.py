"""What can be seen of a figure."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(figure: Figure) -> list[Text]:
    """Every text that can be seen."""
    figure.draw_without_rendering()
    hidden = {id(label) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)
              for label in invisible_labels(ax, axis)}  # fmt: skip
    return [t for t in figure.findobj(Text)
            if t.get_text().strip() and t.get_visible() and id(t) not in hidden]  # fmt: skip


def invisible_labels(ax: Axes, axis) -> list[Text]:
    """Labels of ticks that lie outside the axis, or of an axis without labels."""
    low, high = sorted(axis.get_view_interval())
    shown = {id(tick.label1) for tick in axis.get_major_ticks()
             if low <= tick.get_loc() <= high and tick.label1.get_visible()}  # fmt: skip
    return [label for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
            for label in (tick.label1, tick.label2) if id(label) not in shown]  # fmt: skip


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Texts that lie over each other."""
    # Text's own extent: an annotation's has its arrow in it
    boxes = [(t.get_text(), Text.get_window_extent(t)) for t in texts(figure)]
    return [(a, b) for (a, one), (b, two) in combinations(boxes, 2)
            if one.shrunk(0.95, 0.8).overlaps(two.shrunk(0.95, 0.8))]  # fmt: skip


def outside(figure: Figure) -> list[str]:
    """Texts that run off the page."""
    page = figure.bbox
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    return [text for text, box in boxes
            if min(box.x0, box.y0) < 0 or box.x1 > page.x1 or box.y1 > page.y1]  # fmt: skip
