"""How much each observation pulls on a fit, from the slopes alone: nothing is fitted again.

To first order, leaving an observation out moves the estimates by one Gauss-Newton step. For what
really happens, fit again without it (`crs_sim.leaveout`).

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
    """The pull of one observation.

    Parameters
    ----------
    id, observable, kind : str, of the observation
    residual : float, its signed length, in sd
    leverage : float, how much of its own fitted value it decides, 0 to 1 (of a reading on an
        unknown day, which has two residuals, 0 to 2)
    residual_without : float, what the residual would be without it (one step)
    distance : float, Cook's: how far all estimates would move, as a share of their joint spread
    parameter : str, the one that would move most
    shift : float, by how many of its standard errors
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
    """The pull of every observation, in their order.

    Examples
    --------
    ``max(influences(best), key=lambda i: i.distance).id`` is the most influential observation.
    """
    problem, covariance = result.problem, result.covariance
    slopes = Objective(problem).jacobian(logs(problem, result.values))
    errors = np.sqrt(np.diag(covariance))
    found = []
    for observation, rows in zip(problem.patient.observations, blocks(result), strict=True):
        slope, residual = slopes[rows], result.residuals[rows]
        hat = slope @ covariance @ slope.T
        without: Array = np.asarray(np.linalg.solve(np.eye(len(hat)) - hat, residual))
        moved = covariance @ slope.T @ without
        pull = float(without @ hat @ without)
        worst = int(np.argmax(np.abs(moved) / errors))
        found.append(
            Influence(
                observation.id, observation.observable, observation.kind, signed(residual),
                float(np.trace(hat)), signed(without), pull / len(errors),
                problem.names[worst], float(moved[worst] / errors[worst]),
            )
        )  # fmt: skip
    return tuple(found)


def influence_table(result: Fit) -> pd.DataFrame:
    """`influences` as a table, one row an observation."""
    return pd.DataFrame([vars(i) for i in influences(result)])


def blocks(result: Fit) -> list[slice]:
    """Where the residuals of each observation stand in the residual vector."""
    sizes = [1 + (o.kind == "sometime") for o in result.problem.patient.observations]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def signed(residuals: Array) -> float:
    """The length of an observation's residuals with the sign of the first."""
    return float(np.copysign(np.linalg.norm(residuals), residuals[0]))
