"""Profiles computed: one parameter is moved step by step, all others are fitted again each time.

Steps go outward from the optimum, each as long as raises the cost by about as much as the last;
each fit begins where the line through the last two leads. The cost's slope comes with each point
(at the best of the others it is the plain derivative), so a curve that does not follow its slopes
gives away a fit that sits in another optimum than its neighbour: it is fitted again from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from .cluster import Workers, everywhere
from .descents import MAX_STEPS, minimize
from .errors import InputError, unknown_name
from .fitting import Fit
from .objective import FAILED, Array, Objective, logs
from .profiles import LEVELS, VERDICT_LEVEL, Profile, limit

RISE = 0.7
"""A step raises the root of the cost (above the lowest) by about this much: 3 to the 95 % limit.

Beyond the limit more: where only the data's end is looked for, steps grow."""
BEYOND = 1.02
"""The curve is followed to a little over the limit."""
MOST = 40
"""Steps to one side."""
ROUNDS = 2
"""Of mending a curve and following it further."""
SHORTEST = 1e-3
"""Of the way between the bounds: a step into a place where runs fail is halved down to this."""
TOLERANCE = 1e-6
"""Relative change of the cost at which the fit of the others ends."""
SAME = 0.01
"""Costs that differ by less belong to one optimum."""
CLOSE = 1e-9
"""Logarithms that differ by less are one value."""


class Point(NamedTuple):
    """All log parameters (n_free,), the cost there, and its slope by the parameter moved."""

    x: Array
    cost: float
    slope: float


