"""Draws of the parameters: Laplace approximation, sampler chains on disk, convergence.

Near its mode the posterior of the scaled parameters is close to a normal distribution; further
away it need not be: where a cytokine loop ignites for some values only, most draws of the normal
approximation may contradict the data. So each draw is simulated and weighted by its posterior
density, and the effective sample size is reported. If it is small, sample the posterior itself.

Only this file imports arviz-stats. The walkers of a group depend on each other, so the independent
chains are the groups: R-hat compares groups, and the effective sample size is the smaller of two
estimates.

A folder holds ``chain.json``, which identifies the run, and ``part_00000.npz`` onwards, each
written atomically. The first part has the initial positions of the walkers; every part ends with
all that the next draw depends on, the state of the random number generator included.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from ..errors import InputError, StorageError
from ..fitting import Fit, Objective, from_scale, point_of, prior_vectors, to_scale
from ..model import Array
from ..simulation import thread_map
from ..store import check_resume, check_same_job, json_file, write_atomic

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
    x = to_scale(candidates.to_numpy(), result.problem.scales)
    shifts = x - point_of(result.problem, result.values)
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
    """-2 ln posterior, up to the constant of `Fit.cost`, at scaled parameters (n, n_free): (n,)."""
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
    centre = point_of(result.problem, result.values)
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
    chosen = from_scale(np.vstack(kept)[:count], result.problem.scales)
    return pd.DataFrame(chosen, columns=list(result.problem.names))


def _root(covariance: Array) -> Array:
    """A square root (n, n) of the covariance, also if that is barely positive definite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


RHAT_LIMIT, ESS_NEEDED = 1.01, 400.0
"""Recommended by Vehtari et al. 2021."""
WALKERS_LIMIT = 1.1
"""For single walkers, which are many and short chains: above it some walkers are stuck."""
TAIL = 0.05
FEWEST = 8
"""Draws of each walker below which no diagnostic is computed."""


@dataclass(frozen=True)
class Convergence:
    """Convergence diagnostics of the draws of one parameter.

    Parameters
    ----------
    parameter : str
    rhat : float, rank-normalised split R-hat with each group of walkers as one chain; 1 is best
    walkers_rhat : float, the same with each walker as one chain: detects walkers that are stuck
    ess_bulk, ess_tail : float, effective sample size, of the bulk and of the 5 and 95 % quantiles
    moves_each : float, moves of one walker per independent draw (integrated autocorrelation time)

    Source
    ------
    Vehtari et al. 2021, doi:10.1214/20-BA1221
    """

    parameter: str
    rhat: float
    walkers_rhat: float
    ess_bulk: float
    ess_tail: float
    moves_each: float

    @property
    def ess(self) -> float:
        """Effective sample size, the smaller of bulk and tail."""
        return min(self.ess_bulk, self.ess_tail)

    @property
    def reached(self) -> bool:
        """Whether all diagnostics are within their limits; False if one of them is missing."""
        return (
            self.rhat <= RHAT_LIMIT
            and self.walkers_rhat <= WALKERS_LIMIT
            and self.ess >= ESS_NEEDED
        )


def convergence(chain: Array, names: Sequence[str], thin: int = 1) -> tuple[Convergence, ...]:
    """Compute the convergence diagnostics of each parameter.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_parameters), without the warm-up
    names : of the parameters
    thin : int, thinning interval: moves from one draw to the next

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> (k,) = convergence(rng.standard_normal((500, 4, 10, 1)), ["k"])
    >>> k.reached, round(k.rhat, 2)
    (True, 1.0)
    """
    return tuple(_of_one(chain[..., k], name, thin) for k, name in enumerate(names))


def _of_one(values: Array, name: str, thin: int) -> Convergence:
    n_draws = len(values)
    if n_draws < FEWEST or np.ptp(values) == 0.0:
        return Convergence(name, *[math.nan] * 5)
    by_group = np.swapaxes(values, 0, 1).reshape(values.shape[1], -1)  # early draws first
    bulk = effective(normal_scores(values))
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL])
    tail = min(effective(1.0 * (values <= limit)) for limit in (low, high))
    return Convergence(
        name,
        rhat=float(array_stats.rhat(by_group, method="rank")),
        walkers_rhat=float(array_stats.rhat(as_chains(values), method="rank")),
        ess_bulk=bulk,
        ess_tail=tail,
        moves_each=values.size * thin / bulk,
    )


def as_chains(values: Array) -> Array:
    """Draws (n_draws, n_groups, n_walkers) as chains (n_groups*n_walkers, n_draws)."""
    return values.reshape(len(values), -1).T


