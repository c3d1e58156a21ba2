"""The population estimated from what several patients' data say of their parameters.

Near its optimum a patient's -2 log-likelihood is approximated as quadratic in the parameters on
their scales (logarithms, or logits of shares): a `QuadraticLikelihood`. The population maximises
the marginal likelihood of several, each patient weighted by their information: the global two-stage
method (Steimer 1984, Drug Metab Rev 15:265). Repeated at the new estimates until convergence, it is
the linearisation of Lindstrom and Bates (doi:10.2307/2532087). With quadratics that have the mean
and covariance of each patient's exact posterior instead (`crs_sim.population.patient_steps`) its
fixed point is that of the EM algorithm: the maximum of the exact marginal likelihood.

`crs_sim.population.population_fit` computes the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..model import Array
from .importance_sampling import QuadraticLikelihood

NARROWEST, WIDEST = 1e-3, 1e2
"""Bounds of an estimated spread; at the lower one patients are alike to a thousandth."""
RIDGE = 1e-12
"""Added to the information, so that a matrix without any can be inverted."""
NOWHERE = 1e300
"""The cost where a covariance of some patient is not positive definite."""

STEP = 2.0
"""Largest factor of a spread in one step from a given estimate."""

Block = tuple[tuple[int, ...], ...]
"""Parameters whose effects have one covariance matrix; several such sets share the matrix."""


@dataclass(frozen=True, eq=False)
class PopulationPrior:
    """The prior of the population, and which parts of the population are estimated.

    Parameters
    ----------
    centre, spread : (n,) mean and standard deviation of the parameters
    patients : float, the weight of this prior, in patients
    estimated : (n,) bool, whether the centre is estimated; otherwise it is fixed
    shared : (n,) bool, whether all patients have the same value
    correlated : sets of parameters whose random effects are correlated; each in one at most
    """

    centre: Array
    spread: Array
    patients: float
    estimated: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    correlated: tuple[tuple[int, ...], ...] = ()

    @property
    def tied(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the spread is estimated as well."""
        return self.estimated & ~self.shared

    @property
    def blocks(self) -> list[Block]:
        """The covariance matrices that are estimated."""
        together = {k for block in self.correlated for k in block}
        alone = [((int(k),),) for k in np.flatnonzero(self.tied) if k not in together]
        return [*((block,) for block in self.correlated), *alone]

    @cached_property
    def elements(self) -> list[tuple[Block, int, int]]:
        """The elements of the covariance that are estimated: block, row, column."""
        return [(block, row, column) for block in self.blocks for row, column in _triangle(block)]

    @cached_property
    def changes(self) -> Array:
        """(k, n, n) derivatives of the covariance in its k elements."""
        changes = np.zeros((len(self.elements), self.centre.size, self.centre.size))
        for change, (block, row, column) in zip(changes, self.elements, strict=True):
            for each in block:
                change[each[row], each[column]] = change[each[column], each[row]] = 1.0
        return changes

    @property
    def covariance(self) -> Array:
        """(n, n) of the random effects as assumed: uncorrelated."""
        return np.diag(np.where(self.shared, 0.0, self.spread**2))


