"""The mean, covariance and likelihood of one patient's parameters, by importance sampling.

Draws from a multivariate t distribution near the posterior are weighted by likelihood times prior;
the proposal is adapted to the weighted draws, and all draws count, weighted by the mixture of the
proposals (AMIS; Cornuet et al. 2012, doi:10.1111/j.1467-9469.2011.00756.x). The draws are scrambled
Sobol points, for each patient the same in every iteration, so that nothing depends on processes.
It is the expectation step of Monte-Carlo importance sampling EM (NONMEM's METHOD=IMP; Wang 2007, J
Pharmacokinet Pharmacodyn 34:575, doi:10.1007/s10928-007-9060-6).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, ndtri
from scipy.stats import chi2, qmc

from ..fitting import EXACT_KINDS, FitProblem
from ..model import Array

DEGREES = 8.0
"""Degrees of freedom of the t distribution: tails heavier than those of any likely posterior."""
ADAPTATIONS = 5
"""Most proposals of one integral."""
ROUNDING = 1e-10
"""Added to a proposal's variances, in their own size, so that it stays positive definite."""
EFFECTIVE = 0.5
"""Effective draws at which no further proposal is drawn from, as share of those of one."""


WIDER = 1.25
"""Most of a posterior's variance over the prior's: then a factor of two of the spread is safe."""


@dataclass(frozen=True, eq=False)
class QuadraticLikelihood:
    """Quadratic approximation of one patient's likelihood.

    -2 ln L(z) = const + 2 slope'(z - x) + (z - x)' information (z - x).

    Parameters
    ----------
    x : (n,) parameters at which it is expanded
    slope : (n,) J'r of the residuals of the observations
    information : (n, n) J'J; zero for parameters the data carry no information on
    """

    x: Array
    slope: Array
    information: Array

    @classmethod
    def of_posterior(
        cls, found: Moments, prior: tuple[Array, Array], shared: Shared, at: Array
    ) -> tuple[QuadraticLikelihood, bool]:
        """The one that, with the normal prior, has the posterior's mean and covariance.

        And the derivatives, in the shared parameters that follow, of the integrated likelihood and
        of the posterior's mean; these are expanded at their values ``at``. Also whether the
        covariance had to be made smaller, for being wider than the prior's by more than `WIDER`: of
        several modes.
        """
        root = np.linalg.cholesky(prior[1])
        scaled = np.linalg.solve(root, np.linalg.solve(root, found.covariance).T)
        sizes, directions = np.linalg.eigh(0.5 * (scaled + scaled.T))
        sizes = np.maximum(sizes, ROUNDING)
        kept = np.maximum(1.0 / sizes - 1.0, 1.0 / WIDER - 1.0)
        back = np.linalg.inv(root)
        own = back.T @ (directions * kept @ directions.T) @ back
        moved, around = found.points - found.mean, shared.scores - found.weights @ shared.scores
        weighted = moved * found.weights[:, None]
        mixed = -back.T @ (directions * (kept + 1.0) @ directions.T) @ back @ (weighted.T @ around)
        marginal = shared.bends(found.weights) - (around * found.weights[:, None]).T @ around
        bends, axes = np.linalg.eigh(marginal)
        # where the likelihood is convex, a step the other way would lead away from its maximum
        square = axes * np.abs(bends) @ axes.T - mixed.T @ (weighted.T @ around)
        slope = -back.T @ back @ (found.mean - prior[0])
        return cls(
            np.concatenate([found.mean, at]),
            np.concatenate([slope, -found.weights @ shared.scores]),
            np.block([[own, mixed], [mixed.T, square]]),
        ), bool(sizes.size and sizes[-1] > WIDER)


@dataclass(frozen=True, eq=False)
class Shared:
    """Derivatives of the log-likelihood at each draw in m parameters that are not integrated over.

    Parameters
    ----------
    scores : (draws, m) first derivatives
    seconds : (draws, m) second derivatives
    slopes : (m, draws, n_residuals) derivatives of the residuals, for the mixed second derivatives
    """

    scores: Array
    seconds: Array
    slopes: Array

    def bends(self, weights: Array) -> Array:
        """Minus the mean second derivatives (m, m); the mixed ones by Gauss-Newton."""
        mixed = np.einsum("adr,bdr,d->ab", self.slopes, self.slopes, weights)
        np.fill_diagonal(mixed, -weights @ self.seconds)
        return np.asarray(mixed)