def profile(
    result: Fit,
    names: Sequence[str] | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    done: Sequence[Profile] = (),
    workers: Workers = None,
    progress: Callable[[int, int, Profile], None] | None = None,
) -> tuple[Profile, ...]:
    """The profile likelihood of some or all free parameters of a fit.

    Parameters
    ----------
    result : Fit
    names : parameters; None takes all that are free
    levels : confidence levels that intervals will be asked for; 0.95 is always followed
    done : profiles of this fit that are there already, and are not made again
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
    wanted = tuple(result.problem.names if names is None else dict.fromkeys(names))
    for name in wanted:
        if name not in result.problem.names:
            raise unknown_name("free parameter", name, result.problem.names)
    if not all(0.0 < level < 1.0 for level in levels):
        raise InputError(f"levels must lie between 0 and 1, not {', '.join(map(str, levels))}")
    level = max([VERDICT_LEVEL, *levels])
    ready = {p.parameter: p for p in done if p.level >= level}
    missing = [name for name in wanted if name not in ready]

    def report(found: Profile) -> None:
        ready[found.parameter] = found
        if progress is not None:
            progress(sum(name in ready for name in wanted), len(wanted), found)

    everywhere(partial(profile_one, result, level), missing, workers=workers, finished=report)
    return tuple(ready[name] for name in wanted)


def profile_one(result: Fit, level: float, name: str) -> Profile:
    """The profile of one free parameter; see `profile`."""
    walk = Walk(result, name, level)
    first = walk.point(logs(result.problem, result.values))
    points = walk.outward(walk.outward([first], -1), 1)
    for start in result.starts:
        if start.cost < min(p.cost for p in points) + limit(level):
            points = walk.from_start(points, logs(result.problem, start.values), start.cost)
    for _ in range(ROUNDS):  # mending lowers costs, so an end may no longer be over the limit
        points = walk.outward(walk.outward(walk.mended(points), -1), 1)
    points = walk.mended(walk.refined(points))
    points = walk.at_dips(walk.at_dips(points))
    free, place = result.problem.free[walk.place], result.problem.model[name]
    return Profile(
        name, place.label, place.unit, result.values[name], free.lower, free.upper, free.median,
        free.sd, result.cost, result.problem.names, np.array([p.x for p in points]),
        np.array([p.cost for p in points]), np.array([p.slope for p in points]), level,
        walk.runs, walk.failed, "; ".join(walk.stopped.values()),
    )  # fmt: skip


class Walk:
    """One parameter moved and the others fitted; counts its runs and its failures.

    Lists of points are ascending in the parameter; each method gives a new one.
    """

    def __init__(self, result: Fit, name: str, level: float) -> None:
        """Nothing runs yet."""
        self.problem, self.name, self.result = result.problem, name, result
        self.place = result.problem.names.index(name)
        self.whole = Objective(result.problem)
        self.limit = limit(level)
        self.lower, self.upper = self.whole.lower[self.place], self.whole.upper[self.place]
        self._runs = self._failed = 0
        self.stopped: dict[int, str] = {}
        self._tried = set[tuple[float, float]]()

    @property
    def runs(self) -> int:
        """Simulations made."""
        return self._runs + self.whole.runs

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return self._failed + self.whole.failed

    def point(self, x: Array) -> Point:
        """Cost and slope at log parameters where the others are at their best."""
        residuals = self.whole.residuals(x)
        slope = 2.0 * residuals @ self.whole.jacobian(x)[:, self.place]
        return Point(x, float(residuals @ residuals), float(slope))

    def at(self, where: float, near: Array) -> Point | None:
        """The best of the others with the parameter's logarithm at ``where``; None if runs fail.

        The descent begins at ``near`` (n_free,), moved inside the bounds.
        """
        smaller = self.problem.fixed_at(self.name, math.exp(where))
        others = np.zeros(0)
        if smaller.free:
            objective = Objective(smaller)
            start = np.clip(np.delete(near, self.place), objective.lower, objective.upper)
            minimize(objective, start, TOLERANCE, MAX_STEPS)
            others = objective.best
            self._runs += objective.runs
            self._failed += objective.failed
        found = self.point(np.insert(others, self.place, where))
        return found if found.cost < FAILED**2 else None

    def outward(self, points: Sequence[Point], direction: int) -> list[Point]:
        """Followed from the outermost point until both curves are over the limit, or a bound."""
        found = list(points)[::direction]
        end = self.upper if direction > 0 else self.lower
        for _ in range(MOST):
            last = found[-1].x[self.place]
            if direction * (end - last) < CLOSE or direction in self.stopped or self._over(found):
                break
            step, left = self._step(found, direction), direction * (end - last)
            following = self._moved(found, direction, left if left < 1.3 * step else step)
            if following is None:
                reached = f"{math.exp(last):.3g} {self.problem.model[self.name].unit}".strip()
                side = "above" if direction > 0 else "below"
                self.stopped[direction] = f"runs fail {side} {reached}"
                break
            found.append(following)
        return found[::direction]

    def from_start(self, points: Sequence[Point], x: Array, cost: float) -> list[Point]:
        """With what another start of the fit ended in, if that is an optimum not met so far."""
        found, where = list(points), float(x[self.place])
        inside = found[0].x[self.place] <= where <= found[-1].x[self.place]
        if inside and self._known(found, where, cost):
            return found
        seed = self.at(where, x)
        if seed is None:
            return found
        apart = [p for p in found if abs(self._where(p) - where) >= CLOSE]
        found = sorted([*apart, seed], key=self._where)
        return found if inside else self.outward(found, 1 if seed is found[-1] else -1)

    def mended(self, points: Sequence[Point]) -> list[Point]:
        """With each point that does not follow from its neighbour fitted again from there."""
        found = list(points)
        for order in (range(len(found)), range(len(found) - 1, -1, -1)) * 2:
            for a, b in pairwise(order):
                pair = (found[a].cost, found[b].cost)
                if self._jump(found[a], found[b]) and pair not in self._tried:
                    self._tried.add(pair)
                    again = self.at(found[b].x[self.place], found[a].x)
                    if again is not None and again.cost < found[b].cost - SAME:
                        found[b] = again
        return found

    def refined(self, points: Sequence[Point]) -> list[Point]:
        """With points between those that turned out too far apart."""
        found = list(points)
        for _ in range(3):
            new = list[Point]()
            for a, b in self._apart(found):
                near = min(a, b, key=lambda p: p.cost)
                middle = self.at(0.5 * (a.x[self.place] + b.x[self.place]), near.x)
                new += [] if middle is None else [middle]
            found = sorted([*found, *new], key=self._where)
            if not new:
                break
        return found

    def at_dips(self, points: Sequence[Point]) -> list[Point]:
        """With a point at each dip of the curve that none of them is in."""
        found = list(points)
        if len(found) < 2:
            return found
        curve = self._curve(found)
        for dip in curve.derivative().roots(extrapolate=False):
            after = int(np.searchsorted([self._where(p) for p in found], dip))
            near = min(found[max(after - 1, 0) : after + 1], key=lambda p: p.cost)
            if curve(dip, 2) > 0.0 and curve(dip) < near.cost - SAME:
                there = self.at(float(dip), near.x)
                found += [] if there is None else [there]
                found.sort(key=self._where)
        return found

    def _curve(self, found: Sequence[Point]) -> CubicHermiteSpline:
        return CubicHermiteSpline(
            [self._where(p) for p in found], [p.cost for p in found], [p.slope for p in found]
        )

    def _apart(self, found: Sequence[Point]) -> list[tuple[Point, Point]]:
        """Neighbours between which either curve rises too fast for a cubic, under its limit."""
        whole = np.array([p.cost for p in found])
        wanted = set[int]()
        for costs in (whole, whole - np.array([self._prior(p) for p in found])):
            above = costs - costs.min()
            rises = np.abs(np.diff(np.sqrt(above)))
            inside = np.minimum(above[:-1], above[1:]) < self.limit
            wanted |= set(np.flatnonzero((rises > 2.0 * RISE) & inside).tolist())
        return [(found[k], found[k + 1]) for k in sorted(wanted)]

    def _where(self, point: Point) -> float:
        return float(point.x[self.place])

    def _known(self, found: Sequence[Point], where: float, cost: float) -> bool:
        """Whether the curve is not above this cost there: nothing would be learnt."""
        nearest = min(found, key=lambda p: abs(where - self._where(p)))
        if abs(where - self._where(nearest)) < CLOSE:
            return nearest.cost <= cost + SAME
        return bool(self._curve(found)(where) <= cost + SAME)

    def _over(self, found: Sequence[Point]) -> bool:
        """Whether the last point is over the limit, with the parameter's own prior and without."""
        costs = np.array([p.cost for p in found])
        data = costs - np.array([self._prior(p) for p in found])
        rises = costs[-1] - costs.min(), data[-1] - data.min()
        return bool(min(rises) > BEYOND * self.limit)

    def _prior(self, point: Point) -> float:
        z = (point.x[self.place] - self.whole.centre[self.place]) / self.whole.sds[self.place]
        return float(z * z)

    def _step(self, found: Sequence[Point], direction: int) -> float:
        """How far to go for the next rise, from slope and curvature of the cost so far."""
        last, longest = found[-1], (self.upper - self.lower) / 6
        curvature, before = 2.0 / self.result.covariance[self.place, self.place], longest
        if len(found) > 1:
            before = abs(last.x[self.place] - found[-2].x[self.place])
            curvature = direction * (last.slope - found[-2].slope) / before
        above = math.sqrt(last.cost - min(p.cost for p in found))
        rise = RISE * max(1.0, above / math.sqrt(self.limit))
        wanted = (above + rise) ** 2 - above**2
        slope = direction * last.slope
        if curvature <= 0.0 and slope <= 0.0:
            return float(min(2.0 * before, longest))
        root = math.sqrt(max(slope**2 + 2.0 * curvature * wanted, 0.0))
        step = 2.0 * wanted / (slope + root) if slope + root > 0.0 else 2.0 * before
        shortest = 0.1 * before if len(found) > 1 else 0.0
        return float(min(max(step, shortest), 2.0 * before, longest))

    def _moved(self, found: Sequence[Point], direction: int, step: float) -> Point | None:
        """The next point, along the line of the last two; nearer ones where runs fail."""
        last = found[-1].x
        tangent = self.result.covariance[:, self.place]
        along = last - found[-2].x if len(found) > 1 else tangent
        along = along / along[self.place]
        shortest = SHORTEST * (self.upper - self.lower)
        while True:
            where = min(max(last[self.place] + direction * step, self.lower), self.upper)
            found_there = self.at(float(where), last + along * (where - last[self.place]))
            step /= 2.0
            if found_there is not None or step < shortest:
                return found_there

    def _jump(self, a: Point, b: Point) -> bool:
        """Whether the cost between two neighbours changes by other than its slopes say."""
        apart = b.x[self.place] - a.x[self.place]
        said, real = 0.5 * apart * (a.slope + b.slope), b.cost - a.cost
        return bool(abs(said - real) > 0.1 + 0.25 * max(abs(said), abs(real)))
