"""The two-stage estimate of a population from several patients, and its result.

Near its optimum a patient's -2 log-likelihood is approximated as quadratic in the log parameters:
a `QuadraticLikelihood`. The population maximises the marginal likelihood of several, each patient
weighted by their information: the global two-stage method (Steimer 1984, Drug Metab Rev 15:265).
Repeated at the new estimates until convergence, it is the linearisation of Lindstrom and Bates
(doi:10.2307/2532087).

`crs_sim.population.iterative_two_stage` computes the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..errors import InputError, unknown_name
from ..fitting import Population
from ..model import Array, pretty

NARROWEST, WIDEST = 1e-3, 1e2
"""Bounds of an estimated spread; at the lower one patients are alike to a thousandth."""
RIDGE = 1e-12
"""Added to the information, so that a matrix without any can be inverted."""


@dataclass(frozen=True, eq=False)
class QuadraticLikelihood:
    """Quadratic approximation of one patient's likelihood.

    -2 ln L(z) = const + 2 slope'(z - x) + (z - x)' information (z - x).

    Parameters
    ----------
    x : (n,) log parameters at which it is expanded
    slope : (n,) J'r of the residuals of the observations
    information : (n, n) J'J; zero for parameters the data carry no information on
    """

    x: Array
    slope: Array
    information: Array


@dataclass(frozen=True, eq=False)
class PopulationPrior:
    """The prior of the population, and which parts of the population are estimated.

    Parameters
    ----------
    centre, spread : (n,) mean and standard deviation of the log parameters
    patients : float, the weight of this prior, in patients
    estimated : (n,) bool, whether the centre is estimated; otherwise it is fixed
    shared : (n,) bool, whether all patients have the same value
    """

    centre: Array
    spread: Array
    patients: float
    estimated: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    @property
    def tied(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the spread is estimated as well."""
        return self.estimated & ~self.shared


@dataclass(frozen=True, eq=False)
class PopulationEstimate:
    """The estimated population.

    Parameters
    ----------
    centre, spread : (n,); the spread of shared parameters is 0
    centre_error, spread_error : (n,) standard errors, of the centre and of ln spread; nan if not
        estimated
    patients : (n_patients, n) empirical Bayes estimates of each patient's log parameters, shrunk
        towards the centre
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
        """1 - sd(deviations)/spread: 0 if the patients' own data decide, 1 without information."""
        deviations = self.patients - self.centre
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1.0 - np.sqrt(np.mean(deviations**2, axis=0)) / self.spread)


def two_stage(
    evidence: Sequence[QuadraticLikelihood], assumed: PopulationPrior
) -> PopulationEstimate:
    """Estimate the population by maximum marginal likelihood, penalised by its prior.

    Parameters
    ----------
    evidence : of one patient each, all over the same n parameters
    assumed : Assumed; with ``patients`` 0 the estimate is maximum likelihood

    Examples
    --------
    >>> zero, sure = np.zeros(1), np.array([[1e6]])
    >>> two = [QuadraticLikelihood(np.array([z]), zero, sure) for z in (-1.0, 1.0)]
    >>> yes, no = np.array([True]), np.array([False])
    >>> found = two_stage(two, PopulationPrior(np.zeros(1), np.ones(1), 0.0, yes, no))
    >>> round(float(found.spread[0]), 3)
    1.0
    """
    information = np.stack([e.information for e in evidence])
    # each patient's optimum, weighted by their information
    weighted_x = np.stack([e.information @ e.x - e.slope for e in evidence])
    variance = np.where(assumed.shared, 0.0, assumed.spread**2)
    tied = assumed.tied
    if tied.any():
        limits = 2.0 * np.log([NARROWEST, WIDEST])
        best = minimize(
            _cost, np.log(variance[tied]), (information, weighted_x, variance, assumed), jac=True,
            method="L-BFGS-B", bounds=[tuple(limits)] * int(tied.sum()),
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
        )  # fmt: skip
        variance[tied] = np.exp(best.x)
    return _found(information, weighted_x, variance, assumed)


