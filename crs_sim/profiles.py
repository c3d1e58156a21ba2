"""The profile likelihood of a parameter: how much worse the fit gets as it is moved.

A `Profile` is a curve: at each value of one parameter, the lowest cost (-2 ln posterior) that all
others can reach. Without the parameter's own prior, which at a fixed value is only a number to be
taken off, it tells what the *data* say of it (and the priors of the others): the verdict is read
from that. `crs_sim.profiling` computes it.

Source: Raue et al. 2009, https://doi.org/10.1093/bioinformatics/btp358
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq
from scipy.special import chdtri

from .errors import InputError
from .objective import Array

LEVELS = (0.5, 0.8, 0.95)
"""Confidence levels reported."""
VERDICT_LEVEL = 0.95
BETTER = 0.1
"""A cost lower than the fit's by this much is a better optimum, and not rounding."""
BARRIER = 0.5
"""Two optima count as two if the way between them costs this much more than the higher one."""
FINE = 64
"""Points of the smooth curve drawn between two that were computed."""


class Interval(NamedTuple):
    """Values that the data leave standing; None where the curve reaches a bound below the limit."""

    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Profile:
    """The profile likelihood of one parameter.

    Parameters
    ----------
    parameter, label, unit : str
    estimate : float, of the fit
    lower, upper : float, bounds
    prior_median, prior_sd : float, of its log-normal prior (sd on the log scale)
    fit_cost : float, cost of the fit that was profiled
    names : all free parameters, in the order of ``points``
    points : (n, n_free) log parameters: the best fit at each value, ascending in the parameter
    costs : (n,) their costs (-2 ln posterior, the parameter's own prior included)
    slopes : (n,) of the costs, by the logarithm of the parameter
    level : float, the highest confidence level the curve was followed to
    runs, failed : int, simulations made, and those that failed
    stopped : why it ends where it does, if runs failed there ("" if not)
    """

    parameter: str
    label: str
    unit: str
    estimate: float
    lower: float
    upper: float
    prior_median: float
    prior_sd: float
    fit_cost: float
    names: tuple[str, ...] = field(repr=False)
    points: Array = field(repr=False)
    costs: Array = field(repr=False)
    slopes: Array = field(repr=False)
    level: float = VERDICT_LEVEL
    runs: int = 0
    failed: int = 0
    stopped: str = ""

    @property
    def values(self) -> Array:
        """The parameter's values, (n,) ascending."""
        return np.exp(self._logs)

    @property
    def _logs(self) -> Array:
        return np.asarray(self.points[:, self.names.index(self.parameter)])

    def curve(self, *, own_prior: bool = True) -> tuple[Array, Array]:
        """Values and costs of the curve through the computed points, above its lowest: two (n,).

        Between two points it is the cubic that has their costs and slopes.

        Parameters
        ----------
        own_prior : bool, False takes the parameter's own prior off: what the data tell
        """
        fine, costs = self._fine
        if not own_prior:
            costs = costs - self._prior(fine)
        return np.exp(fine), costs - costs.min()

    def interval(self, level: float = VERDICT_LEVEL, *, own_prior: bool = True) -> Interval:
        """Where the curve stays under the chi-square limit of one degree of freedom.

        Of a curve with two dips the outermost values. Beyond them the data speak against; where
        the curve ends at a bound, or where runs fail, before it reaches the limit: None.

        Raises
        ------
        InputError
            For a level that the profile was not followed to.
        """
        if not 0.0 < level <= self.level + 1e-12:
            raise InputError(f"profile of {self.parameter}: level {level:g} was asked, but it was "
                             f"followed to {self.level:g}; profile again with levels up to that")
        values, costs = self.curve(own_prior=own_prior)
        inside = np.flatnonzero(costs <= limit(level))
        first, last = int(inside[0]), int(inside[-1])
        low = None if first == 0 else self._crossing(first - 1, first, level, own_prior)
        high = None
        if last < len(values) - 1:
            high = self._crossing(last, last + 1, level, own_prior)
        return Interval(low, high)

    def optima(self) -> tuple[tuple[float, float], ...]:
        """Value and cost of each dip of the profile that lies within the 95 % limit.

        Two dips count only if the way between them leads over a `BARRIER`.
        """
        fine, costs = self._fine
        kept = list[int]()
        for dip in _dips(costs):
            if costs[dip] - costs.min() > limit(VERDICT_LEVEL):
                continue
            top = costs[kept[-1] : dip + 1].max() if kept else math.inf
            if top - max(costs[dip], costs[kept[-1]] if kept else 0.0) >= BARRIER:
                kept.append(dip)
            elif costs[dip] < costs[kept[-1]]:
                kept[-1] = dip
        return tuple((math.exp(fine[k]), float(costs[k])) for k in kept)

    @property
    def better(self) -> dict[str, float] | None:
        """All free parameters at a better optimum than the fit's, if the profile met one."""
        best = int(np.argmin(self.costs))
        if self.costs[best] > self.fit_cost - BETTER:
            return None
        return dict(zip(self.names, np.exp(self.points[best]).tolist(), strict=True))

    @property
    def at_bound(self) -> str:
        """Which bound the profile is lowest at: "lower", "upper" or ""."""
        lowest, logs = int(np.argmin(self.costs)), self._logs
        near = 1e-3 * math.log(self.upper / self.lower)
        if logs[lowest] - math.log(self.lower) < near:
            return "lower"
        return "upper" if math.log(self.upper) - logs[lowest] < near else ""

    @property
    def verdict(self) -> str:
        """What the data tell of the parameter, in words; see `meaning` for what they mean."""
        low, high = self.interval(own_prior=False)
        words = [VERDICTS[low is not None, high is not None]]
        if len(self.optima()) > 1:
            words.append("two optima")
        if self.better is not None:
            words.append(f"a better optimum was found (cost {self.costs.min():.4g}, "
                         f"the fit's is {self.fit_cost:.4g})")  # fmt: skip
        if self.at_bound:
            words.append(f"at its {self.at_bound} bound")
        return "; ".join([*words, self.stopped] if self.stopped else words)

    def _prior(self, logs: Array) -> Array:
        return np.asarray(((logs - math.log(self.prior_median)) / self.prior_sd) ** 2)

    @cached_property
    def _spline(self) -> CubicHermiteSpline:
        return CubicHermiteSpline(self._logs, self.costs, self.slopes)

    @cached_property
    def _fine(self) -> tuple[Array, Array]:
        if len(self.costs) == 1:
            return self._logs, self.costs
        parts = [np.linspace(a, b, FINE, endpoint=False)
                 for a, b in zip(self._logs[:-1], self._logs[1:], strict=True)]  # fmt: skip
        fine = np.concatenate([*parts, self._logs[-1:]])
        return fine, np.asarray(self._spline(fine))

    def _crossing(self, inside: int, beyond: int, level: float, own_prior: bool) -> float:
        """The value between two neighbours of the fine curve where it passes the limit."""
        fine, whole = self._fine
        rest = 0.0 if own_prior else self._prior(fine)
        wanted = float((whole - rest).min()) + limit(level)

        def height(x: float) -> float:
            off = 0.0 if own_prior else float(self._prior(np.array([x]))[0])
            return float(self._spline(x)) - off - wanted

        return math.exp(brentq(height, float(fine[inside]), float(fine[beyond])))


