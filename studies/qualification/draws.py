"""Draws of a patient's posterior by adaptive importance sampling, started at the fit.

Rounds of Student t proposals, each with the mean and covariance of the draws so far, beside a
share of draws from the prior, so that no weight is unbounded. All draws are weighted together by
posterior over the mixture of proposals (as adaptive multiple importance sampling, Cornuet 2012,
https://doi.org/10.1111/j.1467-9469.2011.00756.x). While too few count, moments are taken with the
weights to a power below 1, so that a proposal does not collapse on one draw. The effective number
is reported: where it is small, the forecast is uncertain by the sampling too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from crs_sim import Fit, FitProblem, fit
from crs_sim.fitting import (
    ROUGH_RTOL,
    Objective,
    assemble_fit,
    from_scale,
    optimise,
    point_of,
    polish,
)

Array = NDArray[np.float64]
DRAWS, ROUNDS, BATCH = 2000, 8, 256
FREEDOM, PRIOR_SHARE = 5.0, 0.2
SEARCHES, SEARCH_DRAWS, SEARCH_ROUNDS, FALL = 4, 1000, 4, 0.1
"""Searches for a better optimum, each with so many draws and rounds; a fall that counts."""
ENOUGH = 4.0
"""Effective draws for each parameter that the moments of the next proposal are taken from."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws with weights that sum to 1, their effective number, and the likeliest (scaled)."""

    values: pd.DataFrame
    weights: Array
    effective: float
    likeliest: Array


@dataclass(frozen=True, eq=False)
class Proposal:
    """A Student t around a mean, mixed with the prior."""

    mean: Array
    root: Array

    def draw(self, n: int, objective: Objective, rng: np.random.Generator) -> Array:
        """Points (n, n_free) within the bounds."""
        lower, upper = objective.lower, objective.upper
        points: Array = np.empty((0, len(self.mean)))
        while len(points) < n:
            normal = rng.standard_normal((2 * n, len(self.mean)))
            scale = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, size=2 * n))
            found = self.mean + scale[:, None] * (normal @ self.root.T)
            prior = objective.centre + objective.sds * normal
            found = np.where(rng.random(2 * n)[:, None] < PRIOR_SHARE, prior, found)
            inside = ((found >= lower) & (found <= upper)).all(axis=1)
            points = np.vstack([points, found[inside]])
        return points[:n]

    def log_density(self, points: Array, objective: Objective) -> Array:
        """Its logarithm at points (n, n_free), up to a constant that is the same for all."""
        n, scaled = points.shape[1], np.linalg.solve(self.root, (points - self.mean).T)
        squares = np.sum(scaled**2, axis=0)
        log_t = (
            gammaln(0.5 * (FREEDOM + n)) - gammaln(0.5 * FREEDOM)
            - 0.5 * n * np.log(FREEDOM * np.pi) - np.linalg.slogdet(self.root)[1]
            - 0.5 * (FREEDOM + n) * np.log1p(squares / FREEDOM)
        )  # fmt: skip
        shifts = (points - objective.centre) / objective.sds
        log_prior = -0.5 * np.sum(shifts**2, axis=1) - np.sum(np.log(objective.sds))
        log_prior = log_prior - 0.5 * n * np.log(2.0 * np.pi)
        return np.asarray(np.logaddexp(np.log1p(-PRIOR_SHARE) + log_t,
                                       np.log(PRIOR_SHARE) + log_prior))  # fmt: skip


def posterior(best: Fit, seed: int, draws: int = DRAWS, rounds: int = ROUNDS) -> Weighted:
    """Weighted draws of the posterior of a fitted problem."""
    objective, rng = Objective(best.problem, ROUGH_RTOL), np.random.default_rng(seed)
    mean, covariance = point_of(best.problem, best.values), best.covariance
    proposals, points, logs = list[Proposal](), list[Array](), list[Array]()
    for _ in range(rounds):
        proposals.append(Proposal(mean, _root(covariance, objective.sds)))
        points.append(proposals[-1].draw(draws, objective, rng))
        logs.append(np.concatenate([objective.log_posteriors(points[-1][k : k + BATCH])
                                    for k in range(0, draws, BATCH)]))  # fmt: skip
        together = np.vstack(points)
        ratio = _ratio(np.concatenate(logs), proposals, together, objective)
        moderate = tempered(ratio, ENOUGH * len(mean))
        mean = moderate @ together
        covariance = (together - mean).T @ ((together - mean) * moderate[:, None])
    weights = np.exp(np.minimum(ratio, 0.5 * np.log(len(ratio))))
    weights /= weights.sum()
    values = pd.DataFrame(from_scale(together, objective.scales), columns=list(best.values))
    top = together[int(np.argmax(np.concatenate(logs)))]
    return Weighted(values, weights, float(1.0 / np.sum(weights**2)), top)


def searched(problem: FitProblem, seed: int = 1) -> Fit:
    """The best fit of a problem: from several starts, then from the likeliest of some draws.

    Draws around a local optimum, a fifth of them of the prior, find their way to others; again
    until they do not.
    """
    best = fit(problem, workers=1)
    for k in range(SEARCHES):
        top = posterior(best, seed + k, SEARCH_DRAWS, SEARCH_ROUNDS).likeliest
        start = optimise(problem, (len(best.starts), top[None]))
        if start.cost > best.polish.cost - FALL:
            break
        best = assemble_fit(problem, (*best.starts, start), polish(problem, start), best.seed)
    return best


def _ratio(logs: Array, proposals: list[Proposal], points: Array, objective: Objective) -> Array:
    """Log of posterior over the mixture of the proposals, with a mean ratio of 1."""
    each = [proposal.log_density(points, objective) for proposal in proposals]
    ratio = logs - (logsumexp(each, axis=0) - np.log(len(each)))
    return np.asarray(ratio - logsumexp(ratio) + np.log(len(ratio)))


def tempered(ratio: Array, enough: float) -> Array:
    """Weights exp(power ratio) that sum to 1, with the largest power to 1 that leaves enough.

    >>> tempered(np.array([0.0, 0.0]), 2.0).tolist()
    [0.5, 0.5]
    """

    def at(power: float) -> Array:
        scaled = power * np.where(np.isfinite(ratio), ratio, -1e300)
        weights = np.exp(scaled - scaled.max())
        return np.asarray(weights / weights.sum())

    low, high = 0.0, 1.0
    if 1.0 / np.sum(at(1.0) ** 2) >= enough:
        return at(1.0)
    for _ in range(40):
        middle = 0.5 * (low + high)
        few = 1.0 / np.sum(at(middle) ** 2) < enough
        low, high = (low, middle) if few else (middle, high)
    return at(low) if low > 0.0 else at(high)


def _root(covariance: Array, sds: Array) -> Array:
    """A square root (n, n), with no direction narrower than a thousandth of the prior."""
    values, vectors = np.linalg.eigh(covariance / np.outer(sds, sds))
    return np.asarray(sds[:, None] * vectors * np.sqrt(np.maximum(values, 1e-6)))