def _cost(
    logs: Array, information: Array, weighted_x: Array, fixed: Array, assumed: PopulationPrior
) -> tuple[float, Array]:
    """-2 ln marginal likelihood at the ln variances of ``tied`` parameters, and its gradient.

    The centre is profiled out. The prior has the weight of ``patients`` n: for a variance v and the
    prior variance a it adds n (ln v + a/v), which has its minimum at v = a.
    """
    variance, tied, weight = fixed.copy(), assumed.tied, assumed.patients
    variance[tied] = np.exp(logs)
    centre, _ = _centre(information, weighted_x, variance, assumed)
    means, _ = _patients(information, weighted_x, centre, variance)
    offset = weighted_x - information @ centre
    _, determinants = np.linalg.slogdet(np.eye(variance.size) + information * variance)
    cost = determinants.sum() - np.sum(offset * (means - centre))
    cost -= 2.0 * np.sum(weighted_x @ centre)
    cost += centre @ information.sum(axis=0) @ centre
    cost += weight * np.sum(((centre - assumed.centre) / assumed.spread) ** 2)
    ratio = assumed.spread[tied] ** 2 / variance[tied]
    cost += weight * np.sum(logs + ratio)
    solved = np.linalg.solve(np.eye(variance.size) + information * variance, offset[..., None])
    terms = np.diagonal(_weights(information, variance), axis1=1, axis2=2) - solved[..., 0] ** 2
    slope = variance * terms.sum(axis=0)
    return float(cost), np.asarray(slope[tied] + weight * (1.0 - ratio))


def _found(
    information: Array, weighted_x: Array, variance: Array, assumed: PopulationPrior
) -> PopulationEstimate:
    centre, precision = _centre(information, weighted_x, variance, assumed)
    means, covariances = _patients(information, weighted_x, centre, variance)
    estimated = np.ix_(assumed.estimated, assumed.estimated)
    centre_error, spread_error = np.full((2, centre.size), np.nan)
    # without information the standard error is huge, instead of an exception
    regular = precision[estimated] + RIDGE * np.eye(int(assumed.estimated.sum()))
    centre_error[assumed.estimated] = np.sqrt(np.diag(np.linalg.inv(regular)))
    tied = assumed.tied
    weights = _weights(information, variance)
    fisher = 0.5 * np.sum(weights**2, axis=0)[np.ix_(tied, tied)]
    fisher += np.diag(0.5 * assumed.patients / variance[tied] ** 2)
    fisher += RIDGE * np.eye(len(fisher))
    spread_error[tied] = np.sqrt(np.diag(np.linalg.inv(fisher))) / (2.0 * variance[tied])
    errors = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    return PopulationEstimate(centre, np.sqrt(variance), centre_error, spread_error, means, errors)


def _weights(information: Array, variance: Array) -> Array:
    """H (I + V H)^-1 of each patient: their information on the centre, (n_patients, n, n)."""
    eye = np.eye(variance.size)
    return np.asarray(information @ np.linalg.inv(eye + variance[:, None] * information))


def _centre(
    information: Array, weighted_x: Array, variance: Array, assumed: PopulationPrior
) -> tuple[Array, Array]:
    """The optimal centre (n,) for a variance (n,), and its precision (n, n)."""
    eye = np.eye(variance.size)
    precision = _weights(information, variance).sum(axis=0)
    solved = np.linalg.solve(eye + information * variance, weighted_x[..., None])[..., 0]
    prior = assumed.patients / assumed.spread**2
    precision = precision + np.diag(prior)
    total = solved.sum(axis=0) + prior * assumed.centre
    free, centre = assumed.estimated, assumed.centre.copy()
    if free.any():
        right_side = total[free] - precision[np.ix_(free, ~free)] @ centre[~free]
        matrix = precision[np.ix_(free, free)]
        centre[free] = np.linalg.lstsq(matrix, right_side, rcond=1e-12)[0]
    return centre, precision


