"""Structured secant correction of the Gauss-Newton Hessian, updated from step to step.

Gauss-Newton approximates the Hessian of half a sum of squares by J'J and neglects S, the sum of
each residual times its own Hessian. Where residuals at the optimum are large and curved in a stiff
direction, as all are with the day a loop ignites, its steps overshoot and return, always in the
same proportion. S is approximated by secant updates from the change of the Jacobian along the
steps, as in NL2SOL (Dennis, Gay & Welsch 1981, doi:10.1145/355958.355965).

Any least-squares routine can use S as extra Jacobian rows under residuals that are always zero:
they leave cost and gradient unchanged and add S to J'J.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_CURVATURE = 1e-12
"""Relative curvature along a step below which the secant update is skipped."""


@dataclass(frozen=True, eq=False)
class SecantCorrection:
    """The secant approximation of S after some steps of an optimisation; empty before the first.

    Parameters
    ----------
    x : (n,) current point; empty before the first
    residuals : (m,) at x
    slopes : (m, n) Jacobian at x
    learnt : (n, n) approximation of S
    trusted : bool, whether J'J + S predicted the last step better than J'J alone
    """

    x: Array = field(default_factory=lambda: np.empty(0))
    residuals: Array = field(default_factory=lambda: np.empty(0))
    slopes: Array = field(default_factory=lambda: np.empty((0, 0)))
    learnt: Array = field(default_factory=lambda: np.empty((0, 0)))
    trusted: bool = False

    def after(self, x: Array, residuals: Array, slopes: Array) -> SecantCorrection:
        """Update at the next point x, with its residuals and Jacobian ``slopes``."""
        step = x - self.x if len(self.x) else np.zeros_like(x)
        if not step.any():
            secant = self.learnt if len(self.x) else np.zeros((len(x), len(x)))
            return SecantCorrection(x, residuals, slopes, secant, self.trusted)
        change = slopes.T @ residuals - self.slopes.T @ self.residuals
        target = (slopes - self.slopes).T @ residuals
        trusted = self._predicts(step, 0.5 * float(residuals @ residuals))
        secant = _secant_update(self.learnt, step, change, target)
        return SecantCorrection(x, residuals, slopes, secant, trusted)

    @property
    def rows(self) -> Array:
        """Jacobian rows (n, n) for the zero residuals; all zero while S is not reliable.

        Directions in which S is negative are left to J'J, whose steps are then merely short.
        """
        sizes, directions = np.linalg.eigh(self.learnt)
        kept = np.sqrt(np.maximum(sizes, 0.0)) if self.trusted else np.zeros_like(sizes)
        return np.asarray(kept[:, None] * directions.T)

    def _predicts(self, step: Array, cost: float) -> bool:
        """Whether J'J + S predicts half the sum of squares after a step better than J'J."""
        linear = self.residuals + self.slopes @ step
        without = 0.5 * (linear @ linear)
        sizes, directions = np.linalg.eigh(self.learnt)
        correction = 0.5 * float(np.maximum(sizes, 0.0) @ (directions.T @ step) ** 2)
        return bool(abs(cost - without - correction) <= abs(cost - without))


def _secant_update(secant: Array, step: Array, change: Array, target: Array) -> Array:
    """The S nearest to ``secant`` (weighted by ``change``) that satisfies S step = target.

    ``change`` is that of the gradient over the step. The old S is first scaled down (sizing of
    NL2SOL) where it is too large along the step: it belongs to residuals that were larger.
    """
    predicted, actual = float(step @ secant @ step), float(step @ target)
    secant = secant * (min(1.0, abs(actual / predicted)) if predicted else 1.0)
    along = float(change @ step)
    if abs(along) <= MIN_CURVATURE * float(np.linalg.norm(change) * np.linalg.norm(step)):
        return secant
    missing = target - secant @ step
    both = np.outer(missing, change) / along
    rank_one = np.outer(change, change) * (missing @ step) / along**2
    return np.asarray(both + both.T + secant - rank_one)
