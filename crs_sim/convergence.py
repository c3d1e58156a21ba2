"""MCMC convergence diagnostics of groups of walkers: R-hat and effective sample size.

Only this file imports arviz-stats. The walkers of a group depend on each other, so the independent
chains are the groups: R-hat compares groups, and the effective sample size is the smaller of two
estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

Array = NDArray[np.float64]

RHAT_LIMIT, ESS_NEEDED = 1.01, 400.0
"""Recommended by Vehtari et al. 2021."""
WALKERS_LIMIT = 1.1
"""For single walkers, which are many and short chains: above it some walkers are stuck."""
TAIL = 0.05
FEWEST = 8
"""Draws of each walker below which no diagnostic is computed."""


@dataclass(frozen=True)
class Convergence:
    """Convergence diagnostics of the draws of one parameter.

    Parameters
    ----------
    parameter : str
    rhat : float, rank-normalised split R-hat with each group of walkers as one chain; 1 is best
    walkers_rhat : float, the same with each walker as one chain: detects walkers that are stuck
    ess_bulk, ess_tail : float, effective sample size, of the bulk and of the 5 and 95 % quantiles
    moves_each : float, moves of one walker per independent draw (integrated autocorrelation time)

    Source
    ------
    Vehtari et al. 2021, doi:10.1214/20-BA1221
    """

    parameter: str
    rhat: float
    walkers_rhat: float
    ess_bulk: float
    ess_tail: float
    moves_each: float

    @property
    def ess(self) -> float:
        """Effective sample size, the smaller of bulk and tail."""
        return min(self.ess_bulk, self.ess_tail)

    @property
    def reached(self) -> bool:
        """Whether all diagnostics are within their limits; False if one of them is missing."""
        return (
            self.rhat <= RHAT_LIMIT
            and self.walkers_rhat <= WALKERS_LIMIT
            and self.ess >= ESS_NEEDED
        )


def convergence(chain: Array, names: Sequence[str], thin: int = 1) -> tuple[Convergence, ...]:
    """Compute the convergence diagnostics of each parameter.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_parameters), without the warm-up
    names : of the parameters
    thin : int, thinning interval: moves from one draw to the next

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> (k,) = convergence(rng.standard_normal((500, 4, 10, 1)), ["k"])
    >>> k.reached, round(k.rhat, 2)
    (True, 1.0)
    """
    return tuple(_of_one(chain[..., k], name, thin) for k, name in enumerate(names))


def _of_one(values: Array, name: str, thin: int) -> Convergence:
    n_draws = len(values)
    if n_draws < FEWEST or np.ptp(values) == 0.0:
        return Convergence(name, *[math.nan] * 5)
    by_group = np.swapaxes(values, 0, 1).reshape(values.shape[1], -1)  # early draws first
    bulk = effective(normal_scores(values))
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL])
    tail = min(effective(1.0 * (values <= limit)) for limit in (low, high))
    return Convergence(
        name,
        rhat=float(array_stats.rhat(by_group, method="rank")),
        walkers_rhat=float(array_stats.rhat(as_chains(values), method="rank")),
        ess_bulk=bulk,
        ess_tail=tail,
        moves_each=values.size * thin / bulk,
    )


def as_chains(values: Array) -> Array:
    """Draws (n_draws, n_groups, n_walkers) as chains (n_groups*n_walkers, n_draws)."""
    return values.reshape(len(values), -1).T


def normal_scores(values: Array) -> Array:
    """Rank-normalised values, as R-hat uses them."""
    ranks = rankdata(values, axis=None).reshape(values.shape)
    return np.asarray(ndtri((ranks - 0.375) / (values.size + 0.25)))


def effective(values: Array) -> float:
    """Effective sample size for the mean.

    The smaller of two estimates: from the series of each group's mean, which accounts for the
    dependence of the walkers in a group but not for stuck walkers; and from each walker as a chain,
    which accounts for stuck walkers but takes walkers as independent.

    Parameters
    ----------
    values : (n_draws, n_groups, n_walkers)
    """
    means = values.mean(axis=2)
    of_means = float(array_stats.ess(means.T, method="mean"))
    from_groups = of_means * values.var() / means.var() if means.var() > 0 else math.nan
    from_walkers = float(array_stats.ess(as_chains(values), method="mean"))
    return float(min(from_groups, from_walkers, values.size))
