"""Interval methods: functions of a fit and levels that return (low, high) of each parameter.

To study another method, add a function here and an entry in `METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from crs_sim import Fit, SamplePlan, sample
from crs_sim.uncertainty.profiling import profile as profiles

PLAN = SamplePlan(draws=120, thin=3, groups=2, walkers=16)
"""Short, for 200 patients: some 150 effective draws, so that limits are off by 1/6 sd."""
MORE_WALKERS = 24
"""With the residual errors as parameters; emcee needs two for each."""

Intervals = dict[str, list[tuple[float, float]]]
"""By parameter, one (low, high) per level."""


def linear(best: Fit, levels: Sequence[float]) -> Intervals:
    """Wald intervals on the log scale: estimate times exp(± z standard errors)."""
    errors = np.sqrt(np.diag(best.covariance))
    found: Intervals = {}
    for name, error in zip(best.problem.names, errors, strict=True):
        reach = [math.exp(ndtri(0.5 + level / 2) * error) for level in levels]
        found[name] = [(best.values[name] / r, best.values[name] * r) for r in reach]
    return found


def profile(best: Fit, levels: Sequence[float]) -> Intervals:
    """Profile-likelihood intervals; a bound where the profile stays under the chi-square limit."""
    found: Intervals = {}
    for curve in profiles(best, levels=levels, workers=1):
        ends = [curve.interval(level) for level in levels]
        found[curve.parameter] = [
            (curve.lower if e.low is None else e.low, curve.upper if e.high is None else e.high)
            for e in ends
        ]
    return found


def posterior(best: Fit, levels: Sequence[float]) -> Intervals:
    """Equal-tailed intervals of posterior draws."""
    walkers = PLAN.walkers if len(best.problem.free) < PLAN.walkers // 2 else MORE_WALKERS
    draws = sample(best, replace(PLAN, walkers=walkers), workers=1).values()
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