def _patients(
    information: Array, weighted_x: Array, centre: Array, variance: Array
) -> tuple[Array, Array]:
    """Mean (n_patients, n) and covariance of each patient's log parameters, given the population.

    (H + V^-1)^-1 = V (I + H V)^-1, which holds also where V is 0.
    """
    eye = np.eye(variance.size)
    covariances = variance[:, None] * np.linalg.inv(eye + information * variance)
    offset = weighted_x - information @ centre
    return centre + (covariances @ offset[..., None])[..., 0], covariances


@dataclass(frozen=True)
class PatientFailure:
    """A patient whose fit failed, and the reason."""

    patient: str
    reason: str


@dataclass(frozen=True, eq=False)
class PatientFit:
    """One patient's fit, given the population of an iteration.

    Parameters
    ----------
    patient : str, id
    values : mapping of parameter to its estimate, shared ones included
    evidence : Evidence, over the population's parameters in their order
    cost, deviance : float, -2 ln posterior and -2 ln likelihood, up to a constant
    runs, failed : int, simulations made, and those that failed
    agreeing : int, starts that ended within 0.5 of the best cost
    readings : int, residuals that the deviance is the sum of squares of
    """

    patient: str
    values: Mapping[str, float]
    evidence: QuadraticLikelihood
    cost: float
    deviance: float
    runs: int
    failed: int
    agreeing: int
    readings: int = 0


Outcome = PatientFit | PatientFailure


@dataclass(frozen=True, eq=False)
class PopulationFit:
    """The result of fitting several patients and their population.

    Parameters
    ----------
    population : Population, estimated medians and spreads; the spread of a shared parameter is the
        standard error of its value
    assumed : Population, the prior
    shared, own : names of parameters with one value for all, and of those that were not pooled
    found : Found, over the parameters of ``assumed``, in their order
    fits : tuple of PatientFit, the last of each patient
    failures : tuple of Failed
    rounds : int, iterations
    still : bool, whether the iterations converged
    """

    population: Population
    assumed: Population
    shared: tuple[str, ...]
    own: tuple[str, ...]
    found: PopulationEstimate = field(repr=False)
    fits: tuple[PatientFit, ...] = field(repr=False)
    failures: tuple[PatientFailure, ...] = ()
    rounds: int = 1
    still: bool = True

    def table(self) -> pd.DataFrame:
        """One row per parameter: role, median, spread, standard errors, shrinkage.

        ``median_error`` and ``sd_error`` are standard errors of ln median and ln sd; empty if not
        estimated.
        """
        found, rows = self.found, []
        for k, free in enumerate(self.assumed.free):
            role = "shared" if free.name in self.shared else (
                "own" if free.name in self.own else "tied")  # fmt: skip
            rows.append({
                "parameter": free.name,
                "role": role,
                "unit": pretty(self.assumed.model[free.name].unit),
                "median": float(np.exp(found.centre[k])),
                "median_error": found.centre_error[k],
                "sd": found.spread[k],
                "sd_error": found.spread_error[k],
                "shrinkage": found.shrinkage[k] if role != "shared" else np.nan,
                "assumed_median": free.median,
                "assumed_sd": free.sd,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def estimates(self) -> pd.DataFrame:
        """One row for each patient and parameter: estimate, and standard error on the log scale."""
        rows = [
            {
                "patient": one.patient,
                "parameter": free.name,
                "estimate": float(np.exp(self.found.patients[i, k])),
                "standard_error": self.found.errors[i, k],
            }
            for i, one in enumerate(self.fits)
            for k, free in enumerate(self.assumed.free)
            if free.name not in self.shared
        ]
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Roles:
    """How parameters are pooled; those in neither list are partially pooled (``tied``).

    Parameters
    ----------
    shared : complete pooling: one value for all patients, estimated jointly
    own : no pooling: estimated for each patient on their own, with the assumed prior
    """

    shared: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def check(self, population: Population) -> None:
        """Refuse names the population does not have, or that have two roles."""
        for name in (*self.shared, *self.own):
            if name not in population.medians:
                raise unknown_name("parameter of the population", name, population.medians)
        for name in set(self.shared) & set(self.own):
            raise InputError(f"{name} is listed as both shared and own; choose one")