@dataclass(frozen=True, eq=False)
class Moments:
    """What importance sampling finds of one patient's posterior.

    Parameters
    ----------
    mean : (n,) of the parameters on their scales
    covariance : (n, n)
    log_likelihood : float, ln of the likelihood integrated over the prior
    error : float, Monte-Carlo standard error of ``log_likelihood``, as of independent draws
    effective : float, effective number of draws
    points, weights : (draws, n) and (draws,), the draws and their weights, which sum to 1
    """

    mean: Array
    covariance: Array
    log_likelihood: float
    error: float
    effective: float
    points: Array = field(repr=False)
    weights: Array = field(repr=False)

    def slopes(
        self, prior: tuple[Array, Array], changes: Array, shared: Shared
    ) -> tuple[Array, Array]:
        """Derivatives of the integrated log-likelihood in the prior's mean and covariance V.

        And in the parameters that are not integrated over.

        By the identities of Fisher and Louis (1982, J R Stat Soc B 44:226): the score is the mean
        of the complete data's score, and the information the mean of its information less the
        covariance of its score.

        Parameters
        ----------
        prior : mean (n,) and covariance (n, n), over which the likelihood was integrated
        changes : (k, n, n) dV/da of each number a of the covariance
        shared : Shared, of m parameters

        Returns
        -------
        score (n + k + m,) and information, square, minus the second derivatives
        """
        n, k, precision = prior[0].size, len(changes), np.linalg.inv(prior[1])
        bends = precision @ changes @ precision
        off, mean = self.points - prior[0], self.mean - prior[0]
        squares = 0.5 * np.einsum("di,kij,dj->dk", off, bends, off)
        scores = np.hstack([off @ precision, squares, shared.scores])
        score = self.weights @ scores
        around = scores - score
        traces = np.einsum("ij,kji->k", precision, changes)
        score[n : n + k] -= 0.5 * traces
        total = np.einsum("kij,jl,mlo->kmio", bends, np.eye(n), changes)
        second = self.covariance + np.outer(mean, mean)
        expected = np.zeros((score.size, score.size))
        expected[:n, :n] = precision
        expected[:n, n : n + k] = (bends @ mean).T
        expected[n : n + k, :n] = expected[:n, n : n + k].T
        squared = np.einsum("kmio,op,pi->km", total, precision, second)
        squared -= 0.5 * np.einsum("kij,mji->km", bends, changes)
        expected[n : n + k, n : n + k] = squared
        expected[n + k :, n + k :] = shared.bends(self.weights)
        return score, expected - (around * self.weights[:, None]).T @ around


def moments(
    log_likelihood: Callable[[Array], Array],
    prior: tuple[Array, Array],
    proposal: tuple[Array, Array],
    draws: int,
    seed: int = 1,
) -> Moments:
    """Integrate a likelihood over a normal prior.

    Parameters
    ----------
    log_likelihood : of points (n_points, n): (n_points,); minus infinity where it is 0
    prior, proposal : mean (n,) and covariance (n, n); the proposal is only where to look
    draws : int, a power of two, from each proposal
    seed : int, which scrambles them

    Raises
    ------
    FloatingPointError
        If the likelihood is 0 at every draw.

    Examples
    --------
    A normal prior and a normal likelihood, known in closed form:

    >>> at_one = lambda points: -0.5 * ((points[:, 0] - 1.0) / 0.5) ** 2
    >>> found = moments(at_one, (np.zeros(1), np.eye(1)), (np.zeros(1), np.eye(1)), 4096)
    >>> print(f"{found.mean[0]:.2f}, {found.covariance[0, 0]:.2f}")
    0.80, 0.20
    >>> print(f"{found.log_likelihood:.2f}, {math.log(0.5 / math.sqrt(1.25)) - 0.4:.2f}")
    -1.20, -1.20
    """
    batches: list[_Batch] = []
    for k in range(ADAPTATIONS):
        steps = _steps(prior[0].size, draws, seed + k)
        safe = proposal[1] + ROUNDING * np.diag(np.diag(proposal[1]))
        factor = np.asarray(np.linalg.cholesky(safe), dtype=np.float64)
        points = proposal[0] + steps @ factor.T
        target = log_likelihood(points) + _log_normal(points, *prior)
        batches.append(_Batch(proposal[0], factor, points, target))
        found = _weighted(batches)
        if found.effective >= EFFECTIVE * draws:
            break
        # a covariance of few draws is too small: mixed with the one they came from
        trust = found.effective / (found.effective + prior[0].size)
        proposal = found.mean, trust * found.covariance + (1.0 - trust) * proposal[1]
    return found


