"""Results and settings of a population fit: several patients fitted together.

`crs_sim.rounds` computes the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .errors import InputError, unknown_name
from .population import Population
from .twostage import PopulationEstimate, QuadraticLikelihood


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
    """

    patient: str
    values: Mapping[str, float]
    evidence: QuadraticLikelihood
    cost: float
    deviance: float
    runs: int
    failed: int
    agreeing: int


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
                "unit": self.assumed.model[free.name].unit,
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
