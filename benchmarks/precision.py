"""Work-precision curves: error against time of every tool over a range of tolerances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from .case import GOOD, LADDER, Array, Case, Reference
from .roadrunner import FRACTIONS, RoadRunner, quiet
from .timing import Timing, timed

if TYPE_CHECKING:
    from .copasi import Copasi

OURS = "crs_sim"
ROADRUNNER = "libRoadRunner"
COPASI = "COPASI"
PLAIN = "solve_ivp LSODA, plain Python"
COMMON_RANGE = (1e-9, 2e-5)
TIGHT_LADDER = (1e-7, 3e-8, 1e-8, 3e-9, 1e-9, 3e-10, 1e-10, 3e-11, 1e-11)
COPASI_LADDER = (1e-5, 3e-6, 1e-6, 5e-7, 3e-7, 1e-7, 1e-8)
PLAIN_LADDER = (1e-4, 1e-5, 1e-6, 1e-7)


@dataclass(frozen=True)
class Point:
    """One tool at one tolerance."""

    tool: str
    rtol: float
    setting: str
    error: float
    timing: Timing


def measured(
    tool: str, rtol: float, setting: str, run: Callable[[], Array], reference: Reference,
    repeats: int,
) -> Point:  # fmt: skip
    """Measure error and time of one tool at one tolerance."""
    error = reference.error(run())
    return Point(tool, rtol, setting, error, timed(run, repeats, warm=0))


def ours(case: Case, reference: Reference, repeats: int = 15) -> list[Point]:
    """`simulate` and ``.table()``."""
    return [
        measured(OURS, rtol, "Rodas5P", lambda r=rtol: case.run(r), reference, repeats)
        for rtol in LADDER
    ]


def plain(case: Case, reference: Reference, repeats: int = 1) -> list[Point]:
    """SciPy's LSODA with the formulas in plain Python."""
    return [
        measured(PLAIN, rtol, "analytic Jacobian",
                 lambda r=rtol: case.run(r, "LSODA"), reference, repeats)
        for rtol in PLAIN_LADDER
    ]  # fmt: skip


def roadrunner(case: Case, reference: Reference, repeats: int = 5) -> list[Point]:
    """libRoadRunner at each of its settings; failed runs are left out."""
    tool = RoadRunner(case, reference.largest)
    ladder = [r for r in LADDER if COMMON_RANGE[0] <= r <= COMMON_RANGE[1]]
    return settings(tool, ROADRUNNER, ladder, FRACTIONS, reference, repeats)


def roadrunner_tight(case: Case, reference: Reference, repeats: int = 2) -> list[Point]:
    """libRoadRunner at the tighter tolerances that a patient at the edge of ignition needs."""
    tool = RoadRunner(case, reference.largest)
    return settings(tool, ROADRUNNER, TIGHT_LADDER, FRACTIONS, reference, repeats)


def copasi(case: Case, reference: Reference, repeats: int = 2) -> list[Point]:
    """COPASI at each of its settings."""
    from .copasi import (
        FRACTIONS as COPASI_FRACTIONS,
        Copasi,  # COPASI is not installed for the tests
    )

    tool = Copasi(case, reference)
    return settings(tool, COPASI, COPASI_LADDER, COPASI_FRACTIONS, reference, repeats)


def settings(
    tool: RoadRunner | Copasi, name: str, ladder: Iterable[float], fractions: Iterable[float],
    reference: Reference, repeats: int,
) -> list[Point]:  # fmt: skip
    """Measure another tool over tolerances and absolute-tolerance fractions."""
    points = []
    for fraction in fractions:
        for rtol in ladder:
            with quiet():
                tool.tolerate(rtol, fraction)
                try:
                    setting = f"atol {fraction:g} rtol"
                    points.append(measured(name, rtol, setting, tool.run, reference, repeats))
                except RuntimeError:
                    continue
    return points


def chosen(points: Iterable[Point], good: float = GOOD) -> Point:
    """The fastest point of a tool with errors within ``good`` there and at all tighter tolerances.

    A tolerance that is accurate by chance, while a tighter one of the same setting is not, does not
    count, for crs_sim as for other tools.

    Raises
    ------
    ValueError
        If there is no such point.
    """
    by_setting: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: p.rtol):
        by_setting.setdefault(point.setting, []).append(point)
    candidates: list[Point] = []
    for group in by_setting.values():
        candidates += takewhile(lambda p: p.error <= good, group)
    if not candidates:
        raise ValueError(f"no tolerance gives an error of {good:g}")
    return min(candidates, key=lambda p: (p.timing.minimum, -p.rtol))