def _steps(n: int, draws: int, seed: int) -> Array:
    """Points (draws, n) of a standard t distribution."""
    uniform = qmc.Sobol(n + 1, rng=np.random.default_rng(seed)).random(draws)
    uniform = np.clip(uniform, 1e-12, 1.0 - 1e-12)
    shrinking = np.sqrt(chi2.ppf(uniform[:, n:], DEGREES) / DEGREES)
    return np.asarray(ndtri(uniform[:, :n]) / shrinking)


class _Batch(NamedTuple):
    """Draws from one proposal, its mean and Cholesky factor, and the log posterior there."""

    mean: Array
    factor: Array
    points: Array
    target: Array

    def log_density(self, points: Array) -> Array:
        """Log densities (n_points,) of the proposal."""
        steps = np.asarray(np.linalg.solve(self.factor, (points - self.mean).T).T)
        return _log_t(steps, self.factor)


def _weighted(batches: list[_Batch]) -> Moments:
    """The moments of all draws, each weighted by the mixture of all proposals."""
    points = np.vstack([batch.points for batch in batches])
    logs = np.concatenate([batch.target for batch in batches])
    logs = logs - logsumexp([batch.log_density(points) for batch in batches], axis=0)
    logs = logs + math.log(len(batches))
    top = logs.max()
    if not math.isfinite(top):
        raise FloatingPointError("it is 0 at every draw")
    weights = np.exp(logs - top)
    average, n = float(weights.mean()), len(weights)
    effective = float(weights.sum() ** 2 / np.sum(weights**2))
    error = float(weights.std() / average / math.sqrt(n))
    weights /= weights.sum()
    centre = weights @ points
    off = points - centre
    covariance = (off * weights[:, None]).T @ off
    size = float(top) + math.log(average)
    return Moments(centre, covariance, size, error, effective, points, weights)


def _log_normal(points: Array, mean: Array, covariance: Array) -> Array:
    """Log densities (n_points,) of a normal distribution."""
    factor = np.linalg.cholesky(covariance)
    scaled = np.linalg.solve(factor, (points - mean).T)
    size = np.log(np.diag(factor)).sum() + 0.5 * mean.size * math.log(2.0 * math.pi)
    return np.asarray(-0.5 * np.sum(scaled**2, axis=0) - size)


def _log_t(steps: Array, factor: Array) -> Array:
    """Log densities (n_points,) of the t distribution at scaled steps (n_points, n)."""
    n = steps.shape[1]
    size = gammaln(0.5 * (DEGREES + n)) - gammaln(0.5 * DEGREES)
    size -= 0.5 * n * math.log(DEGREES * math.pi) + np.log(np.diag(factor)).sum()
    return np.asarray(size - 0.5 * (DEGREES + n) * np.log1p(np.sum(steps**2, axis=1) / DEGREES))


def likelihood_constant(problem: FitProblem) -> float:
    """What makes the sum of squared residuals -2 ln density of the log readings."""
    noise, observed, constant = problem.noise, problem.patient.observations, 0.0
    estimated = {o.id for o in noise.with_term(observed)}
    for o in (o for o in observed if o.kind in EXACT_KINDS):
        spread = noise.spread(o)
        scale = spread.least(o.value) if o.id in estimated else spread.sd
        constant += spread.density_constant(scale, o.value)
    return constant


SMEAR = 0.25
"""Least standard deviation of a prior that is integrated over, in those of what one patient knows.

Of a spread far below that, draws would show no slope but noise.
"""


def wide_enough(covariance: Array, errors: Array, spread: Array, tied: NDArray[np.bool_]) -> Array:
    """The covariance (n, n) to integrate over: that of the population, or a least one.

    From what one patient knows, as standard errors (n,), and the spread (n,) assumed; only where
    spreads are estimated, ``tied`` (n,).
    """
    least = np.minimum((SMEAR * np.nan_to_num(errors)) ** 2, 4.0 * spread**2)
    more = np.where(tied, np.maximum(least - np.diag(covariance), 0.0), 0.0)
    return np.asarray(covariance + np.diag(more))
