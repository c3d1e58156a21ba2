"""The compiled step loop under SciPy's front door: a method for ``solve_ivp``.

The only door to scipy.integrate. One step of this solver goes to the next edge of a timeline; the
steps inside are the kernel's. States on days asked for beforehand are taken on the way, all
others by replaying the same steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import DenseOutput, OdeSolver, solve_ivp

from .kernel import Kernel, Runs
from .rosenbrock import DONE, STAGES, WORDS
from .timeline import Timeline, stretch

__all__ = ["Rosenbrock", "solve_ivp"]

Array = NDArray[np.float64]


class Rosenbrock(OdeSolver):  # type: ignore[misc]
    """Rodas5P with the model's own compiled Jacobian and LU (see `crs_sim.rosenbrock`).

    Parameters
    ----------
    fun, t0, y0, t_bound, vectorized : as for every SciPy solver; ``fun`` is not called, the
        kernel has the rates. ``y0`` are the states before anything given at ``t0``.
    kernel : Kernel, from `crs_sim.kernel.compile_kernel`
    values : (n_parameters,)
    line : Timeline from t0 to t_bound; without one nothing happens on the way
    seen : list, receives the kernel's `Runs`, for what ``solve_ivp`` does not give back
    whole : bool, go to t_bound in one step (no events in between)
    rtol : float
    max_step : float, days; without a timeline no step is longer (for events in between)

    Examples
    --------
    >>> from scipy.integrate import solve_ivp
    >>> from crs_sim.kernel import compile_kernel
    >>> from crs_sim.model import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> kernel = compile_kernel(decay)
    >>> run = solve_ivp(None, (0, 3), [8.0], method=Rosenbrock, kernel=kernel, values=[0.693147])
    >>> run.y[:, -1].round(3).tolist()
    [1.0]
    """

    def __init__(
        self,
        fun: Any,
        t0: float,
        y0: Array,
        t_bound: float,
        vectorized: bool = False,
        *,
        kernel: Kernel,
        values: Array,
        line: Timeline | None = None,
        seen: list[Runs] | None = None,
        whole: bool = False,
        rtol: float = 1e-6,
        max_step: float = np.inf,
    ) -> None:
        """See the class."""
        super().__init__(fun, t0, y0, t_bound, vectorized)
        self.kernel = kernel
        self.values = np.asarray(values, dtype=float)[None]
        self.asked = stretch(t0, t_bound, max_step) if line is None else line
        self.line = self.asked.sampled(np.union1d(self.asked.days, self.asked.edges))
        self.rtol, self.start = rtol, np.asarray(y0, dtype=float)[None]
        self.edge, self.whole, self.seen = 0, whole, [] if seen is None else seen
        self.runs: Runs | None = None

    def _step_impl(self) -> tuple[bool, str | None]:
        if self.runs is None:
            self.runs = self.kernel.run(self.line, self.values, rtol=self.rtol, start=self.start)
            self.seen.append(self.runs)
            self._count(self.runs)
        self.edge = len(self.line.edges) - 1 if self.whole else self.edge + 1
        end = self.line.edges[self.edge]
        if self.runs.status[0] != DONE and self.edge > self.runs.segment[0]:
            self.t, self.y = self.runs.reached[0], self.runs.final[0]
            return False, WORDS[self.runs.status[0]]
        self.t, self.y = end, self.runs.states[0, np.searchsorted(self.line.days, end)]
        return True, None

    def _count(self, runs: Runs) -> None:
        tried = int(runs.accepted[0] + runs.rejected[0])
        self.nfev, self.nlu, self.njev = STAGES * tried, tried, int(runs.accepted[0])

    def _dense_output_impl(self) -> DenseOutput:
        return Between(self, self.t_old, self.t)


class Between(DenseOutput):  # type: ignore[misc]
    """The states between two edges, the first left out: there the states before a dose stand."""

    def __init__(self, solver: Rosenbrock, first: float, last: float) -> None:
        """Between the last edges the solver passed."""
        super().__init__(first, last)
        self.solver = solver

    def _call_impl(self, t: Array) -> Array:
        solver, days = self.solver, np.atleast_1d(t)
        assert solver.runs is not None
        rows = np.searchsorted(solver.line.days, days).clip(max=len(solver.line.days) - 1)
        if np.array_equal(solver.line.days[rows], days):
            states = solver.runs.states[0, rows]
        else:
            distinct, rows = np.unique(days, return_inverse=True)
            line = solver.line.sampled(distinct)
            again = solver.kernel.replay(line, solver.values, solver.runs.steps, start=solver.start)
            states = again.states[0, rows]
        return np.asarray(states[0] if np.ndim(t) == 0 else states.T)
