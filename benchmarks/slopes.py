"""One gradient by `crs_sim.gradients`, compared with extrapolated central differences.

The 25 parameters are those of the case's fit and the next ones of the model. The reference uses
Richardson extrapolation: central differences with steps h and h/2 of the logarithm at rtol 1e-10,
combined so that the error of order h^2 cancels.
"""

from __future__ import annotations

import numpy as np

from crs_sim import load_problem
from crs_sim.solver.kernel import Gradient, Kernel, gradient

from .case import GOOD, HOURS, LADDER, REFERENCE_RTOL, Array, Case

COUNT = 25
WIDTH = 1e-3
"""Step of the log parameter; references with 4e-4 and 4e-3 agree with it to 5e-6."""
TIGHTEST = 0.99e-7
"""Tightest tolerance tried, that of a final fit; below it rounding of the differences dominates
(1.2e-4 at 1e-8, in a curve that hardly changes)."""
FLOOR = 1e-3
"""Below this fraction of a curve's maximum the reference itself is noise."""


def free_columns(case: Case, count: int = COUNT) -> list[int]:
    """Indices of free parameters: the fit's own, then others that are not zero."""
    ids = case.model.parameter_ids
    free = [ids.index(f.name) for f in load_problem("ruemmele2025").free]
    others = [k for k in range(len(ids)) if k not in free and case.values[k] != 0]
    return (free + others)[:count]


def slopes_of(result: Gradient) -> Array:
    """All derivatives of a gradient, (n_free, n_days, n_names)."""
    return np.concatenate([result.states, result.quantities], axis=2)


def run(kernel: Kernel, case: Case, free: list[int], rtol: float) -> Array:
    """Compute one gradient, (n_free, n_days, n_names)."""
    return slopes_of(gradient(kernel, case.line, case.values, free, rtol=rtol))


def extrapolated(kernel: Kernel, case: Case, free: list[int], width: float = WIDTH) -> Array:
    """The reference, hourly: (n_free, n_hours, n_names)."""

    line = case.hourly.line

    def central(h: float) -> Array:
        up, down = (np.tile(case.values, (len(free), 1)) for _ in range(2))
        rows = range(len(free))
        up[rows, free] *= np.exp(h)
        down[rows, free] *= np.exp(-h)
        both = kernel.run(line, np.vstack([up, down]), rtol=REFERENCE_RTOL)
        curves = np.concatenate([both.states, both.quantities], axis=2)
        return np.asarray((curves[: len(free)] - curves[len(free) :]) / (2 * h))

    return np.asarray((4 * central(width / 2) - central(width)) / 3)


def errors(slopes: Array, reference: Array, case: Case, largest: Array) -> Array:
    """Largest error over the sampled days, by parameter and smooth curve: (n_free, n_curves).

    Relative to the largest derivative of that curve by that parameter at any hour; where the
    parameter hardly affects it, to 1/1000 of the largest by any parameter, or of the curve's
    maximum. Grades are step functions without a derivative and are left out.

    Parameters
    ----------
    slopes : (n_free, n_days, n_names)
    reference : (n_free, n_hours, n_names)
    largest : (n_names,) maximum of each curve
    """
    own = np.abs(reference).max(axis=1)
    scale = np.maximum(own, FLOOR * np.maximum(own.max(axis=0), largest))
    scale[scale == 0] = 1.0
    worst = np.abs(slopes - reference[:, ::HOURS]).max(axis=1) / scale
    return np.asarray(worst[:, smooth(case)])


def loosest(
    kernel: Kernel, case: Case, free: list[int], exact: Array, largest: Array
) -> tuple[float, float]:
    """The loosest rtol, with its error, at which and at all tighter ones all errors are good."""
    best = (REFERENCE_RTOL, float("inf"))
    for rtol in sorted(r for r in LADDER if r >= TIGHTEST):
        error = float(errors(run(kernel, case, free, rtol), exact, case, largest).max())
        if error > GOOD:
            break
        best = (rtol, error)
    return best


def smooth(case: Case) -> list[int]:
    """Indices of the curves without steps."""
    stepped = {q.id for q in case.model.quantities if "reached(" in q.formula}
    return [k for k, name in enumerate(case.names) if name not in stepped]
