"""The population behind several patients, from what the data of each say of their parameters.

Near its best values a patient's -2 log-likelihood is a parabola in the log parameters: an
`Evidence`. From several of them follows the population under which they are most likely, each
patient counting by how much they know: the global two-stage method (Steimer 1984, Drug Metab Rev
15:265). Taken again at the new best values, until nothing moves, it is the linearisation of
Lindstrom and Bates (doi:10.2307/2532087).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]

NARROWEST, WIDEST = 1e-3, 1e2
"""A spread below the first is none: patients are alike to a thousandth."""
NOTHING = 1e-12
"""Information as good as none."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one patient's data say.

    -2 ln L(z) = const + 2 slope'(z - x) + (z - x)' information (z - x).

    Parameters
    ----------
    x : (n,) log parameters at which it was taken
    slope : (n,) J'r of the residuals of the observations
    information : (n, n) J'J; zero in what the data say nothing of
    """

    x: Array
    slope: Array
    information: Array


@dataclass(frozen=True, eq=False)
class Assumed:
    """What was assumed of the population beforehand, and what is to be estimated of it.

    Parameters
    ----------
    centre, spread : (n,) mean and standard deviation of the log parameters
    patients : float, how many patients that counts as
    estimated : (n,) bool, whether centre is estimated; if not, it stays
    shared : (n,) bool, whether all patients have one and the same value
    """

    centre: Array
    spread: Array
    patients: float
    estimated: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    @property
    def tied(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the spread is estimated too."""
        return self.estimated & ~self.shared


@dataclass(frozen=True, eq=False)
class Found:
    """The population found.

    Parameters
    ----------
    centre, spread : (n,); the spread of shared parameters is 0
    centre_error, spread_error : (n,) standard errors, of the centre and of ln spread; nan if not
        estimated
    patients : (n_patients, n) each patient's log parameters, drawn to the centre by how little
        their own data say
    errors : (n_patients, n) their standard errors
    """

    centre: Array
    spread: Array
    centre_error: Array
    spread_error: Array
    patients: Array
    errors: Array

    @property
    def shrinkage(self) -> Array:
        """1 - sd(deviations)/spread: 0 if the patients' own data say all, 1 if they say nothing."""
        deviations = self.patients - self.centre
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1.0 - np.sqrt(np.mean(deviations**2, axis=0)) / self.spread)


def two_stage(evidence: Sequence[Evidence], assumed: Assumed) -> Found:
    """The population that makes these patients' data most likely, with what was assumed.

    Parameters
    ----------
    evidence : of one patient each, all over the same n parameters
    assumed : Assumed; with ``patients`` 0 it is maximum likelihood

    Examples
    --------
    >>> at = [Evidence(np.array([z]), np.zeros(1), np.array([[1e6]])) for z in (-1.0, 1.0)]
    >>> yes, no = np.array([True]), np.array([False])
    >>> found = two_stage(at, Assumed(np.zeros(1), np.ones(1), 0.0, yes, no))
    >>> round(float(found.spread[0]), 3)
    1.0
    """
    information = np.stack([e.information for e in evidence])
    pull = np.stack([e.information @ e.x - e.slope for e in evidence])
    variance = np.where(assumed.shared, 0.0, assumed.spread**2)
    tied = assumed.tied
    if tied.any():
        limits = 2.0 * np.log([NARROWEST, WIDEST])
        best = minimize(
            _cost, np.log(variance[tied]), (information, pull, variance, assumed), jac=True,
            method="L-BFGS-B", bounds=[tuple(limits)] * int(tied.sum()),
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
        )  # fmt: skip
        variance[tied] = np.exp(best.x)
    return _found(information, pull, variance, assumed)


