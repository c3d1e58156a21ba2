"""Derivatives of a run by its parameters: differences between runs over the same steps.

An adaptive solver takes other steps for other parameters, and a difference of two such runs is
mostly noise. Over the steps of one run (`crs_sim.kernel.Kernel.replay`) the outcome is a smooth
function of the parameters, so a tiny difference is as good as a derivative; and four parameters
are varied at once, side by side in the vector lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernel import Kernel, Runs
from .timeline import Timeline

Array = NDArray[np.float64]

STEP = 1e-6
"""Relative change of a parameter: rounding (1e-16/STEP) and curvature (STEP) both stay small."""


@dataclass(frozen=True)
class Gradient:
    """A run and its derivatives by the logarithm of some parameters.

    Parameters
    ----------
    run : Runs, of one run
    states : (n_free, n_days, n_states) change per unit of the natural logarithm
    quantities : (n_free, n_days, n_quantities)
    failed : (n_free,) bool, where the varied run failed and the derivative is not a number
    """

    run: Runs
    states: Array
    quantities: Array
    failed: NDArray[np.bool_]


def gradient(
    kernel: Kernel, line: Timeline, values: Array, free: Sequence[int], *, rtol: float = 1e-6
) -> Gradient:
    """Run a timeline once with error control, then once more for each free parameter.

    Parameters
    ----------
    kernel, line : what is run
    values : (n_parameters,), none of the free ones 0
    free : indices of the parameters to vary
    rtol : float, of the run itself; the derivatives are as accurate as it is
    """
    line = line.at(values)
    run = kernel.run(line, values[None], rtol=rtol)
    varied = np.tile(values, (len(free), 1))
    varied[range(len(free)), list(free)] *= 1.0 + STEP
    again = kernel.replay(line, np.vstack([values, varied]), run.steps)
    log_step = np.log1p(STEP)
    return Gradient(
        run,
        (again.states[1:] - again.states[0]) / log_step,
        (again.quantities[1:] - again.quantities[0]) / log_step,
        again.status[1:] != 0,
    )