@dataclass(frozen=True, eq=False)
class PopulationEstimate:
    """The estimated population.

    Parameters
    ----------
    centre : (n,)
    covariance : (n, n) of the random effects; rows of shared parameters are 0
    centre_error, spread_error : (n,) standard errors, of the centre and of ln spread; nan if not
        estimated
    correlation_error : (n, n) standard errors of correlations; nan if not estimated
    patients : (n_patients, n) empirical Bayes estimates of each patient's parameters, shrunk
        towards the centre
    errors : (n_patients, n) their standard errors
    covariances : (n_patients, n, n) their covariances
    """

    centre: Array
    covariance: Array
    centre_error: Array
    spread_error: Array
    correlation_error: Array
    patients: Array
    covariances: Array

    @property
    def spread(self) -> Array:
        """(n,) standard deviation of each random effect; 0 if shared."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Array:
        """(n, n) correlations of the random effects; 0 with a shared parameter."""
        spread = np.where(self.spread > 0.0, self.spread, 1.0)
        return np.asarray(self.covariance / np.outer(spread, spread))

    @property
    def errors(self) -> Array:
        """(n_patients, n) standard errors of each patient's parameters."""
        return np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))

    @property
    def shrinkage(self) -> Array:
        """1 - sd(deviations)/spread: 0 if the patients' own data decide, 1 without information.

        nan if they are ``alike``.
        """
        deviations = np.sqrt(np.mean((self.patients - self.centre) ** 2, axis=0))
        spread = np.where(self.alike, np.nan, self.spread)
        return np.asarray(1.0 - deviations / spread)

    @property
    def alike(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the spread is no more than its least: patients do not differ."""
        return self.spread < 2.0 * NARROWEST


def two_stage(
    evidence: Sequence[QuadraticLikelihood],
    assumed: PopulationPrior,
    start: Array | None = None,
) -> PopulationEstimate:
    """Estimate the population by maximum marginal likelihood, penalised by its prior.

    Parameters
    ----------
    evidence : of one patient each, all over the same n parameters
    assumed : PopulationPrior; with ``patients`` 0 the estimate is maximum likelihood
    start : (n, n) covariance from which the search starts, within a factor `STEP` of which it
        stays  [default: as assumed, anywhere]

    Examples
    --------
    >>> zero, sure = np.zeros(1), np.array([[1e6]])
    >>> two = [QuadraticLikelihood(np.array([z]), zero, sure) for z in (-1.0, 1.0)]
    >>> yes, no = np.array([True]), np.array([False])
    >>> found = two_stage(two, PopulationPrior(np.zeros(1), np.ones(1), 0.0, yes, no))
    >>> round(float(found.spread[0]), 3)
    1.0
    """
    marginal = _Marginal(evidence, assumed)
    covariance = assumed.covariance if start is None else start
    theta = marginal.numbers(covariance)
    if theta.size:
        limits = [marginal.limits(k, theta, near=start is not None) for k in range(theta.size)]
        best = minimize(
            marginal.cost, theta, jac=True, method="L-BFGS-B", bounds=limits,
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
        )  # fmt: skip
        covariance = marginal.covariance(best.x)
    return marginal.estimate(covariance)


class _Marginal:
    """The marginal likelihood of several patients, as a function of the covariance's numbers.

    Each block has a Cholesky factor L; its numbers are the lower triangle of L, row by row, with
    the logarithm of the diagonal.
    """

    def __init__(self, evidence: Sequence[QuadraticLikelihood], assumed: PopulationPrior) -> None:
        self.information = np.stack([e.information for e in evidence])
        # each patient's optimum, weighted by their information
        self.weighted_x = np.stack([e.information @ e.x - e.slope for e in evidence])
        self.assumed, self.blocks = assumed, assumed.blocks
        self.eye = np.eye(assumed.centre.size)
        own = ~assumed.shared & ~assumed.estimated
        self.fixed = np.diag(np.where(own, assumed.spread**2, 0.0))

    def numbers(self, covariance: Array) -> Array:
        """The numbers (n_numbers,) of a covariance (n, n), with spreads inside their bounds."""
        numbers = []
        for block in self.blocks:
            factor = np.linalg.cholesky(covariance[np.ix_(block[0], block[0])])
            for row, column in _triangle(block):
                value = factor[row, column]
                numbers.append(value if row > column else np.log(np.clip(value, NARROWEST, WIDEST)))
        return np.array(numbers, dtype=np.float64)

    def limits(self, k: int, theta: Array, *, near: bool) -> tuple[float, float]:
        """The bounds of a number."""
        _, row, column = self.assumed.elements[k]
        if row > column:
            return -WIDEST, WIDEST
        low, high = np.log([NARROWEST, WIDEST])
        step = np.log(STEP) if near else np.inf
        return float(max(low, theta[k] - step)), float(min(high, theta[k] + step))

    def factors(self, theta: Array) -> Iterator[tuple[Block, Array]]:
        """Each block with its Cholesky factor."""
        last = 0
        for block in self.blocks:
            factor = np.zeros((len(block[0]), len(block[0])))
            places = _triangle(block)
            for (row, column), value in zip(places, theta[last:], strict=False):
                factor[row, column] = np.exp(value) if row == column else value
            last += len(places)
            yield block, factor

    def covariance(self, theta: Array) -> Array:
        """(n, n) of the numbers."""
        covariance = self.fixed.copy()
        for block, factor in self.factors(theta):
            for each in block:
                covariance[np.ix_(each, each)] = factor @ factor.T
        return covariance

    def cost(self, theta: Array) -> tuple[float, Array]:
        """-2 ln marginal likelihood, and its gradient in the numbers.

        The centre is profiled out. The prior has the weight of ``patients`` n: for a covariance V
        and the prior's A it adds n (ln det V + tr A/V), which has its minimum at V = A.
        """
        covariance, assumed = self.covariance(theta), self.assumed
        centre, _ = self.centre(covariance)
        means, _ = self.patients(centre, covariance)
        offset = self.weighted_x - self.information @ centre
        signs, logs = np.linalg.slogdet(self.eye + self.information @ covariance)
        if not (signs > 0.0).all():
            return NOWHERE, np.zeros(theta.size)
        cost = logs.sum() - np.sum(offset * (means - centre))
        cost -= 2.0 * np.sum(self.weighted_x @ centre)
        cost += centre @ self.information.sum(axis=0) @ centre
        cost += assumed.patients * np.sum(((centre - assumed.centre) / assumed.spread) ** 2)
        solved = np.linalg.solve(self.eye + self.information @ covariance, offset[..., None])
        bends: Array = self.weights(covariance).sum(axis=0)
        bends = bends - np.einsum("kia,kja->ij", solved, solved)
        slopes: list[float] = []
        for block, factor in self.factors(theta):
            prior, towards = self._prior(block, factor)
            cost += prior
            towards = towards + sum(bends[np.ix_(each, each)] for each in block)
            slope = 2.0 * towards @ factor
            slopes += [slope[row, column] * (factor[row, row] if row == column else 1.0)
                       for row, column in _triangle(block)]  # fmt: skip
        return float(cost), np.array(slopes, dtype=np.float64)

    def _prior(self, block: Block, factor: Array) -> tuple[float, Array]:
        """What the prior adds to the cost for one block, and the derivative in its covariance."""
        weight = self.assumed.patients
        precision = np.asarray(np.linalg.inv(factor @ factor.T), dtype=np.float64)
        scale = np.diag(self.assumed.spread[list(block[0])] ** 2)
        cost = 2.0 * np.log(np.diag(factor)).sum() + np.trace(scale @ precision)
        slope: Array = weight * (precision - precision @ scale @ precision)
        return weight * float(cost), slope

    def weights(self, covariance: Array) -> Array:
        """H (I + V H)^-1 of each patient: their information on the centre, (n_patients, n, n)."""
        inverse = np.linalg.inv(self.eye + covariance @ self.information)
        return np.asarray(self.information @ inverse)

    def centre(self, covariance: Array) -> tuple[Array, Array]:
        """The optimal centre (n,) for a covariance (n, n), and its precision (n, n)."""
        assumed = self.assumed
        precision = self.weights(covariance).sum(axis=0)
        solved = np.linalg.solve(
            self.eye + self.information @ covariance, self.weighted_x[..., None]
        )[..., 0]
        prior = assumed.patients / assumed.spread**2
        precision = precision + np.diag(prior)
        total = solved.sum(axis=0) + prior * assumed.centre
        free, centre = assumed.estimated, assumed.centre.copy()
        if free.any():
            right_side = total[free] - precision[np.ix_(free, ~free)] @ centre[~free]
            matrix = precision[np.ix_(free, free)]
            centre[free] = np.linalg.lstsq(matrix, right_side, rcond=1e-12)[0]
        return centre, precision

    def patients(self, centre: Array, covariance: Array) -> tuple[Array, Array]:
        """Mean (n_patients, n) and covariance of each patient's parameters.

        (H + V^-1)^-1 = V (I + H V)^-1, which holds also where V is 0.
        """
        inverse = np.linalg.inv(self.eye + self.information @ covariance)
        covariances = covariance @ inverse
        offset = self.weighted_x - self.information @ centre
        return centre + (covariances @ offset[..., None])[..., 0], covariances

    def estimate(self, covariance: Array) -> PopulationEstimate:
        """The population with this covariance, with its standard errors."""
        centre, precision = self.centre(covariance)
        means, covariances = self.patients(centre, covariance)
        estimated = np.ix_(self.assumed.estimated, self.assumed.estimated)
        centre_error = np.full(centre.size, np.nan)
        # without information the standard error is huge, instead of an exception
        regular = precision[estimated] + RIDGE * np.eye(int(self.assumed.estimated.sum()))
        squares = np.diag(np.linalg.inv(regular))
        centre_error[self.assumed.estimated] = np.sqrt(np.where(squares > 0.0, squares, np.nan))
        spread_error, correlation_error = self._errors(covariance)
        return PopulationEstimate(
            centre, covariance, centre_error, spread_error, correlation_error, means, covariances
        )

    def _errors(self, covariance: Array) -> tuple[Array, Array]:
        """Standard errors of ln spread, (n,), and of correlations, (n, n), by Fisher information.

        The information of a patient on the elements a, b of V is tr(W dV/da W dV/db)/2.
        """
        changes = self.assumed.changes
        moved = np.einsum("kij,ajl->kail", self.weights(covariance), changes)
        fisher = 0.5 * np.einsum("kail,kbli->ab", moved, moved)
        fisher += prior_slopes(self.assumed, covariance)[1]
        cover = np.linalg.inv(fisher + RIDGE * np.eye(len(changes)))
        return covariance_errors(self.assumed, covariance, cover)


def prior_slopes(assumed: PopulationPrior, covariance: Array) -> tuple[Array, Array]:
    """Score (k,) and information (k, k) of the prior on the elements of a covariance.

    Of ln density -n/2 (ln det V + tr A/V) with the prior's A and weight n, once for each block.
    """
    score, information = np.zeros(len(assumed.elements)), np.zeros((len(assumed.elements),) * 2)
    for block in assumed.blocks:
        places = [k for k, (each, _, _) in enumerate(assumed.elements) if each == block]
        inside = np.ix_(block[0], block[0])
        precision = np.linalg.inv(covariance[inside])
        scale = precision @ np.diag(assumed.spread[list(block[0])] ** 2) @ precision
        changes = assumed.changes[places][:, block[0]][:, :, block[0]]
        score[places] = 0.5 * np.einsum("ij,kji->k", scale - precision, changes)
        twice = np.einsum("ij,kjl,lo,moi->km", 2.0 * scale - precision, changes, precision, changes)
        information[np.ix_(places, places)] = 0.5 * twice
    return assumed.patients * score, assumed.patients * information


def covariance_errors(
    assumed: PopulationPrior, covariance: Array, cover: Array
) -> tuple[Array, Array]:
    """Standard errors of ln spread, (n,), and of correlations, (n, n).

    ``cover`` (k, k) is the covariance of the estimated elements of the covariance (n, n).
    """
    n = covariance.shape[0]
    spread_error, correlation_error = np.full(n, np.nan), np.full((n, n), np.nan)
    index = {(b[0][r], b[0][c]): a for a, (b, r, c) in enumerate(assumed.elements)}
    for block, row, column in assumed.elements:
        i, j = block[0][row], block[0][column]
        size = np.sqrt(covariance[i, i] * covariance[j, j])
        if i == j:
            square = cover[index[i, i], index[i, i]]
            error = np.sqrt(square if square > 0.0 else np.nan) / (2.0 * size)
        else:
            chosen = [index[i, j], index[i, i], index[j, j]]
            half = -0.5 * covariance[i, j] / size
            slope = np.array([1.0 / size, half / covariance[i, i], half / covariance[j, j]])
            square = slope @ cover[np.ix_(chosen, chosen)] @ slope
            error = np.sqrt(square if square > 0.0 else np.nan)
        for each in block:
            if i == j:
                spread_error[each[row]] = error
            else:
                correlation_error[each[row], each[column]] = error
                correlation_error[each[column], each[row]] = error
    return spread_error, correlation_error


def _triangle(block: Block) -> list[tuple[int, int]]:
    """Rows and columns of the lower triangle of a block's matrix."""
    return [(row, column) for row in range(len(block[0])) for column in range(row + 1)]