def _cost(
    logs: Array, information: Array, pull: Array, fixed: Array, assumed: Assumed
) -> tuple[float, Array]:
    """-2 ln of the marginal likelihood at ln variances of what is tied, and its derivatives.

    The centre is the best for them. What was assumed counts as so many patients: with ``patients``
    n, a variance v and the assumed one a it adds n (ln v + a/v), which is least at v = a.
    """
    variance, tied, before = fixed.copy(), assumed.tied, assumed.patients
    variance[tied] = np.exp(logs)
    centre, _ = _centre(information, pull, variance, assumed)
    means, _ = _patients(information, pull, centre, variance)
    offset = pull - information @ centre
    _, determinants = np.linalg.slogdet(np.eye(variance.size) + information * variance)
    cost = determinants.sum() - np.sum(offset * (means - centre)) - 2.0 * np.sum(pull @ centre)
    cost += centre @ information.sum(axis=0) @ centre
    cost += before * np.sum(((centre - assumed.centre) / assumed.spread) ** 2)
    ratio = assumed.spread[tied] ** 2 / variance[tied]
    cost += before * np.sum(logs + ratio)
    left = np.linalg.solve(np.eye(variance.size) + information * variance, offset[..., None])
    told = np.diagonal(_weights(information, variance), axis1=1, axis2=2) - left[..., 0] ** 2
    slope = variance * told.sum(axis=0)
    return float(cost), np.asarray(slope[tied] + before * (1.0 - ratio))


def _found(information: Array, pull: Array, variance: Array, assumed: Assumed) -> Found:
    centre, precision = _centre(information, pull, variance, assumed)
    means, covariances = _patients(information, pull, centre, variance)
    known = np.ix_(assumed.estimated, assumed.estimated)
    centre_error, spread_error = np.full((2, centre.size), np.nan)
    # where nothing is known the error is huge, not a crash
    precise = precision[known] + NOTHING * np.eye(int(assumed.estimated.sum()))
    centre_error[assumed.estimated] = np.sqrt(np.diag(np.linalg.inv(precise)))
    tied = assumed.tied
    weights = _weights(information, variance)
    fisher = 0.5 * np.sum(weights**2, axis=0)[np.ix_(tied, tied)]
    fisher += np.diag(0.5 * assumed.patients / variance[tied] ** 2)
    fisher += NOTHING * np.eye(len(fisher))
    spread_error[tied] = np.sqrt(np.diag(np.linalg.inv(fisher))) / (2.0 * variance[tied])
    errors = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return Found(centre, np.sqrt(variance), centre_error, spread_error, means, errors)


def _weights(information: Array, variance: Array) -> Array:
    """H (I + V H)^-1 of each patient: how much they tell of the centre, (n_patients, n, n)."""
    eye = np.eye(variance.size)
    return np.asarray(information @ np.linalg.inv(eye + variance[:, None] * information))


def _centre(
    information: Array, pull: Array, variance: Array, assumed: Assumed
) -> tuple[Array, Array]:
    """The best centre (n,) for a variance (n,), and its precision (n, n)."""
    eye = np.eye(variance.size)
    precision = _weights(information, variance).sum(axis=0)
    told = np.linalg.solve(eye + information * variance, pull[..., None])[..., 0].sum(axis=0)
    prior = assumed.patients / assumed.spread**2
    precision = precision + np.diag(prior)
    told = told + prior * assumed.centre
    free, centre = assumed.estimated, assumed.centre.copy()
    if free.any():
        rest = told[free] - precision[np.ix_(free, ~free)] @ centre[~free]
        matrix = precision[np.ix_(free, free)]
        centre[free] = np.linalg.lstsq(matrix, rest, rcond=1e-12)[0]
    return centre, precision


def _patients(
    information: Array, pull: Array, centre: Array, variance: Array
) -> tuple[Array, Array]:
    """Mean (n_patients, n) and covariance of each patient's log parameters, given the population.

    (H + V^-1)^-1 = V (I + H V)^-1, which holds also where V is 0.
    """
    eye = np.eye(variance.size)
    covariances = variance[:, None] * np.linalg.inv(eye + information * variance)
    offset = pull - information @ centre
    return centre + (covariances @ offset[..., None])[..., 0], covariances
