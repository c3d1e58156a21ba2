"""What Gauss-Newton leaves out, secant: on a problem whose S is known in closed form.

Two residuals, 10 (x - 1) and 5 - 3 x^2 + y, beside one for each of x and y: at the optimum the
bent one is large, so S is far from nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from crs_sim.fitting.local_optimisation import SecantCorrection
from crs_sim.model.codegen import Array


def residuals(x: Array) -> Array:
    return np.array([2.0 * (x[0] - 1.0), 5.0 + 3.0 * x[0] ** 2 + x[1], x[0], x[1]])


def slopes(x: Array) -> Array:
    return np.array([[2.0, 0.0], [6.0 * x[0], 1.0], [1.0, 0.0], [0.0, 1.0]])


def left_out(x: Array) -> Array:
    """S in closed form: the bent residual times its own second derivative."""
    return np.array([[6.0 * residuals(x)[1], 0.0], [0.0, 0.0]])


def descend(curved: bool) -> tuple[int, Array, SecantCorrection]:
    """How many slopes were asked for, where it ended, and what was secant."""
    known, asked = SecantCorrection(), 0

    def both(x: Array) -> Array:
        nonlocal known, asked
        asked += 1
        known = known.after(x, residuals(x), slopes(x))
        return np.vstack([slopes(x), known.rows if curved else np.zeros((2, 2))])

    end = least_squares(
        lambda x: np.concatenate([residuals(x), np.zeros(2)]), [2.0, 1.0], jac=both,
        xtol=1e-12, ftol=1e-12, gtol=1e-10, max_nfev=500,
    )  # fmt: skip
    return asked, end.x, known


def test_the_descent_ends_at_the_same_place_in_fewer_steps() -> None:
    plain, x, _ = descend(curved=False)
    fewer, same, _ = descend(curved=True)
    assert same == pytest.approx(x, abs=1e-5)
    assert fewer <= plain / 2


def optimum() -> Array:
    """Where the gradient is zero: y = -(5 + 3 x^2)/2, and 9 x^3 + 20 x = 4."""
    (x,) = (root.real for root in np.roots([9.0, 0.0, 20.0, -4.0]) if abs(root.imag) < 1e-9)
    return np.array([x, -(5.0 + 3.0 * x**2) / 2.0])


@pytest.mark.parametrize(("closer", "steps"), [(0.5, 16), (0.7, 28)])
def test_steps_closing_in_on_the_optimum_teach_what_is_left_out(closer: float, steps: int) -> None:
    """Steps that are given, not taken by a descent: one that ends teaches by chance at last."""
    there, known, off = optimum(), SecantCorrection(), []
    around = np.array([[0.5, 0.15], [-0.2, 0.5], [-0.35, -0.3]])
    for k in range(steps):
        x = there + closer**k * around[k % 3]
        known = known.after(x, residuals(x), slopes(x))
        off.append(np.abs(known.secant - left_out(there)).max())
    assert off[-1] < 1e-3 * off[0]
    assert known.reliable
    assert known.rows.T @ known.rows == pytest.approx(left_out(there), abs=0.02)


def test_a_step_is_explained_exactly() -> None:
    first, second = np.array([1.0, 0.5]), np.array([0.7, 0.4])
    known = SecantCorrection().after(first, residuals(first), slopes(first))
    known = known.after(second, residuals(second), slopes(second))
    own = (slopes(second) - slopes(first)).T @ residuals(second)
    assert known.secant @ (second - first) == pytest.approx(own, rel=1e-12)


def test_rows_leave_the_gradient_alone_and_hold_only_what_is_positive() -> None:
    known = SecantCorrection(np.zeros(2), np.zeros(4), np.zeros((4, 2)), np.diag([4.0, -9.0]), True)
    assert known.rows.T @ known.rows == pytest.approx(np.diag([4.0, 0.0]))
    assert not SecantCorrection(secant=np.eye(2)).rows.any()


def test_standing_still_teaches_nothing() -> None:
    here = np.array([1.0, 0.5])
    known = SecantCorrection().after(here, residuals(here), slopes(here))
    again = known.after(here, residuals(here), slopes(here))
    assert not again.secant.any() and not again.reliable
