"""Whether groups of walkers have found the posterior: R-hat, effective draws. Door to arviz-stats.

The walkers of a group steer by each other, so they are no independent chains: groups are. R-hat
compares whole groups; draws are counted in two ways, and the fewer count.
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
"""Of Vehtari et al. 2021."""
WALKERS_LIMIT = 1.1
"""For single walkers, which are many and short: above it some of them have not moved about."""
TAIL = 0.05
FEWEST = 8
"""Draws of each walker below which nothing can be said."""


@dataclass(frozen=True)
class Convergence:
    """What can be said of the draws of one parameter.

    Parameters
    ----------
    parameter : str
    rhat : float, rank-normalised split R-hat with each group of walkers as one chain; 1 is best
    walkers_rhat : float, the same with each walker as one chain: tells walkers that are stuck
    ess_bulk, ess_tail : float, effective draws for the middle, and for the 5 and 95 % quantiles
    moves_each : float, moves of one walker that are worth one independent draw
        (integrated autocorrelation time)

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
        """Effective draws, the fewer of both."""
        return min(self.ess_bulk, self.ess_tail)

    @property
    def reached(self) -> bool:
        """Whether all limits are kept; never where one of the numbers is missing."""
        return (
            self.rhat <= RHAT_LIMIT
            and self.walkers_rhat <= WALKERS_LIMIT
            and self.ess >= ESS_NEEDED
        )


def convergence(chain: Array, names: Sequence[str], thin: int = 1) -> tuple[Convergence, ...]:
    """One `Convergence` for each parameter.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_parameters), without the warm-up
    names : of the parameters
    thin : int, moves from one draw to the next

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
        walkers_rhat=float(array_stats.rhat(by_walker(values), method="rank")),
        ess_bulk=bulk,
        ess_tail=tail,
        moves_each=values.size * thin / bulk,
    )


def by_walker(values: Array) -> Array:
    """Draws (n_draws, n_groups, n_walkers) as chains (n_groups*n_walkers, n_draws)."""
    return values.reshape(len(values), -1).T


def normal_scores(values: Array) -> Array:
    """Values replaced by the normal quantiles of their ranks, as R-hat does."""
    ranks = rankdata(values, axis=None).reshape(values.shape)
    return np.asarray(ndtri((ranks - 0.375) / (values.size + 0.25)))


def effective(values: Array) -> float:
    """Independent draws whose mean would be as exact as the mean of these.

    Counted twice. From the course of each group's mean: that holds whatever the walkers of a
    group have in common, but not that some may be stuck. From each walker by itself: that holds
    stuck walkers, but takes them as independent. The fewer count.

    Parameters
    ----------
    values : (n_draws, n_groups, n_walkers)
    """
    means = values.mean(axis=2)
    of_means = float(array_stats.ess(means.T, method="mean"))
    together = of_means * values.var() / means.var() if means.var() > 0 else math.nan
    alone = float(array_stats.ess(by_walker(values), method="mean"))
    return float(min(together, alone, values.size))
