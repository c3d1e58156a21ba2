"""An optimisation goes on until no step promises that the cost falls, or says so if it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from small_fits import asked, free, seen

from crs_sim.fitting import local_optimisation
from crs_sim.fitting.local_optimisation import FALL, descend, informed, promised_fall

TOLERANCE = 1e-9


@dataclass
class Valley:
    """A narrow curved valley (Rosenbrock's), with its lowest point, 0, at (1, 1)."""

    steepness: float = 100.0
    upper: np.ndarray = field(default_factory=lambda: np.full(2, 5.0))
    lower: np.ndarray = field(default_factory=lambda: np.full(2, -5.0))
    sds: np.ndarray = field(default_factory=lambda: np.ones(2))
    problem: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(names=("x", "y")))
    best: np.ndarray = field(default_factory=lambda: np.zeros(2))
    best_cost: float = np.inf
    terms: int = 0

    def information(self, x, slopes):
        return np.zeros((0, 2))

    def residuals(self, x):
        both = np.array([self.steepness * (x[1] - x[0] ** 2), 1.0 - x[0]])
        if both @ both < self.best_cost:
            self.best, self.best_cost = x.copy(), float(both @ both)
        return both

    def jacobian(self, x):
        return np.array([[-2 * self.steepness * x[0], self.steepness], [-1.0, 0.0]])


@pytest.mark.parametrize(("steepness", "steps"), [(10.0, 4), (100.0, 12), (1e3, 60)])
def test_a_descent_goes_on_to_the_bottom(steepness, steps, monkeypatch):
    monkeypatch.setattr(local_optimisation, "MAX_STEPS", steps)
    monkeypatch.setattr(local_optimisation, "MAX_ROUNDS", 500)
    valley = Valley(steepness)
    _, converged = descend(valley, np.array([-1.2, 1.0]), TOLERANCE, FALL)
    assert converged
    assert valley.best_cost < FALL
    assert valley.best == pytest.approx([1.0, 1.0], abs=1e-2)


def test_a_descent_that_is_cut_short_says_what_is_left(monkeypatch):
    monkeypatch.setattr(local_optimisation, "MAX_STEPS", 2)
    monkeypatch.setattr(local_optimisation, "MAX_ROUNDS", 2)
    valley = Valley(1e3)
    why, converged = descend(valley, np.array([-1.2, 1.0]), TOLERANCE, FALL)
    assert not converged
    assert f"the cost falls by {promised_fall(valley, valley.best):.2g}" in why


def test_what_a_bound_holds_back_is_no_promise():
    valley = Valley(10.0, upper=np.array([0.5, 5.0]))
    _, converged = descend(valley, np.array([-1.2, 1.0]), TOLERANCE, FALL)
    assert converged
    assert valley.best == pytest.approx([0.5, 0.25], abs=1e-6)
    assert valley.best_cost == pytest.approx(0.25)


def test_the_promise_is_the_squared_distance_in_standard_errors():
    """Of a straight valley, exactly."""
    slopes, centre = np.array([[2.0, 0.5], [0.0, 3.0], [1.0, 1.0]]), np.array([0.3, -0.2])
    plane = Valley()
    plane.residuals = lambda x: slopes @ (x - centre)
    plane.jacobian = lambda x: slopes
    x = np.array([1.0, 0.4])
    covariance = np.linalg.inv(slopes.T @ slopes)
    distance = (x - centre) @ np.linalg.inv(covariance) @ (x - centre)
    assert promised_fall(plane, x) == pytest.approx(distance)


def test_what_nothing_measured_depends_on_is_not_free():
    """gain moves only the signal, which is not read here; a0 and k move A."""
    frees = (free("gain", 3.0, 0.3), free("k", 0.5, 0.4), free("a0", 8.0, 0.4))
    problem = asked(*frees, observations=(seen("late", "A", 2.0, 4.0), seen("low", "A", 4.0, 2.0)))
    smaller, idle = informed(problem)
    assert idle == ("gain",)
    assert smaller.names == ("k", "a0")
    assert smaller.model.values["gain"] == 3.0
    whole = asked(
        *frees, observations=(*problem.patient.observations, seen("s", "signal", 1.0, 9.0))
    )
    assert informed(whole) == (whole, ())
    early = asked(*frees, observations=(seen("first", "A", 0.0, 9.0),))
    assert informed(early)[1] == ("gain", "k")
