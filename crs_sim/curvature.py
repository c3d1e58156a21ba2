"""The curvature that least squares leaves out, learnt from one step to the next.

Gauss-Newton takes the curvature of half a sum of squares for J'J and leaves out S, the sum of each
residual times its own curvature. Where the residuals at the optimum are large and bend in a stiff
direction, as all do at once with the day a loop ignites, steps then overshoot and come back, ever
in the same proportion. S is learnt from how the slopes change along the steps, as NL2SOL does
(Dennis, Gay & Welsch 1981, doi:10.1145/355958.355965).

Any least-squares routine takes S in as rows of slopes under residuals that are always zero: they
leave cost and gradient as they are and add to the curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ALONG = 1e-12
"""A step along which the gradient changes less than this, of what it might, tells nothing."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """What is known of S after some steps of a descent; begun without any.

    Parameters
    ----------
    x : (n,) where the descent is; empty at its beginning
    residuals : (m,) there
    slopes : (m, n) of the residuals there
    learnt : (n, n) S so far
    trusted : bool, whether J'J + S foretold the last step better than J'J alone
    """

    x: Array = field(default_factory=lambda: np.empty(0))
    residuals: Array = field(default_factory=lambda: np.empty(0))
    slopes: Array = field(default_factory=lambda: np.empty((0, 0)))
    learnt: Array = field(default_factory=lambda: np.empty((0, 0)))
    trusted: bool = False

    def after(self, x: Array, residuals: Array, slopes: Array) -> Curvature:
        """What is known once the descent has come to x, where residuals and slopes are these."""
        step = x - self.x if len(self.x) else np.zeros_like(x)
        if not step.any():
            known = self.learnt if len(self.x) else np.zeros((len(x), len(x)))
            return Curvature(x, residuals, slopes, known, self.trusted)
        turn = slopes.T @ residuals - self.slopes.T @ self.residuals
        own = (slopes - self.slopes).T @ residuals
        trusted = self._foretells(step, 0.5 * float(residuals @ residuals))
        return Curvature(x, residuals, slopes, _learn(self.learnt, step, turn, own), trusted)

    @property
    def rows(self) -> Array:
        """Slopes (n, n) for residuals that are zero; all zero while S is not to be trusted.

        Directions in which S is negative are left to J'J: its steps are then merely short.
        """
        sizes, directions = np.linalg.eigh(self.learnt)
        kept = np.sqrt(np.maximum(sizes, 0.0)) if self.trusted else np.zeros_like(sizes)
        return np.asarray(kept[:, None] * directions.T)

    def _foretells(self, step: Array, cost: float) -> bool:
        """Whether half the sum of squares after a step is nearer to what S foretold."""
        moved = self.residuals + self.slopes @ step
        without = 0.5 * (moved @ moved)
        sizes, directions = np.linalg.eigh(self.learnt)
        bend = 0.5 * float(np.maximum(sizes, 0.0) @ (directions.T @ step) ** 2)
        return bool(abs(cost - without - bend) <= abs(cost - without))


def _learn(known: Array, step: Array, turn: Array, own: Array) -> Array:
    """S such that S step = own, otherwise as near to the known as can be (weighted by ``turn``).

    ``turn`` is the change of the gradient, ``own`` what S should make of the step. What was known
    is shrunk first where it says more than there is: it belongs to residuals that were larger.
    """
    told, there = float(step @ known @ step), float(step @ own)
    known = known * (min(1.0, abs(there / told)) if told else 1.0)
    along = float(turn @ step)
    if abs(along) <= ALONG * float(np.linalg.norm(turn) * np.linalg.norm(step)):
        return known
    missing = own - known @ step
    both = np.outer(missing, turn) / along
    return np.asarray(both + both.T + known - np.outer(turn, turn) * (missing @ step) / along**2)
