"""The methods that give intervals: each from a fit and levels to (low, high) of each parameter.

To study another method, write a function here and name it in `METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtri

from crs_sim import Fit, SamplePlan, sample
from crs_sim.profiling import profile as profiles

PLAN = SamplePlan(draws=120, thin=3, groups=2, walkers=16)
"""Short, for 200 patients: some 150 effective draws, so that an end is off by a sixth of a sd."""

Intervals = dict[str, list[tuple[float, float]]]
"""Of each parameter, one (low, high) a level."""


def linear(best: Fit, levels: Sequence[float]) -> Intervals:
    """Estimate times exp(± z standard errors): the parabola at the optimum."""
    errors = np.sqrt(np.diag(best.covariance))
    found: Intervals = {}
    for name, error in zip(best.problem.names, errors, strict=True):
        reach = [math.exp(ndtri(0.5 + level / 2) * error) for level in levels]
        found[name] = [(best.values[name] / r, best.values[name] * r) for r in reach]
    return found


def profile(best: Fit, levels: Sequence[float]) -> Intervals:
    """Where the profile stays under the chi-square limit; a bound where it never passes it."""
    found: Intervals = {}
    for curve in profiles(best, levels=levels, workers=1):
        ends = [curve.interval(level) for level in levels]
        found[curve.parameter] = [
            (curve.lower if e.low is None else e.low, curve.upper if e.high is None else e.high)
            for e in ends
        ]
    return found


def posterior(best: Fit, levels: Sequence[float]) -> Intervals:
    """Equal tails of the draws of a sampler."""
    draws = sample(best, PLAN, workers=1).values()
    tails = [(0.5 - level / 2, 0.5 + level / 2) for level in levels]
    return {
        name: [(float(draws[name].quantile(low)), float(draws[name].quantile(high)))
               for low, high in tails]
        for name in best.problem.names
    }  # fmt: skip


METHODS: dict[str, Callable[[Fit, Sequence[float]], Intervals]] = {
    "linear": linear,
    "profile": profile,
    "posterior": posterior,
}
