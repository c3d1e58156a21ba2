"""Parameter values drawn around an estimate: the Laplace approximation, and what it is worth.

Near its peak a posterior of log parameters is close to a normal one. Further off it need not be:
where a loop ignites for some values and not for others, most draws of the normal one may
contradict the data they stand for. So each is run, and weighted by how likely it really is; how
many independent draws that leaves is said. Where few are left, sample the posterior itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .errors import InputError
from .fitting import Fit
from .objective import Array, Objective, logs, prior_vectors
from .workers import in_order

TRIES = 1000
"""Draws made at most for each that is kept inside the bounds."""
CANDIDATES = 5
"""Draws of the normal approximation that are run for each that is kept."""
FEW = 100.0
"""Fewer independent draws than this leave the ends of a 95 % band to chance."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Draws:
    """Parameter values drawn from an approximation of a posterior.

    Parameters
    ----------
    values : DataFrame, (n_draws, n_free), a column a free parameter, in its unit
    source : str, in words; every table and figure made of them says it
    effective : float, as how many independent draws of the posterior they count
    """

    values: pd.DataFrame = field(repr=False)
    source: str
    effective: float


def weighted_draws(
    result: Fit, count: int = 400, *, seed: int | None = None, workers: int | None = None
) -> Draws:
    """Draws of the normal approximation around a fit, chosen by how likely each really is.

    `CANDIDATES` times as many are run under the observations, and drawn from again with weights
    posterior/normal (with replacement): sampling importance resampling.

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
    off = x - logs(result.problem, result.values)
    normal = np.sum(off * np.linalg.solve(result.covariance, off.T).T, axis=1)
    ratio = -0.5 * (costs(result, x, workers=workers) - result.cost - normal)
    weights = np.exp(ratio - ratio.max())
    weights /= weights.sum()
    effective = float(1.0 / np.sum(weights**2))
    rows = np.random.default_rng([chosen, 1]).choice(len(x), size=count, p=weights)
    values = candidates.iloc[rows].reset_index(drop=True)
    said = (
        f"{count} draws of the Laplace approximation, weighted; the {len(x)} they are of are worth "
        f"{effective:.0f}"
    )
    if effective < FEW:
        said += ", too few to trust the ends; sample the posterior"
    return Draws(values, said, effective)


def costs(result: Fit, points: Array, *, workers: int | None = None) -> Array:
    """-2 ln posterior, up to the constant of `Fit.cost`, at log parameters (n, n_free): (n,)."""
    objective = Objective(result.problem)

    def batches() -> Iterator[Array]:
        yield from (points[k : k + BATCH] for k in range(0, len(points), BATCH))

    parts = list(in_order(objective.observed, batches(), workers=workers))
    shifts = (points - objective.centre) / objective.sds
    return np.asarray(np.sum(np.vstack(parts) ** 2, axis=1) + np.sum(shifts**2, axis=1))


def laplace_draws(result: Fit, count: int = 400, *, seed: int | None = None) -> pd.DataFrame:
    """Parameter values from the normal approximation around a fit, cut at the bounds.

    Parameters
    ----------
    result : Fit
    count : int, rows
    seed : int (default: the fit's)

    Returns
    -------
    DataFrame, (count, n_free), a column a free parameter, in its unit

    Raises
    ------
    InputError
        If the count is below 1, the covariance is singular, or nearly all draws leave the bounds.
    """
    if count < 1:
        raise InputError(f"{count} draws were asked; give 1 or more")
    if result.singular:
        raise InputError(
            f"{result.problem.name}: the covariance is singular, so nothing can be drawn from it; "
            "give the parameters that are told by nothing a narrower prior, or fix them"
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
    """A matrix (n, n) whose square is the covariance, also if that is barely positive."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