def normal_scores(values: Array) -> Array:
    """Rank-normalised values, as R-hat uses them."""
    ranks = rankdata(values, axis=None).reshape(values.shape)
    return np.asarray(ndtri((ranks - 0.375) / (values.size + 0.25)))


def effective(values: Array) -> float:
    """Effective sample size for the mean.

    The smaller of two estimates: from the series of each group's mean, which accounts for the
    dependence of the walkers in a group but not for stuck walkers; and from each walker as a chain,
    which accounts for stuck walkers but takes walkers as independent.

    Parameters
    ----------
    values : (n_draws, n_groups, n_walkers)
    """
    means = values.mean(axis=2)
    of_means = float(array_stats.ess(means.T, method="mean"))
    from_groups = of_means * values.var() / means.var() if means.var() > 0 else math.nan
    from_walkers = float(array_stats.ess(as_chains(values), method="mean"))
    return float(min(from_groups, from_walkers, values.size))


HEADER = "chain.json"
REFUSED = {
    "problem": "the problem {0!r}, not {1!r}",
    "model_hash": "the model's equations {0}, not {1}",
    "problem_hash": "other data, priors, noise or fixed values (hash {0}, not {1})",
    "seed": "seed {0}, not {1}",
    "groups": "{0} groups of walkers, not {1}",
    "walkers": "{0} walkers in a group, not {1}",
    "thin": "a thinning interval of {0} moves, not {1}",
    "sampler": "the sampler {0}, not {1}",
}
"""Header keys that must match to resume a run, and the text of the error if they differ."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some draws, and the state of the sampler after the last one.

    Parameters
    ----------
    chain : (n_draws, n_groups, n_walkers, n_free) scaled parameters
    log_posterior : (n_draws, n_groups, n_walkers)
    words : (n_groups, 624) uint32, MT19937 state of the random numbers after the last draw
    places : (n_groups, 3) position in that state, whether a normal number is cached, that number
    counts : (n_groups, 3) moves accepted, runs made and runs failed, since the start
    """

    chain: Array = field(repr=False)
    log_posterior: Array = field(repr=False)
    words: NDArray[np.uint32] = field(repr=False)
    places: Array = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)


def join(parts: Sequence[Part]) -> Part:
    """Concatenate several parts."""
    return Part(
        np.concatenate([part.chain for part in parts]),
        np.concatenate([part.log_posterior for part in parts]),
        parts[-1].words,
        parts[-1].places,
        parts[-1].counts,
    )


def begin(folder: Path, header: Mapping[str, Any], first: Part) -> None:
    """Write the header of a run and the initial positions of its walkers.

    Raises
    ------
    StorageError
        If the folder already holds a run, or cannot be written.
    """
    there = (folder / HEADER).exists()
    check_resume(folder, "a run of the sampler", there=there, resume=False)
    write_atomic({_path(folder, 0): _bytes(first), folder / HEADER: json_file(header)})


def append(folder: Path, number: int, part: Part) -> None:
    """Write one more part, atomically."""
    write_atomic({_path(folder, number): _bytes(part)})


def read(folder: Path) -> tuple[dict[str, Any], list[Part]]:
    """Read the header and parts of a run; the first part has the initial positions.

    Raises
    ------
    StorageError
        If there is no run, or one of its files is damaged.
    """
    path = folder / HEADER
    if not path.is_file():
        raise StorageError(f"{folder}  holds no run of the sampler ({HEADER} is not there)")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        parts = list[Part]()
        while (path := _path(folder, len(parts))).is_file():
            with path.open("rb") as file, np.load(file) as stored:
                parts.append(Part(**{name: stored[name] for name in Part.__dataclass_fields__}))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise StorageError(
            f"{path}  is damaged ({type(error).__name__}: {error}); delete it and every later "
            "part, then resume with --resume"
        ) from None
    if not parts:
        raise StorageError(f"{_path(folder, 0)}  is missing: sample into another folder")
    return header, parts


def check_same_run(folder: Path, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Raise a StorageError that names the differences of a stored run from the requested one."""
    differences = [
        text.format(stored.get(name), requested[name])
        for name, text in REFUSED.items()
        if stored.get(name) != requested[name]
    ]
    check_same_job(folder, differences)


def _path(folder: Path, number: int) -> Path:
    return folder / f"part_{number:05d}.npz"


def _bytes(part: Part) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name: getattr(part, name) for name in Part.__dataclass_fields__})
    return stream.getvalue()
