"""Compute profile likelihoods: step one parameter outward and refit all others at each value.

The step size is adapted so that each step raises the root of the cost by about the same amount;
each refit starts at a linear extrapolation of the last two points. Each point has the cost's slope
(at the optimum of the others it is the partial derivative), so a cost difference that does not
match the slopes reveals a refit in another optimum than its neighbour's: it is refitted from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from ..errors import InputError, unknown_name
from ..fitting import FAILED, MAX_STEPS, Fit, Objective, from_scale, minimize, point_of
from ..model import Array
from ..simulation import Workers, parallel_map
from .profiles import PROFILE_LEVELS, VERDICT_LEVEL, Profile, limit

RISE = 0.7
"""Target rise per step of the root of the cost above its minimum: 3 steps to the 95 % limit.

Past that limit steps grow: only the curve without the prior is still below its limit."""
MARGIN = 1.02
"""The profile ends at this multiple of the limit."""
MOST_STEPS = 40
"""Steps to one side."""
REPAIRS = 2
"""Passes of refitting outliers and extending the curve."""
SHORTEST = 1e-3
"""Share of the range between the bounds: a step into failing runs is halved down to this."""
TOLERANCE = 1e-6
"""Relative change of the cost at which a refit has converged."""
SAME_COST = 0.01
"""Costs that differ by less belong to the same optimum."""
SAME_VALUE = 1e-9
"""Points that differ by less are the same value."""


class Point(NamedTuple):
    """All scaled parameters (n_free,), the cost, and its slope in the profiled parameter."""

    x: Array
    cost: float
    slope: float


def profile(
    result: Fit,
    names: Sequence[str] | None = None,
    *,
    levels: Sequence[float] = PROFILE_LEVELS,
    done: Sequence[Profile] = (),
    workers: Workers = None,
    progress: Callable[[int, int, Profile], None] | None = None,
) -> tuple[Profile, ...]:
    """The profile likelihood of some or all free parameters of a fit.

    Parameters
    ----------
    result : Fit
    names : parameters; None takes all that are free
    levels : confidence levels of the intervals; 0.95 is always included
    done : existing profiles of this fit, which are not recomputed
    workers : int, processes (default: one for each core), or the address of a Dask scheduler; the
        numbers do not depend on it
    progress : called as (finished, of how many, Profile) after each

    Returns
    -------
    tuple of Profile, in the order of the names

    Raises
    ------
    UnknownNameError, InputError
        For a parameter that is not free, or a level that is not between 0 and 1.

    Examples
    --------
    ``profile(best, ["d_mac"])[0].verdict`` is "determined", "only bounded above", ...
    """
    requested = tuple(result.problem.names if names is None else dict.fromkeys(names))
    for name in requested:
        if name not in result.problem.names:
            raise unknown_name("free parameter", name, result.problem.names)
    if not all(0.0 < level < 1.0 for level in levels):
        raise InputError(f"levels must lie between 0 and 1, not {', '.join(map(str, levels))}")
    level = max([VERDICT_LEVEL, *levels])
    ready = {p.parameter: p for p in done if p.level >= level}
    missing = [name for name in requested if name not in ready]

    def report(found: Profile) -> None:
        ready[found.parameter] = found
        if progress is not None:
            progress(sum(name in ready for name in requested), len(requested), found)

    parallel_map(partial(profile_one, result, level), missing, workers=workers, finished=report)
    return tuple(ready[name] for name in requested)


def profile_one(result: Fit, level: float, name: str) -> Profile:
    """Profile one free parameter; see `profile`."""
    tracer = ProfileTracer(result, name, level)
    first = tracer.point(point_of(result.problem, result.values))
    points = tracer.outward(tracer.outward([first], -1), 1)
    for start in result.starts:
        if start.cost < min(p.cost for p in points) + limit(level):
            points = tracer.with_start(points, point_of(result.problem, start.values), start.cost)
    for _ in range(REPAIRS):  # a repair lowers costs, so an end may no longer exceed the limit
        points = tracer.outward(tracer.outward(tracer.repaired(points), -1), 1)
    points = tracer.repaired(tracer.refined(points))
    points = tracer.at_minima(tracer.at_minima(points))
    free, parameter = result.problem.free[tracer.index], result.problem.model[name]
    return Profile(
        name, parameter.label, parameter.unit, result.values[name], free.lower, free.upper,
        free.median, free.sd, result.cost, result.problem.names, np.array([p.x for p in points]),
        np.array([p.cost for p in points]), np.array([p.slope for p in points]), level,
        tracer.runs, tracer.failed, "; ".join(tracer.stopped.values()), result.problem.scales,
    )  # fmt: skip


class ProfileTracer:
    """Steps one parameter and refits the others; counts runs and failures.

    Lists of points are ascending in the parameter; each method returns a new list.
    """

    def __init__(self, result: Fit, name: str, level: float) -> None:
        """Set up; no simulation is run."""
        self.problem, self.name, self.result = result.problem, name, result
        self.index = result.problem.names.index(name)
        self.whole = Objective(result.problem)
        self.limit = limit(level)
        self.lower, self.upper = self.whole.lower[self.index], self.whole.upper[self.index]
        self._runs = self._failed = 0
        self.stopped: dict[int, str] = {}
        self._tried = set[tuple[float, float]]()

    @property
    def runs(self) -> int:
        """Simulations made."""
        return self._runs + self.whole.runs

    @property
    def failed(self) -> int:
        """Simulations that failed."""
        return self._failed + self.whole.failed

    def value(self, where: float) -> float:
        """The value of the parameter at a point of its scale."""
        return float(from_scale(where, self.problem.scales[self.index]))

    def point(self, x: Array) -> Point:
        """Cost and slope at scaled parameters at which the others are optimal."""
        residuals = self.whole.residuals(x)
        slope = 2.0 * residuals @ self.whole.jacobian(x)[:, self.index]
        return Point(x, float(residuals @ residuals), float(slope))

    def at(self, where: float, near: Array) -> Point | None:
        """Refit the others with the parameter at ``where`` on its scale; None if runs fail.

        The optimisation starts at ``near`` (n_free,), clipped to the bounds.
        """
        reduced = self.problem.fixed_at(self.name, self.value(where))
        others = np.zeros(0)
        if reduced.free:
            objective = Objective(reduced)
            start = np.clip(np.delete(near, self.index), objective.lower, objective.upper)
            minimize(objective, start, TOLERANCE, MAX_STEPS)
            others = objective.best
            self._runs += objective.runs
            self._failed += objective.failed
        found = self.point(np.insert(others, self.index, where))
        return found if found.cost < FAILED**2 else None

    def outward(self, points: Sequence[Point], direction: int) -> list[Point]:
        """Step outward until both curves exceed the limit, or to the bound."""
        found = list(points)[::direction]
        end = self.upper if direction > 0 else self.lower
        for _ in range(MOST_STEPS):
            last = found[-1].x[self.index]
            at_bound = direction * (end - last) < SAME_VALUE
            if at_bound or direction in self.stopped or self._over(found):
                break
            step, left = self._step(found, direction), direction * (end - last)
            step = left if left < 1.3 * step else step
            next_point = self._next_point(found, direction, step)
            if next_point is None:
                reached = f"{self.value(last):.3g} {self.problem.model[self.name].unit}".strip()
                side = "above" if direction > 0 else "below"
                self.stopped[direction] = f"runs fail {side} {reached}"
                break
            found.append(next_point)
        return found[::direction]

    def with_start(self, points: Sequence[Point], x: Array, cost: float) -> list[Point]:
        """Add the optimum that another start of the fit reached, if it is not on the curve yet."""
        found, where = list(points), float(x[self.index])
        inside = found[0].x[self.index] <= where <= found[-1].x[self.index]
        if inside and self._covers(found, where, cost):
            return found
        seed = self.at(where, x)
        if seed is None:
            return found
        apart = [p for p in found if abs(self._where(p) - where) >= SAME_VALUE]
        found = sorted([*apart, seed], key=self._where)
        return found if inside else self.outward(found, 1 if seed is found[-1] else -1)

    def repaired(self, points: Sequence[Point]) -> list[Point]:
        """Refit each point that is inconsistent with its neighbour, starting at the neighbour."""
        found = list(points)
        for order in (range(len(found)), range(len(found) - 1, -1, -1)) * 2:
            for a, b in pairwise(order):
                pair = (found[a].cost, found[b].cost)
                if self._inconsistent(found[a], found[b]) and pair not in self._tried:
                    self._tried.add(pair)
                    again = self.at(found[b].x[self.index], found[a].x)
                    if again is not None and again.cost < found[b].cost - SAME_COST:
                        found[b] = again
        return found

    def refined(self, points: Sequence[Point]) -> list[Point]:
        """Add points between those that are too far apart."""
        found = list(points)
        for _ in range(3):
            new = list[Point]()
            for a, b in self._wide_gaps(found):
                near = min(a, b, key=lambda p: p.cost)
                middle = self.at(0.5 * (a.x[self.index] + b.x[self.index]), near.x)
                new += [] if middle is None else [middle]
            found = sorted([*found, *new], key=self._where)
            if not new:
                break
        return found

    def at_minima(self, points: Sequence[Point]) -> list[Point]:
        """Add a point at each local minimum of the curve that has none."""
        found = list(points)
        if len(found) < 2:
            return found
        curve = self._curve(found)
        for minimum in curve.derivative().roots(extrapolate=False):
            after = int(np.searchsorted([self._where(p) for p in found], minimum))
            near = min(found[max(after - 1, 0) : after + 1], key=lambda p: p.cost)
            if curve(minimum, 2) > 0.0 and curve(minimum) < near.cost - SAME_COST:
                there = self.at(float(minimum), near.x)
                found += [] if there is None else [there]
                found.sort(key=self._where)
        return found

    def _curve(self, found: Sequence[Point]) -> CubicHermiteSpline:
        return CubicHermiteSpline(
            [self._where(p) for p in found], [p.cost for p in found], [p.slope for p in found]
        )

    def _wide_gaps(self, found: Sequence[Point]) -> list[tuple[Point, Point]]:
        """Neighbours, below the limit, between which a curve rises too fast for one cubic."""
        whole = np.array([p.cost for p in found])
        gaps = set[int]()
        for costs in (whole, whole - np.array([self._prior(p) for p in found])):
            above = costs - costs.min()
            rises = np.abs(np.diff(np.sqrt(above)))
            inside = np.minimum(above[:-1], above[1:]) < self.limit
            gaps |= set(np.flatnonzero((rises > 2.0 * RISE) & inside).tolist())
        return [(found[k], found[k + 1]) for k in sorted(gaps)]

    def _where(self, point: Point) -> float:
        return float(point.x[self.index])

    def _covers(self, found: Sequence[Point], where: float, cost: float) -> bool:
        """Whether the curve is at or below this cost there, so that a refit is not needed."""
        nearest = min(found, key=lambda p: abs(where - self._where(p)))
        if abs(where - self._where(nearest)) < SAME_VALUE:
            return nearest.cost <= cost + SAME_COST
        return bool(self._curve(found)(where) <= cost + SAME_COST)

    def _over(self, found: Sequence[Point]) -> bool:
        """Whether the last point exceeds the limit, both with and without the own prior."""
        costs = np.array([p.cost for p in found])
        data = costs - np.array([self._prior(p) for p in found])
        rises = costs[-1] - costs.min(), data[-1] - data.min()
        return bool(min(rises) > MARGIN * self.limit)

    def _prior(self, point: Point) -> float:
        z = (point.x[self.index] - self.whole.centre[self.index]) / self.whole.sds[self.index]
        return float(z * z)

    def _step(self, found: Sequence[Point], direction: int) -> float:
        """The step for the next rise, from slope and curvature of the cost at the last points."""
        last, longest = found[-1], (self.upper - self.lower) / 6
        curvature, before = 2.0 / self.result.covariance[self.index, self.index], longest
        if len(found) > 1:
            before = abs(last.x[self.index] - found[-2].x[self.index])
            curvature = direction * (last.slope - found[-2].slope) / before
        above = math.sqrt(last.cost - min(p.cost for p in found))
        rise = RISE * max(1.0, above / math.sqrt(self.limit))
        target = (above + rise) ** 2 - above**2
        slope = direction * last.slope
        if curvature <= 0.0 and slope <= 0.0:
            return float(min(2.0 * before, longest))
        root = math.sqrt(max(slope**2 + 2.0 * curvature * target, 0.0))
        step = 2.0 * target / (slope + root) if slope + root > 0.0 else 2.0 * before
        shortest = 0.1 * before if len(found) > 1 else 0.0
        return float(min(max(step, shortest), 2.0 * before, longest))

    def _next_point(self, found: Sequence[Point], direction: int, step: float) -> Point | None:
        """The next point, extrapolated from the last two; the step is halved where runs fail."""
        last = found[-1].x
        tangent = self.result.covariance[:, self.index]
        along = last - found[-2].x if len(found) > 1 else tangent
        along = along / along[self.index]
        shortest = SHORTEST * (self.upper - self.lower)
        while True:
            where = min(max(last[self.index] + direction * step, self.lower), self.upper)
            found_there = self.at(float(where), last + along * (where - last[self.index]))
            step /= 2.0
            if found_there is not None or step < shortest:
                return found_there

    def _inconsistent(self, a: Point, b: Point) -> bool:
        """Whether the cost difference of two neighbours does not match their slopes."""
        apart = b.x[self.index] - a.x[self.index]
        expected, actual = 0.5 * apart * (a.slope + b.slope), b.cost - a.cost
        return bool(abs(expected - actual) > 0.1 + 0.25 * max(abs(expected), abs(actual)))
