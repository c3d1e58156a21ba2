"""The compiled step loop as a method of SciPy's ``solve_ivp``.

The only door to scipy.integrate. One step of this solver goes to the next edge of a timeline; the
steps in between are the kernel's. States on days given beforehand are computed on the way, all
others by replaying the same steps.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from scipy.integrate import DenseOutput, OdeSolver, solve_ivp

from ..dosing import Timeline, empty_timeline
from ..model import Array
from .kernel import Kernel, Runs
from .rosenbrock import DONE, STAGES, WORDS

__all__ = ["Rosenbrock", "Setup", "solve_ivp"]


@dataclass(frozen=True, eq=False)
class Setup:
    """What a kernel is to run under ``solve_ivp``.

    Parameters
    ----------
    kernel : Kernel, from `crs_sim.solver.compile_kernel`
    values : (n_parameters,)
    line : Timeline over the days of ``solve_ivp``; without one no dose is given
    rtol : float
    max_step : float, days; without a timeline no step is longer (for events in between)
    whole : bool, go to the last day in one step (no events in between)
    runs : list, receives the kernel's `Runs`, which ``solve_ivp`` does not give back
    """

    kernel: Kernel
    values: Array
    _: KW_ONLY
    line: Timeline | None = None
    rtol: float = 1e-6
    max_step: float = np.inf
    whole: bool = False
    runs: list[Runs] = field(default_factory=list)


class Rosenbrock(OdeSolver):  # type: ignore[misc]
    """Rodas5P with the model's own compiled Jacobian and LU (see `crs_sim.solver.rosenbrock`).

    Parameters
    ----------
    fun, t0, y0, t_bound, vectorized : as for every SciPy solver; ``fun`` is not called, the
        kernel has the rates. ``y0`` are the states before any dose at ``t0``.
    setup : Setup, used for one ``solve_ivp``; the options of SciPy's own methods are fields of it

    Examples
    --------
    >>> from scipy.integrate import solve_ivp
    >>> from crs_sim.solver import compile_kernel
    >>> from crs_sim import Model, Parameter, State
    >>> decay = Model("decay", (State("A", "8", "-k*A", "mg", "", ""),),
    ...               (Parameter("k", 0.693147, "1/day", "", ""),))
    >>> setup = Setup(compile_kernel(decay), [0.693147])
    >>> run = solve_ivp(None, (0, 3), [8.0], method=Rosenbrock, setup=setup)
    >>> run.y[:, -1].round(3).tolist()
    [1.0]
    """

    def __init__(
        self, fun: Any, t0: float, y0: Array, t_bound: float, vectorized: bool = False, *,
        setup: Setup,
    ) -> None:  # fmt: skip
        """See the class."""
        super().__init__(fun, t0, y0, t_bound, vectorized)
        line = empty_timeline(t0, t_bound, setup.max_step) if setup.line is None else setup.line
        self.setup, self.line = setup, line.sampled(np.union1d(line.days, line.edges))
        self.values = np.asarray(setup.values, dtype=float)[None]
        self.start = np.asarray(y0, dtype=float)[None]
        self.edge = 0
        self.runs: Runs | None = None

    def _step_impl(self) -> tuple[bool, str | None]:
        if self.runs is None:
            self.runs = self._run()
        self.edge = len(self.line.edges) - 1 if self.setup.whole else self.edge + 1
        end = self.line.edges[self.edge]
        if self.runs.status[0] != DONE and self.edge > self.runs.segment[0]:
            self.t, self.y = self.runs.reached[0], self.runs.final[0]
            return False, WORDS[self.runs.status[0]]
        self.t, self.y = end, self.runs.states[0, np.searchsorted(self.line.days, end)]
        return True, None

    def _run(self) -> Runs:
        setup = self.setup
        runs = setup.kernel.run(self.line, self.values, rtol=setup.rtol, start=self.start)
        setup.runs.append(runs)
        tried = int(runs.accepted[0] + runs.rejected[0])
        self.nfev, self.nlu, self.njev = STAGES * tried, tried, int(runs.accepted[0])
        return runs

    def _dense_output_impl(self) -> DenseOutput:
        return Between(self, self.t_old, self.t)


class Between(DenseOutput):  # type: ignore[misc]
    """The states between two edges, the first edge excluded: there they are those before a dose."""

    def __init__(self, solver: Rosenbrock, first: float, last: float) -> None:
        """Between the last two edges the solver reached."""
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
            replay, steps = solver.setup.kernel.replay, solver.runs.steps
            again = replay(line, solver.values, steps, start=solver.start)
            states = again.states[0, rows]
        return np.asarray(states[0] if np.ndim(t) == 0 else states.T)
