"""How far each free parameter of a fit may lie from its estimate, asked by chances from 0 to 1.

Either its prior says, which is what was known of it before these data; or the fit does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from .draws import Draws
from .errors import InputError
from .fitting import Fit
from .objective import Array
from .population import Population


@dataclass(frozen=True)
class Range:
    """Where a parameter may lie: log-normal, cut at both ends; or even on the log scale.

    Parameters
    ----------
    name : str
    low, high : float, ends, in the parameter's unit
    median, sd : float, of the log-normal distribution; an infinite sd makes it even

    Examples
    --------
    >>> Range("k", 1.0, 100.0, 10.0, math.inf).at(np.array([0.0, 0.5, 1.0])).round(6).tolist()
    [1.0, 10.0, 100.0]
    """

    name: str
    low: float
    high: float
    median: float
    sd: float

    def at(self, chances: Array) -> Array:
        """The values below which these shares of it lie, (n,)."""
        if math.isinf(self.sd):
            step = math.log(self.high / self.low)
            return np.asarray(self.low * np.exp(step * chances))
        low, high = (ndtr(math.log(x / self.median) / self.sd) for x in (self.low, self.high))
        logs = math.log(self.median) + self.sd * ndtri(low + chances * (high - low))
        return np.asarray(np.exp(logs))


def prior_ranges(result: Fit) -> tuple[Range, ...]:
    """The priors of a fit's problem, cut at their bounds."""
    return tuple(Range(f.name, f.lower, f.upper, f.median, f.sd) for f in result.problem.free)


def fit_ranges(result: Fit, level: float) -> tuple[Range, ...]:
    """The intervals of the estimates that hold ``level``, cut at the bounds; even inside.

    Each on its own: what the fit says of two parameters together is not in them.

    Raises
    ------
    InputError
        For a level not between 0 and 1, or a fit without standard errors.
    """
    if not 0 < level < 1:
        raise InputError(f"within is {level:g}; give a level between 0 and 1, such as 0.95")
    if result.singular:
        raise InputError(
            f"{result.problem.name}: the fit has no standard errors (its covariance is singular), "
            "so its intervals say nothing; use the priors"
        )
    wide = np.exp(ndtri(0.5 + level / 2) * np.sqrt(np.diag(result.covariance)))
    found = []
    for free, factor in zip(result.problem.free, wide.tolist(), strict=True):
        middle = result.values[free.name]
        low, high = max(free.lower, middle / factor), min(free.upper, middle * factor)
        found.append(Range(free.name, low, high, middle, math.inf))
    return tuple(found)


def prior_draws(result: Fit, count: int, *, seed: int) -> Draws:
    """Virtual patients of a problem's priors, each parameter on its own.

    Parameters
    ----------
    result : Fit
    count : int, how many
    seed : int

    Raises
    ------
    InputError
        If count is below 1.
    """
    problem = result.problem
    people = Population(problem.name, problem.model, problem.free, problem.noise)
    table = pd.DataFrame(people.sample(count, np.random.default_rng(seed)))
    return Draws(table, f"{count} virtual patients of the priors", float(count))