VERDICTS = {
    (True, True): "determined",
    (False, True): "only bounded above",
    (True, False): "only bounded below",
    (False, False): "not told by these data",
}
"""Whether the data put a lower and an upper end to a parameter, in words."""
MEANING = (
    "Verdicts are read from the profile without the parameter's own prior, so they tell what these "
    "data say of it, given the priors of the others: *determined*: the data put an end to it on "
    "both sides (95 %), inside its bounds; *only bounded above* (*below*): values as low (high) as "
    "its bound do as well; *not told by these data*: any value inside its bounds does, and the "
    "estimate is its prior's; *two optima*: values between two that fit are worse than either."
)


def limit(level: float) -> float:
    """How much the cost may rise: the chi-square quantile of one degree of freedom.

    >>> round(limit(0.95), 2)
    3.84
    """
    return float(chdtri(1.0, 1.0 - level))


def profiles_table(profiles: Sequence[Profile]) -> pd.DataFrame:
    """One row a parameter: estimate, intervals with and without its own prior, verdict.

    An end that the curve does not reach inside the bounds is empty.
    """
    rows = []
    for p in profiles:
        row: dict[str, Any] = {"parameter": p.parameter, "unit": p.unit, "estimate": p.estimate}
        for level in LEVELS:
            for own_prior, words in ((True, ""), (False, "data_")):
                low, high = p.interval(level, own_prior=own_prior)
                row |= {f"{words}low_{100 * level:g}": low, f"{words}high_{100 * level:g}": high}
        rows.append(row | {"lower": p.lower, "upper": p.upper, "verdict": p.verdict,
                           "points": len(p.costs), "runs": p.runs, "failed": p.failed})  # fmt: skip
    return pd.DataFrame(rows)


def _dips(costs: Array) -> list[int]:
    """Places of the local minima, ends included; of a flat stretch the first."""
    padded = np.concatenate([[math.inf], costs, [math.inf]])
    return list(np.flatnonzero((costs < padded[:-2]) & (costs <= padded[2:])))
