"""Distributions of the free parameters of a fit, by quantile function, for sensitivity analysis.

Either the priors, or the confidence intervals of the estimates.
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
class ParameterInterval:
    """Distribution of a parameter: truncated log-normal, or log-uniform.

    Parameters
    ----------
    name : str
    low, high : float, bounds, in the parameter's unit
    median, sd : float, of the log-normal distribution; an infinite sd makes it log-uniform

    Examples
    --------
    >>> interval = ParameterInterval("k", 1.0, 100.0, 10.0, math.inf)
    >>> interval.at(np.array([0.0, 0.5, 1.0])).round(6).tolist()
    [1.0, 10.0, 100.0]
    """

    name: str
    low: float
    high: float
    median: float
    sd: float

    def at(self, chances: Array) -> Array:
        """Quantiles at cumulative probabilities, (n,)."""
        if math.isinf(self.sd):
            step = math.log(self.high / self.low)
            return np.asarray(self.low * np.exp(step * chances))
        low, high = (ndtr(math.log(x / self.median) / self.sd) for x in (self.low, self.high))
        logs = math.log(self.median) + self.sd * ndtri(low + chances * (high - low))
        return np.asarray(np.exp(logs))


def prior_intervals(result: Fit) -> tuple[ParameterInterval, ...]:
    """The priors of a fit's problem, truncated at their bounds."""
    return tuple(
        ParameterInterval(f.name, f.lower, f.upper, f.median, f.sd) for f in result.problem.free
    )


def fit_intervals(result: Fit, level: float) -> tuple[ParameterInterval, ...]:
    """Confidence intervals of the estimates, truncated at the bounds; log-uniform inside.

    Correlations between parameters are ignored.

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
            "so it has no confidence intervals; use the priors"
        )
    factors = np.exp(ndtri(0.5 + level / 2) * np.sqrt(np.diag(result.covariance)))
    found = []
    for free, factor in zip(result.problem.free, factors.tolist(), strict=True):
        middle = result.values[free.name]
        low, high = max(free.lower, middle / factor), min(free.upper, middle * factor)
        found.append(ParameterInterval(free.name, low, high, middle, math.inf))
    return tuple(found)


def prior_draws(result: Fit, count: int, *, seed: int) -> Draws:
    """Draw virtual patients from a problem's priors, parameters independently.

    Parameters
    ----------
    result : Fit
    count : int, number of patients
    seed : int

    Raises
    ------
    InputError
        If count is below 1.
    """
    problem = result.problem
    population = Population(problem.name, problem.model, problem.free, problem.noise)
    table = pd.DataFrame(population.sample(count, np.random.default_rng(seed)))
    return Draws(table, f"{count} virtual patients of the priors", float(count))
