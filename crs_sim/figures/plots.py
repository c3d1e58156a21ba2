"""Whole figures: a simulation with its observations, and the results of a fit.

Each function returns a new matplotlib ``Figure`` (no pyplot, no global state); write it with
`figure_file`. The panels are in `crs_sim.figures.panels`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import RESEARCH_ONLY, InputError
from ..fitting import Noise
from ..patients import Observation, Observations, Patient
from ..simulation import Simulation
from .panels import (
    COURSES,
    GREY,
    SMALL,
    Course,
    course_panel,
    dose_ribbon,
    grade_ribbon,
    observation_key,
    rare_doses,
)

P = ParamSpec("P")

STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "svg.hashsalt": "crs_sim",
}
DPI = 150
FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
WIDTH, LEFT, RIGHT = 10.0, 1.35, 1.75
"""Inches: figure width, and the margins for names and legends."""
COURSE_HEIGHT, ROW_HEIGHT = 1.02, 0.2
NOTICE, LINE, EDGE = 0.1, 0.15, 0.08
"""Inches: from the edge to the notice, a line of small text, and the least margin."""
KEY: dict[str, Any] = {"loc": "lower left", "frameon": False, "fontsize": SMALL,
                       "handlelength": 1.4}  # fmt: skip
MANY = 9


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with `STYLE`, without changing matplotlib's global settings."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


class Picture(Figure):  # type: ignore[misc]
    """A figure that is displayed in a notebook with any backend."""

    def _repr_png_(self) -> bytes:
        return figure_file(self, "figure.png")


# --- simulations ----------------------------------------------------------------------------------


def plot_case(
    patient: Patient,
    simulation: Simulation,
    *,
    noise: Noise | None = None,
    until: float = 37.0,
    title: str = "",
) -> Figure:
    """Draw the case figure: doses, grades and time courses, stacked, with observations.

    Parameters
    ----------
    patient : Patient, with observations in the model's units (`check_against`)
    simulation : Simulation, of that patient
    noise : if given, each observed value gets an error bar (95 % of the residual error)
    until : float, last day shown
    title : str (default: the patient and the model)
    """
    title = title or f"{patient.id}: model {simulation.model.name} and observations"
    return plot_simulation(
        simulation, observations=patient.observations, noise=noise, until=until, title=title
    )


@styled
def plot_simulation(
    sim: Simulation,
    names: Sequence[str] = (),
    *,
    observations: Observations | Iterable[Observation] = (),
    noise: Noise | None = None,
    until: float | None = None,
    title: str = "",
) -> Figure:
    """Draw a simulation: doses by drug, CRS grade and time courses on a common time axis.

    Parameters
    ----------
    sim : Simulation
    names : states and quantities to show (default: `COURSES` and all observed quantities)
    observations : in the model's units
    noise, until, title : as in `plot_case`

    Raises
    ------
    UnknownNameError
        For a name that the simulation does not have.
    """
    last = float(sim.days[-1]) if until is None else min(until, float(sim.days[-1]))
    sim = sim.at(sim.days[sim.days <= last]) if last < sim.days[-1] else sim
    observed = [o for o in observations if o.day <= last and o.observable in sim.units]
    given = [i for i in sim.inputs if i.start <= last]
    courses = courses_of(sim, names, observed)
    graded = "crs_grade" in sim.units
    ribbon = max(1, len({i.drug for i in given})) * ROW_HEIGHT if given else 0.0
    heights = [h for h in (ribbon, 0.5 * graded) if h] + [COURSE_HEIGHT] * len(courses)
    key = observation_key((o.kind for o in observed), noise=noise is not None)
    title = title or f"{sim.model.name}: {sim.scenario.name}"
    figure, axes = stack(heights, title, below=1.3 if key else 0.75)
    rest = iter(axes)
    if given:
        dose_ribbon(next(rest), given, sim.model)
    if graded:
        grade_ribbon(next(rest), sim, observed)
    for course in courses:
        course_panel(next(rest), sim, course, observed, noise=noise)
    finish(axes, last, rare_doses(given))
    key_below(figure, key)
    return figure


def courses_of(
    sim: Simulation, names: Sequence[str] = (), observed: Iterable[Observation] = ()
) -> list[Course]:
    """The panels of a simulation: those named, else the default and all observed quantities."""
    default = {course.ids[0]: course for course in COURSES}
    if names:
        return [default.get(name) or _course_of(sim, name) for name in dict.fromkeys(names)]
    available = [c for c in COURSES if all(name in sim.units for name in c.ids)]
    covered = {"crs_grade", *(name for c in available for name in c.ids)}
    more = dict.fromkeys(o.observable for o in observed if o.observable not in covered)
    if not available and not more:
        more = dict.fromkeys([*sim.model.quantity_ids, *sim.model.state_ids][:MANY])
    return available + [_course_of(sim, name) for name in more]


def _course_of(sim: Simulation, name: str) -> Course:
    positive = sim[name][sim[name] > 0]
    wide = positive.size == sim.days.size and positive.max() > 100 * positive.min()
    return Course(name, (name,), log=bool(wide))


def stack(heights: Sequence[float], title: str, *, below: float = 1.3) -> tuple[Figure, list[Axes]]:
    """Stacked axes with the given heights in inches, and space for a legend below."""
    above, gap = 0.45, 0.16
    total = sum(heights) + gap * (len(heights) - 1) + above + below
    figure = Picture(figsize=(WIDTH, total))
    top, axes = total - above, list[Axes]()
    for height in heights:
        box = (LEFT, top - height, WIDTH - LEFT - RIGHT, height)
        scaled = (box[0] / WIDTH, box[1] / total, box[2] / WIDTH, box[3] / total)
        axes.append(figure.add_axes(scaled, sharex=axes[0] if axes else None))
        top -= height + gap
    figure.text(LEFT / WIDTH, 1 - 0.27 / total, title, fontsize=10, weight="bold", va="center")
    figure.text(LEFT / WIDTH, 0.12 / total, RESEARCH_ONLY, fontsize=SMALL, color="#555555")
    return figure, axes


def finish(axes: Sequence[Axes], last: float, lines: Sequence[float]) -> None:
    """Set the common time axis, and draw a vertical line in each panel on the given days."""
    for ax in axes:
        # start slightly before day 0, so that events on day 0 do not coincide with the axis
        ax.set_xlim(-0.012 * last, last or 1.0)
        ax.tick_params(axis="x", labelbottom=ax is axes[-1])
        for day in lines:
            ax.axvline(day, color=GREY, lw=0.7, ls=":", zorder=0)
        ax.yaxis.set_label_coords(-0.085, 0.5)
    axes[-1].set_xlabel("day after infusion")


def wrapped(text: str, width: float, **style: Any) -> str:
    """A text in lines of at most this many inches."""
    sheet = Figure()
    whole = sheet.text(0, 0, text, **style).get_window_extent().width / sheet.dpi
    # 0.9, as letters of one line may be wider than those of the whole text
    most = len(text) if whole <= width else int(0.9 * len(text) * width / whole)
    return "\n".join(textwrap.wrap(text, max(1, most)))


@dataclass(frozen=True)
class Footer:
    """What is below the panels: legend, note, and the notice; each above the other, in inches.

    It is measured before the figure has its height, so that none of them overlaps.
    """

    handles: Sequence[Artist]
    note: str
    columns: int
    key_height: float
    left: float

    @classmethod
    def measured(
        cls, handles: Sequence[Artist], note: str, width: float, left: float, columns: int
    ) -> Footer:
        """A footer for a figure of this width, its legend with at most so many columns."""
        room = width - left - EDGE
        lines = wrapped(note, room, fontsize=SMALL) if note else ""
        while True:
            sheet = Figure(figsize=(width, 5.0))
            box = sheet.legend(handles=handles, ncols=columns, **KEY).get_window_extent()
            if columns == 1 or box.width / sheet.dpi <= room + EDGE:
                return cls(handles, lines, columns, box.height / sheet.dpi, left)
            columns -= 1

    @property
    def note_height(self) -> float:
        """The height of the note, with the space above it."""
        return LINE * len(self.note.splitlines()) + 0.06 * bool(self.note)

    @property
    def height(self) -> float:
        """The height of all of it."""
        return NOTICE + LINE + self.note_height + self.key_height

    def draw(self, figure: Figure, *, notice: bool = True) -> None:
        """Draw it at the bottom of a figure; the notice too, unless it is there already."""
        width, height = figure.get_size_inches()
        if notice:
            figure.text(self.left / width, NOTICE / height, RESEARCH_ONLY, fontsize=SMALL,
                        color="#555555")  # fmt: skip
        bottom = NOTICE + LINE + 0.03
        figure.text(self.left / width, bottom / height, self.note, fontsize=SMALL, va="bottom")
        place = ((self.left - 0.08) / width, (bottom + self.note_height - 0.03) / height)
        figure.legend(handles=self.handles, ncols=self.columns, bbox_to_anchor=place, **KEY)


def key_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Draw a legend below the lowest panel, if there are handles."""
    if handles:
        figure.legend(handles=handles, loc="lower left", ncols=3, frameon=False, fontsize=SMALL,
                      bbox_to_anchor=(LEFT / WIDTH - 0.01, 0.3 / figure.get_figheight()),
                      handlelength=1.4)  # fmt: skip


# --- fits -----------------------------------------------------------------------------------------


# --- files ----------------------------------------------------------------------------------------


def figure_file(figure: Figure, path: str | Path) -> bytes:
    """A figure as the content of a PNG (150 dpi), SVG or PDF file, according to the suffix.

    The same figure gives the same bytes: no date is written.

    Raises
    ------
    InputError
        For another suffix.
    """
    suffix = check_format(path)
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format=suffix[1:], dpi=DPI, metadata=FORMATS[suffix])
    return stream.getvalue()


def figure_files(figure: Figure, path: Path) -> dict[Path, bytes]:
    """A figure as a PNG and an SVG file, for `crs_sim.output.write_atomic`.

    Parameters
    ----------
    figure : Figure
    path : of both files, without suffix
    """
    files = (path.with_name(f"{path.name}{suffix}") for suffix in (".png", ".svg"))
    return {file: figure_file(figure, file) for file in files}


def check_format(path: str | Path) -> str:
    """The suffix of a figure's file name; an unsupported one is refused."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"{path}  is not a supported figure format ({', '.join(FORMATS)}); name it "
            f"{Path(path).stem}.png"
        )
    return suffix
