"""The vector that a fit makes small: residuals of the observations, then of the priors.

Everything is in log parameters x, (n_free,), in the order of ``problem.names``. A run that fails
is counted and never ends a fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import IntegrationError
from .noise import days_needed, residual_vector
from .problem import FitProblem
from .simulation import Simulation, simulate
from .workers import stop_if_asked

Array = NDArray[np.float64]

METHOD = "Rosenbrock"
RTOL = 1e-7
STEP = 1e-3
"""Finite-difference step on log parameters. At rtol 1e-7 a curve repeats itself to about 1e-8, so
the noise of a difference quotient is 1e-5; a one-sided one is off by half a thousandth of the
curvature, a central one (for the last descent and the covariance) by 1e-7.
"""
CAP = 8.0
"""Beyond this many standard deviations one residual is as hopeless as another."""
FAILED = 1e3
"""Residual of every observation in a run that failed: finite, flat, worse than any misfit met."""


def curves(problem: FitProblem, values: Mapping[str, float], days: Array) -> Simulation:
    """The run behind one evaluation: the patient's scenario under these parameter values."""
    model = problem.model.with_values(**values)
    return simulate(model, problem.patient.scenario, days=days, method=METHOD, rtol=RTOL)


def prior_vectors(problem: FitProblem) -> tuple[Array, Array, Array, Array]:
    """Centre, sd, lower and upper bound of the log parameters, each (n_free,)."""
    table = np.array([(f.median, f.sd, f.lower, f.upper) for f in problem.free]).reshape(-1, 4)
    return np.log(table[:, 0]), table[:, 1], np.log(table[:, 2]), np.log(table[:, 3])


def named(problem: FitProblem, x: Array) -> dict[str, float]:
    """Parameter values by name."""
    return {name: math.exp(value) for name, value in zip(problem.names, x, strict=True)}


def logs(problem: FitProblem, values: Mapping[str, float]) -> Array:
    """Their logarithms, (n_free,)."""
    return np.log(np.array([values[name] for name in problem.names], dtype=np.float64))


class Objective:
    """Residuals of a problem at log parameters x, (n_free,); counts its runs and its failures.

    The vector is the observations' residuals, then one per free parameter for its prior.
    """

    def __init__(self, problem: FitProblem) -> None:
        """Nothing runs yet."""
        self.problem = problem
        self.days = days_needed(problem.patient.observations)
        self.centre, self.sds, self.lower, self.upper = prior_vectors(problem)
        self.runs = self.failed = 0
        self.first_failure = ""
        self.best, self.best_cost = self.centre, math.inf
        self._last: tuple[bytes | None, Array | None] = (None, None)

    def residuals(self, x: Array) -> Array:
        """The residual vector; a failed run gives `FAILED` for each observation."""
        observed = self._observed(x)
        if observed is None:
            observed = np.full(self._size, FAILED)
        both = np.concatenate([observed, (x - self.centre) / self.sds])
        cost = float(both @ both)
        if cost < self.best_cost:
            self.best, self.best_cost = x.copy(), cost
        return both

    def rough_cost(self, x: Array) -> float:
        """Sum of squares with each residual capped, to rank points that are all far from good."""
        return float(np.sum(np.minimum(self.residuals(x) ** 2, CAP**2)))

    def jacobian(self, x: Array, *, central: bool) -> Array:
        """Derivatives (n, n_free) by finite differences.

        Where a perturbed run fails the other side is taken; where both fail, or the run itself
        does, only the prior has a slope and leads back.
        """
        here = self._observed(x)
        columns = [self._slope(x, j, here, central=central) for j in range(x.size)]
        return np.vstack([np.column_stack(columns), np.diag(1.0 / self.sds)])

    def _slope(self, x: Array, j: int, here: Array | None, *, central: bool) -> Array:
        if here is None:
            return np.zeros(self._size)
        up, down = x.copy(), x.copy()
        up[j] = min(x[j] + STEP, self.upper[j])
        down[j] = max(x[j] - STEP, self.lower[j])
        above = self._run(up) if central or up[j] > x[j] else None
        below = self._run(down) if central or above is None else None
        if above is None:
            above, up = here, x
        if below is None:
            below, down = here, x
        width = up[j] - down[j]
        return (above - below) / width if width > 0 else np.zeros(self._size)

    def _observed(self, x: Array) -> Array | None:
        """The observations' residuals, remembered for the last x; None if the run failed."""
        if self._last[0] != x.tobytes():
            self._last = (x.tobytes(), self._run(x))
        return self._last[1]

    def _run(self, x: Array) -> Array | None:
        stop_if_asked()
        self.runs += 1
        try:
            return self.attempt(x)
        except ArithmeticError as error:
            self.failed += 1
            self.first_failure = self.first_failure or str(error)
            return None

    def attempt(self, x: Array) -> Array:
        """The observations' residuals; what goes wrong in the run is raised, not counted.

        Raises
        ------
        IntegrationError
            If the run fails, or ends with values that are not finite.
        """
        run = curves(self.problem, named(self.problem, x), self.days)
        observed = residual_vector(self.problem.patient.observations, run, self.problem.noise)
        if not np.all(np.isfinite(observed)):
            raise IntegrationError("the run ended, but with values that are not finite")
        return observed

    @property
    def _size(self) -> int:
        return sum(1 + (o.kind == "sometime") for o in self.problem.patient.observations)
