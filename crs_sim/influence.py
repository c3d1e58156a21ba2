"""Leverage and influence (Cook's distance) of each observation, without refitting.

To first order, leaving an observation out moves the estimates by one Gauss-Newton step. For the
exact change, refit without it (`crs_sim.leaveout`).

Source: Cook 1977, https://doi.org/10.1080/00401706.1977.10489493
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .fitting import Fit
from .objective import Array, Objective, logs


@dataclass(frozen=True)
class Influence:
    """The influence of one observation on a fit.

    Parameters
    ----------
    id, observable, kind : str, of the observation
    residual : float, signed norm of its residuals, in sd
    leverage : float, trace of its block of the hat matrix, 0 to 1 (0 to 2 for a reading on an
        unknown day, which has two residuals)
    residual_without : float, the deleted residual (one step)
    distance : float, Cook's distance: joint shift of all estimates relative to their covariance
    parameter : str, the one whose estimate would move most
    shift : float, of that estimate, in its standard errors
    """

    id: str
    observable: str
    kind: str
    residual: float
    leverage: float
    residual_without: float
    distance: float
    parameter: str
    shift: float


def influences(result: Fit) -> tuple[Influence, ...]:
    """The influence of every observation, in their order.

    Examples
    --------
    ``max(influences(best), key=lambda i: i.distance).id`` is the most influential observation.
    """
    problem, covariance = result.problem, result.covariance
    jacobian = Objective(problem).jacobian(logs(problem, result.values))
    errors = np.sqrt(np.diag(covariance))
    found = []
    for observation, rows in zip(
        problem.patient.observations, residual_slices(result), strict=True
    ):
        block, residual = jacobian[rows], result.residuals[rows]
        hat = block @ covariance @ block.T
        without: Array = np.asarray(np.linalg.solve(np.eye(len(hat)) - hat, residual))
        shifts = covariance @ block.T @ without
        distance = float(without @ hat @ without)
        worst = int(np.argmax(np.abs(shifts) / errors))
        found.append(
            Influence(
                observation.id, observation.observable, observation.kind, signed_norm(residual),
                float(np.trace(hat)), signed_norm(without), distance / len(errors),
                problem.names[worst], float(shifts[worst] / errors[worst]),
            )
        )  # fmt: skip
    return tuple(found)


def influence_table(result: Fit) -> pd.DataFrame:
    """`influences` as a table, one row per observation."""
    return pd.DataFrame([vars(i) for i in influences(result)])


def residual_slices(result: Fit) -> list[slice]:
    """Slices of the residual vector, one per observation."""
    sizes = [1 + (o.kind == "sometime") for o in result.problem.patient.observations]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def signed_norm(residuals: Array) -> float:
    """The norm of an observation's residuals with the sign of the first."""
    return float(np.copysign(np.linalg.norm(residuals), residuals[0]))
