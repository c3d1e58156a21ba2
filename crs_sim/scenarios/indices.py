"""The interval of each parameter, and Sobol' and Morris indices over them.

Either the priors, or the confidence intervals of the estimates.

Only this file imports SALib. Sobol indices decompose the variance of an output by parameter: S1 is
the first-order index, ST the total-order index with interactions (Saltelli 2010,
https://doi.org/10.1016/j.cpc.2009.09.018). Morris indices are cheaper and only rank: mu* is the
mean absolute elementary effect over a parameter's range, sigma its standard deviation, a measure of
interactions and nonlinearity (Campolongo 2007, https://doi.org/10.1016/j.envsoft.2006.10.004).

SALib 1.6.0 (2026) is the established Python library, with both methods, bootstrap intervals and
seeds; scipy has Sobol indices only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ..errors import InputError, unknown_name
from ..fitting import Fit, Free, Population, from_scale, point_of, to_scale
from ..model import Array
from ..uncertainty import Draws


@dataclass(frozen=True)
class ParameterInterval:
    """Distribution of a parameter: truncated normal, or uniform, on its scale.

    Parameters
    ----------
    name : str
    low, high : float, bounds, in the parameter's unit
    median, sd : float, of the normal distribution (sd on the scale); uniform if sd is infinite
    scale : "log", or "logit" of a share

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
    scale: str = "log"

    def at(self, chances: Array) -> Array:
        """Quantiles at cumulative probabilities, (n,)."""
        if math.isinf(self.sd):
            low, high = to_scale([self.low, self.high], self.scale)
            return from_scale(low + chances * (high - low), self.scale)
        prior = Free(self.name, self.low, self.high, self.median, self.sd, scale=self.scale)
        return prior.drawn(chances)


def prior_intervals(result: Fit) -> tuple[ParameterInterval, ...]:
    """The priors of a fit's problem, truncated at their bounds."""
    return tuple(
        ParameterInterval(f.name, f.lower, f.upper, f.median, f.sd, f.scale)
        for f in result.problem.free
    )


def fit_intervals(result: Fit, level: float) -> tuple[ParameterInterval, ...]:
    """Confidence intervals of the estimates, truncated at the bounds; uniform on their scales.

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
    problem, half = result.problem, ndtri(0.5 + level / 2) * np.sqrt(np.diag(result.covariance))
    x = point_of(problem, result.values)
    ends = zip(*(from_scale(x + side * half, problem.scales).tolist() for side in (-1, 1)),
               strict=True)  # fmt: skip
    return tuple(
        ParameterInterval(
            f.name, max(f.lower, low), min(f.upper, high), result.values[f.name], math.inf, f.scale
        )
        for f, (low, high) in zip(problem.free, ends, strict=True)
    )  # fmt: skip


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


LEADING = {"sobol": "ST", "morris": "mu_star"}
"""The index by which each method ranks."""
EXTRA = {"sobol": 2, "morris": 1}
"""Runs of a block in addition to one for each parameter."""
LEVELS = 4
"""Grid levels of a parameter in a Morris design."""
RESAMPLES = 200
LEAST = 8
"""Minimum number of blocks, so that indices can be computed from a quarter of them."""


def design(method: str, parameters: int, *, samples: int, seed: int) -> Array:
    """Generate the points of the design, in blocks, between 0 and 1.

    Parameters
    ----------
    method : "sobol" or "morris"
    parameters : int
    samples : int, blocks: base samples of a Sobol design (a power of two), Morris trajectories
    seed : int

    Returns
    -------
    (n_samples * (n_parameters + 2 or 1), n_parameters)

    Raises
    ------
    UnknownNameError, InputError
        For an unknown method, too few samples, or a number that is not a power of two.

    Examples
    --------
    >>> design("sobol", 3, samples=16, seed=1).shape
    (80, 3)
    """
    _check(method, samples)
    problem = _problem(parameters)
    if method == "sobol":
        from SALib.sample import sobol

        points = sobol.sample(problem, samples, calc_second_order=False, seed=seed + 1)
    else:
        from SALib.sample import morris

        points = morris.sample(problem, samples, num_levels=LEVELS, seed=seed + 1)
    return np.asarray(points, dtype=np.float64)


def block(method: str, parameters: int) -> int:
    """Rows of a block, which can only be analysed together."""
    return parameters + EXTRA[method]


def indices(
    method: str, points: Array, values: Array, *, seed: int, level: float = 0.95
) -> dict[str, Array]:
    """Compute the indices of each parameter, with bootstrap confidence intervals.

    Parameters
    ----------
    method : "sobol" or "morris"
    points : (n_rows, n_parameters), of `design`, or whole blocks of it
    values : (n_rows,), outputs of the runs; finite
    seed : int, of the bootstrap
    level : float, confidence level of the intervals

    Returns
    -------
    mapping of column to (n_parameters,): ``S1, S1_low, S1_high, ST, ST_low, ST_high``; or
    ``mu, mu_star, mu_star_low, mu_star_high, sigma``. All are 0 if the values are constant.
    """
    n = points.shape[1]
    if np.ptp(values) <= 1e-12 * np.abs(values).max(initial=0.0):
        names = ("S1", "S1_low", "S1_high", "ST", "ST_low", "ST_high") if method == "sobol" else (
            "mu", "mu_star", "mu_star_low", "mu_star_high", "sigma")  # fmt: skip
        return {name: np.zeros(n) for name in names}
    options = {"num_resamples": RESAMPLES, "conf_level": level, "seed": seed + 1}
    if method == "sobol":
        from SALib.analyze import sobol

        found = sobol.analyze(_problem(n), values, calc_second_order=False, **options)
        return {**_ends(found, "S1"), **_ends(found, "ST")}
    from SALib.analyze import morris

    found = morris.analyze(_problem(n), points, values, num_levels=LEVELS, **options)
    return {"mu": _plain(found["mu"]), **_ends(found, "mu_star"), "sigma": _plain(found["sigma"])}


def _check(method: str, samples: int) -> None:
    if method not in LEADING:
        raise unknown_name("method", method, LEADING)
    if samples < LEAST:
        raise InputError(f"samples is {samples}; give {LEAST} or more")
    if method == "sobol" and samples & (samples - 1):
        below = 1 << (samples.bit_length() - 1)
        raise InputError(
            f"samples is {samples}; a Sobol design needs a power of two: {below} or {2 * below}"
        )


def _problem(parameters: int) -> dict[str, Any]:
    names = [f"x{k}" for k in range(parameters)]
    return {"num_vars": parameters, "names": names, "bounds": [[0.0, 1.0]] * parameters}


def _ends(found: Any, name: str) -> dict[str, Array]:
    middle, half = _plain(found[name]), _plain(found[f"{name}_conf"])
    return {name: middle, f"{name}_low": middle - half, f"{name}_high": middle + half}


def _plain(values: Any) -> Array:
    return np.asarray(np.ma.getdata(values), dtype=np.float64)
