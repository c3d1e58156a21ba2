"""The methods that give intervals: each from a fit and levels to (low, high) of each parameter.

To study another method, write a function here and name it in `METHODS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
from scipy.special import ndtri

from crs_sim import Fit

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
    from crs_sim.profiling import profile as run

    found: Intervals = {}
    for curve in run(best, levels=levels, workers=1):
        ends = [curve.interval(level) for level in levels]
        found[curve.parameter] = [
            (curve.lower if e.low is None else e.low, curve.upper if e.high is None else e.high)
            for e in ends
        ]
    return found


METHODS: dict[str, Callable[[Fit, Sequence[float]], Intervals]] = {"linear": linear}
if find_spec("crs_sim.profiling") is not None:
    METHODS["profile"] = profile
