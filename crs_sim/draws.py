"""Parameter draws around an estimate: the Laplace approximation with importance weights.

Near its mode the posterior of the log parameters is close to a normal distribution; further away it
need not be: where a cytokine loop ignites for some values only, most draws of the normal
approximation may contradict the data. So each draw is simulated and weighted by its posterior
density, and the effective sample size is reported. If it is small, sample the posterior itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .errors import InputError
from .fitting import Fit
from .objective import Array, Objective, logs, prior_vectors
from .workers import thread_map

TRIES = 1000
"""Limit of the draws attempted for each one inside the bounds."""
CANDIDATES = 5
"""Draws of the normal approximation that are simulated for each one returned."""
FEW = 100.0
"""An effective sample size below this leaves the ends of a 95 % band unreliable."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Draws:
    """Parameter values drawn from an approximation of a posterior.

    Parameters
    ----------
    values : DataFrame, (n_draws, n_free), one column per free parameter, in its unit
    source : str, description shown with every table and figure made from the draws
    effective : float, effective sample size
    """

    values: pd.DataFrame = field(repr=False)
    source: str
    effective: float


def weighted_draws(
    result: Fit, count: int = 400, *, seed: int | None = None, workers: int | None = None
) -> Draws:
    """Draw from the normal approximation around a fit, with sampling importance resampling.

    `CANDIDATES` times as many draws are simulated, and resampled with replacement with weights
    posterior/normal.

    Parameters
    ----------
    result : Fit
    count : int, rows
    seed : int (default: the fit's)
    workers : int, threads; the numbers do not depend on it

    Raises
    ------
    InputError
        As `laplace_draws`.

    Source
    ------
    Rubin 1988; effective number: Kong, Liu and Wong 1994, https://doi.org/10.2307/2291224
    """
    chosen = result.seed if seed is None else seed
    candidates = laplace_draws(result, CANDIDATES * count, seed=chosen)
    x = np.log(candidates.to_numpy())
    shifts = x - logs(result.problem, result.values)
    normal = np.sum(shifts * np.linalg.solve(result.covariance, shifts.T).T, axis=1)
    ratio = -0.5 * (costs(result, x, workers=workers) - result.cost - normal)
    weights = np.exp(ratio - ratio.max())
    weights /= weights.sum()
    effective = float(1.0 / np.sum(weights**2))
    rows = np.random.default_rng([chosen, 1]).choice(len(x), size=count, p=weights)
    values = candidates.iloc[rows].reset_index(drop=True)
    source = (
        f"{count} weighted draws of the Laplace approximation; effective sample size "
        f"{effective:.0f} of {len(x)}"
    )
    if effective < FEW:
        source += ", too few for reliable 95 % limits; sample the posterior"
    return Draws(values, source, effective)


def costs(result: Fit, points: Array, *, workers: int | None = None) -> Array:
    """-2 ln posterior, up to the constant of `Fit.cost`, at log parameters (n, n_free): (n,)."""
    objective = Objective(result.problem)

    def batches() -> Iterator[Array]:
        yield from (points[k : k + BATCH] for k in range(0, len(points), BATCH))

    parts = list(thread_map(objective.observed, batches(), workers=workers))
    shifts = (points - objective.centre) / objective.sds
    return np.asarray(np.sum(np.vstack(parts) ** 2, axis=1) + np.sum(shifts**2, axis=1))


def laplace_draws(result: Fit, count: int = 400, *, seed: int | None = None) -> pd.DataFrame:
    """Draw from the normal approximation around a fit, truncated at the bounds.

    Parameters
    ----------
    result : Fit
    count : int, rows
    seed : int (default: the fit's)

    Returns
    -------
    DataFrame, (count, n_free), one column per free parameter, in its unit

    Raises
    ------
    InputError
        If count is below 1, the covariance is singular, or nearly all draws are out of bounds.
    """
    if count < 1:
        raise InputError(f"{count} draws were requested; give 1 or more")
    if result.singular:
        raise InputError(
            f"{result.problem.name}: the covariance is singular, so nothing can be drawn from it; "
            "give the parameters that are not identifiable a narrower prior, or fix them"
        )
    _, _, lower, upper = prior_vectors(result.problem)
    rng = np.random.default_rng(result.seed if seed is None else seed)
    root = _root(result.covariance)
    centre = logs(result.problem, result.values)
    kept, tried = list[Array](), 0
    while sum(map(len, kept)) < count:
        if tried >= TRIES * count:
            raise InputError(
                f"{result.problem.name}: of {tried} draws only {sum(map(len, kept))} lie inside "
                "the bounds; estimates at their bounds have no normal approximation: widen the "
                "bounds, or draw from the posterior itself"
            )
        x = centre + rng.standard_normal((4 * count, len(centre))) @ root.T
        kept.append(x[((x >= lower) & (x <= upper)).all(axis=1)])
        tried += len(x)
    chosen = np.exp(np.vstack(kept)[:count])
    return pd.DataFrame(chosen, columns=list(result.problem.names))


def _root(covariance: Array) -> Array:
    """A square root (n, n) of the covariance, also if that is barely positive definite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
