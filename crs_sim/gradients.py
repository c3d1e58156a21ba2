"""Derivatives of a run by its parameters: differences between runs over the same steps.

An adaptive solver takes other steps for other parameters, and a difference of two such runs is
mostly noise. Over the steps of one run (`crs_sim.kernel.Kernel.replay`) the result is a smooth
function of the parameters, so a small difference quotient is as good as a derivative; four
parameters are varied at a time, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .kernel import Kernel, Runs
from .timeline import Timeline

LOG_STEP = 1e-7
"""Change of a parameter's logarithm: rounding (1e-16/1e-6) and curvature (1e-6) stay small."""


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
    varied = side_by_side(kernel, line, values, free, run.steps)
    return Gradient(
        run,
        (varied.states - run.states) / LOG_STEP,
        (varied.quantities - run.quantities) / LOG_STEP,
        varied.status != 0,
    )


def side_by_side(
    kernel: Kernel, line: Timeline, values: Array, free: Sequence[int], steps: Array,
    log_step: float = LOG_STEP,
) -> Runs:  # fmt: skip
    """A run over its own steps again, once for each free parameter, slightly changed.

    With unchanged parameters it would be the same to the last bit: the run itself is the reference.

    Parameters
    ----------
    kernel, line : what is run
    values : (n_parameters,), none of the free ones 0
    free : indices of the parameters to vary
    steps : `Runs.steps` of the run
    log_step : change of each free parameter's logarithm
    """
    table = np.tile(values, (len(free), 1))
    table[range(len(free)), list(free)] *= np.exp(log_step)
    return kernel.replay(line, table, steps)
