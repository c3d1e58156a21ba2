"""Indices of global sensitivity: the design of the runs, and what is made of them. Only door to
SALib.

Sobol's indices share the variance of a number between the parameters: S1 is what a parameter does
alone, ST what it does alone and together with others (Saltelli 2010,
https://doi.org/10.1016/j.cpc.2009.09.018). Morris's are cheaper and rank only: mu* is how much the
number moves as one parameter crosses its range, sigma how much that depends on where the others
stand (Campolongo 2007, https://doi.org/10.1016/j.envsoft.2006.10.004).

SALib 1.6.0 (2026) is the library of this field in Python, with both methods, intervals from a
bootstrap and seeds; scipy has Sobol's indices alone, and no Morris.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, unknown_name

Array = NDArray[np.float64]

LEADING = {"sobol": "ST", "morris": "mu_star"}
"""The index by which each method ranks."""
EXTRA = {"sobol": 2, "morris": 1}
"""Runs in a block, beyond one for each parameter."""
LEVELS = 4
"""Values that a parameter takes in a Morris design."""
RESAMPLES = 200
LEAST = 8
"""Blocks, so that a quarter of them still say something."""


def design(method: str, parameters: int, *, samples: int, seed: int) -> Array:
    """The points to run, in blocks, between 0 and 1.

    Parameters
    ----------
    method : "sobol" or "morris"
    parameters : int
    samples : int, blocks: base points of a Sobol design (a power of two), trajectories of Morris's
    seed : int

    Returns
    -------
    (n_samples * (n_parameters + 2 or 1), n_parameters)

    Raises
    ------
    UnknownNameError, InputError
        For another method, too few samples, or no power of two.

    Examples
    --------
    >>> design("sobol", 3, samples=16, seed=1).shape
    (80, 3)
    """
    _check(method, samples)
    asked = _asked(parameters)
    if method == "sobol":
        from SALib.sample import sobol

        points = sobol.sample(asked, samples, calc_second_order=False, seed=seed + 1)
    else:
        from SALib.sample import morris

        points = morris.sample(asked, samples, num_levels=LEVELS, seed=seed + 1)
    return np.asarray(points, dtype=np.float64)


def block(method: str, parameters: int) -> int:
    """Rows that belong together: without one of them the others say nothing."""
    return parameters + EXTRA[method]


def indices(
    method: str, points: Array, values: Array, *, seed: int, level: float = 0.95
) -> dict[str, Array]:
    """The indices of each parameter, with the ends of their bootstrap intervals.

    Parameters
    ----------
    method : "sobol" or "morris"
    points : (n_rows, n_parameters), of `design`, or whole blocks of it
    values : (n_rows,), what the runs came to; finite
    seed : int, of the bootstrap
    level : float, that the intervals hold

    Returns
    -------
    mapping of column to (n_parameters,): ``S1, S1_low, S1_high, ST, ST_low, ST_high``; or
    ``mu, mu_star, mu_star_low, mu_star_high, sigma``. All are 0 where the values never change.
    """
    n = points.shape[1]
    if np.ptp(values) <= 1e-12 * np.abs(values).max(initial=0.0):
        names = ("S1", "S1_low", "S1_high", "ST", "ST_low", "ST_high") if method == "sobol" else (
            "mu", "mu_star", "mu_star_low", "mu_star_high", "sigma")  # fmt: skip
        return {name: np.zeros(n) for name in names}
    asked = {"num_resamples": RESAMPLES, "conf_level": level, "seed": seed + 1}
    if method == "sobol":
        from SALib.analyze import sobol

        found = sobol.analyze(_asked(n), values, calc_second_order=False, **asked)
        return {**_ends(found, "S1"), **_ends(found, "ST")}
    from SALib.analyze import morris

    found = morris.analyze(_asked(n), points, values, num_levels=LEVELS, **asked)
    return {"mu": _plain(found["mu"]), **_ends(found, "mu_star"), "sigma": _plain(found["sigma"])}


def _check(method: str, samples: int) -> None:
    if method not in LEADING:
        raise unknown_name("method", method, LEADING)
    if samples < LEAST:
        raise InputError(f"samples is {samples}; give {LEAST} or more")
    if method == "sobol" and samples & (samples - 1):
        below = 1 << (samples.bit_length() - 1)
        raise InputError(
            f"samples is {samples}; a Sobol design needs a power of two: {below} or {2 * below}"
        )


def _asked(parameters: int) -> dict[str, Any]:
    names = [f"x{k}" for k in range(parameters)]
    return {"num_vars": parameters, "names": names, "bounds": [[0.0, 1.0]] * parameters}


def _ends(found: Any, name: str) -> dict[str, Array]:
    middle, half = _plain(found[name]), _plain(found[f"{name}_conf"])
    return {name: middle, f"{name}_low": middle - half, f"{name}_high": middle + half}


def _plain(values: Any) -> Array:
    return np.asarray(np.ma.getdata(values), dtype=np.float64)
