"""The grade: an ordinal probit reading of a latent quantity, with an error that may persist.

A patient graded above the course today is likely to be tomorrow. The error is the sum of a state
of the patient (a stationary Ornstein-Uhlenbeck process, Gauss-Markov: correlation exp(-gap/memory))
with the share ``persistence`` of the variance, and of white noise. The residual of a grade is
sqrt(-2 ln P(grade | the grades before it)), so that the squares sum to -2 ln of the probability of
all grades together.

P is computed by a forward filter: the state has values on equally spaced nodes, its density is
multiplied by the probability of each grade, which is smooth, and moved to the next day. Sums over
equally spaced nodes of what is as smooth as a normal density of sd w are off by exp(-2 (pi w/h)^2),
so the spacing h follows from the sharper of white noise and the step between grades, and all is
positive, however short the step (Gauss-Hermite nodes are too far apart for short steps).

Source of the error bound: Trefethen and Weideman 2014, https://doi.org/10.1137/130932132
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from scipy.special import log_ndtr, ndtr

from ..model import Array
from ..store import CellError, Record, column

FLOOR = 1e-9
"""Below this fraction of the observed level a curve is solver noise: its logarithm flattens."""
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
REACHES = {4.0: 8.0, 12.0: 16.0, math.inf: 24.0}
"""Largest state on the nodes, by the state that the farthest grade asks for, in sd of the state."""
SPACING, MOST_NODES = 1.2, 1001
"""Spacing of the nodes, in widths of the sharpest factor (error: 1e-6), and the most of them."""
NARROW, LEAST = 1e-3, 1e-60
"""Narrowest interval and least probability for which the plain difference is taken."""
TINY, SMALLEST = 1e-200, 1e-120
"""Keeps logarithms finite; cut-off of factors: products below 1e-308 take fifty times as long."""
SAME_INSTANT = 1.0 / 2000.0
"""Grades closer than this, in memories, have the same state."""


@dataclass(frozen=True)
class GradeScale:
    """Ordinal probit model of the grade: cut-points on a latent quantity with normal error.

    ``cuts`` are ids of four parameters, or quantities of parameters alone, ascending: grade g is a
    reading of ``latent`` from cut g up to cut g+1, with standard deviation ``sd`` in its unit. Of
    its variance the share ``persistence`` (0: none) is a state that lasts for ``memory`` days: the
    errors of grades t days apart correlate with persistence exp(-t/memory). The day of a grade of
    a window is the window's middle.
    """

    latent: str
    cuts: tuple[str, ...]
    sd: float
    source: str = ""
    persistence: float = 0.0
    memory: float = 0.0

    @property
    def white(self) -> float:
        """The standard deviation of the error without the state, in the unit of ``latent``."""
        return self.sd * math.sqrt(1.0 - self.persistence)

    @property
    def record(self) -> dict[str, Any]:
        """All fields, without those of an error that does not persist, so that hashes hold."""
        fields = asdict(self)
        usual = () if self.persistence else ("persistence", "memory")
        return {name: value for name, value in fields.items() if name not in usual}

    def wrong(self) -> tuple[str, str]:
        """The key with a number out of range, and what it must be; two empty texts if none is."""
        if not 0.0 < self.sd < math.inf:
            return "sd", "sd must be above 0"
        if not 0.0 <= self.persistence < 1.0:
            return "persistence", (f"{self.persistence:g} is no share of the variance of a grade; "
                                   "give one from 0 to below 1")  # fmt: skip
        if self.persistence and not 0.0 < self.memory < math.inf:
            return "memory", ("persistence needs a memory above 0: the days after which the "
                              "correlation of two grades has fallen to 1/e")  # fmt: skip
        return "", ""

    def states(self, days: Array, rng: np.random.Generator) -> Array:
        """Draw the state on ascending days, (n_days,); without persistence 0, and no draw."""
        found = np.zeros(len(days))
        if self.persistence:
            keeps = np.exp(-np.diff(days, prepend=-np.inf) / self.memory)
            last = 0.0
            for k, (kept, z) in enumerate(zip(keeps, rng.standard_normal(len(days)), strict=True)):
                last = found[k] = kept * last + math.sqrt(1.0 - kept**2) * z
        return found * self.sd * math.sqrt(self.persistence)


class GradeTable(Record):
    """``[grade]`` of a prior.toml or problem.toml; see `GradeScale`."""

    latent: str
    cuts: list[str]
    sd: Annotated[float, column(gt=0, allow_inf_nan=False)]
    source: Annotated[str, column(min_length=1)]
    persistence: float = 0.0
    memory: float | None = None

    def check(self) -> None:
        """Check the numbers, and that a memory is not given in vain."""
        key, text = self.scale.wrong()
        if text:
            raise CellError(key, text)
        if self.memory is not None and "persistence" not in self.model_fields_set:
            raise CellError("memory", "belongs to persistence, which is not given; add it")

    @property
    def scale(self) -> GradeScale:
        """As `GradeScale`."""
        return GradeScale(self.latent, tuple(self.cuts), self.sd, self.source, self.persistence,
                          0.0 if self.memory is None else self.memory)  # fmt: skip


def grade_residuals(low: Array, high: Array, days: Sequence[float], scale: GradeScale) -> Array:
    """Residuals (..., n_grades): each sqrt(-2 ln P(grade | the grades of earlier days)).

    Parameters
    ----------
    low, high : Array, (..., n_grades), bounds of the error for which each grade is reported, in sd
    days : of the grades, in any order; of several on one day, the first given comes first
    scale : GradeScale
    """
    if not scale.persistence or len(days) < 2:
        return np.asarray(np.sqrt(-2.0 * log_chance_between(low, high)))
    order = np.argsort(days, kind="stable")
    farthest = float(np.maximum(low, -high).max()) / math.sqrt(scale.persistence)
    reach = next(reach for most, reach in REACHES.items() if not farthest > most)
    nodes, weights, steps = _chain(scale, tuple(np.sort(days).tolist()), reach)
    narrow = math.sqrt(1.0 - scale.persistence)
    ends = [np.reshape(side, (-1, len(days)))[:, order, None] / narrow for side in (low, high)]
    found: Array = np.empty(ends[0].shape[:2])
    found[:, order] = np.sqrt(-2.0 * _filtered(ends[0] - nodes, ends[1] - nodes, weights, steps))
    return found.reshape(np.shape(low))


@np.errstate(all="ignore")  # levels that are not finite give residuals that are not
def _filtered(low: Array, high: Array, weights: Array, steps: tuple[Array, ...]) -> Array:
    """ln P(grade | those before), (n_runs, n_grades), from the limits given the state, (..., n).

    Where P is near 1, it is computed from what is missing, so that no digit of that is lost.
    """
    tops, chances, others = _chances(low, high)
    expected = np.empty_like(chances)
    ahead = np.broadcast_to(weights, chances[:, 0].shape)
    for k in range(chances.shape[1]):
        expected[:, k] = ahead
        seen = ahead * chances[:, k] + TINY
        if k < len(steps):
            ahead = (seen @ steps[k]) / seen.sum(axis=-1, keepdims=True)
    totals = tops + np.log(np.einsum("rtn,rtn->rt", expected, chances) + TINY)
    missing = np.einsum("rtn,rtn->rt", expected, others)
    return np.asarray(np.where(missing < 0.5, np.log1p(-np.minimum(missing, 0.5)), totals))


def _chances(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """P(low < Z < high) at every state over exp(tops), tops (n_runs, n_grades), and 1 - P.

    The plain difference takes a fifth of the time of `log_chance_between`, which is needed where
    an interval is narrow or reversed, or so far away that P is 0 in floating point.
    """
    left = low + high <= 0.0
    near, far = np.where(left, high, -low), np.where(left, low, -high)  # both in the left tail
    below = ndtr(far)
    chances, others = ndtr(near) - below, below + ndtr(-near)
    tops = np.zeros(low.shape[:2])
    hard = (near[..., 0] - far[..., 0] < NARROW) | (chances.max(axis=-1) < LEAST)
    if hard.any():
        logs = log_chance_between(low[hard], high[hard])
        tops[hard] = logs.max(axis=-1)
        chances[hard], others[hard] = np.exp(logs - tops[hard][:, None]), -np.expm1(logs)
    return tops, np.maximum(chances, SMALLEST), others


@lru_cache(maxsize=64)
def _chain(
    scale: GradeScale, days: tuple[float, ...], reach: float, spacing: float = SPACING
) -> tuple[Array, Array, tuple[Array, ...]]:
    """The state as a Markov chain: its nodes, (n,), in sd of the white noise; their chances at
    first; and from each day to the next the chances (n, n) of each node after each.

    Nodes of a larger reach include those of a smaller one, so that results do not jump.
    """
    gaps = np.diff(days) / scale.memory
    least = float(np.min(gaps, initial=math.inf, where=gaps > SAME_INSTANT))
    step = math.sqrt(-math.expm1(-2.0 * least))
    ratio = math.sqrt(scale.persistence / (1.0 - scale.persistence))
    half = MOST_NODES // 2
    apart = max(spacing / math.hypot(1.0 / step, ratio), REACHES[4.0] / half)
    half = min(math.ceil(reach / apart), half)
    states: Array = np.arange(-half, half + 1.0) * apart
    made = {gap: _moves(states, gap) for gap in set(gaps.tolist())}
    weights = np.exp(-0.5 * states**2)
    return states * ratio, weights / weights.sum(), tuple(made[gap] for gap in gaps.tolist())


def _moves(states: Array, gap: float) -> Array:
    """The chances (n, n) of each state after each, a gap of so many memories later."""
    if gap <= SAME_INSTANT:
        return np.eye(len(states))
    off = states - math.exp(-gap) * states[:, None]
    density = np.exp(0.5 * off**2 / math.expm1(-2.0 * gap))
    density[density < SMALLEST] = 0.0
    return np.asarray(density / density.sum(axis=1, keepdims=True))


def log_chance_between(low: float | Array, high: float | Array) -> Array:
    """ln P(low < Z < high) for a standard normal Z; exact in both tails and for narrow intervals.

    If a fit reverses the limits, the width becomes a small positive number (as in `log_level`), so
    that the gradient still leads back.

    >>> round(math.exp(log_chance_between(-1.0, 1.0)), 6)
    0.682689
    """
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    with np.errstate(all="ignore"):  # every case is computed everywhere and selected where valid
        middle = 0.5 * (low + high)
        width = FLOOR * np.exp(np.arcsinh((high - low) / (2.0 * FLOOR)))
        narrow = -0.5 * middle**2 - HALF_LOG_2PI + np.log(width)
        outside = ndtr(low) + ndtr(-high)
        right = low + high > 0
        near, far = np.where(right, -high, low), np.where(right, -low, high)
        less, more = log_ndtr(near), log_ndtr(far)
        wide = more + np.log(-np.expm1(less - more))
        both = np.where(outside < 0.5, np.log1p(-outside), wide)
        both = np.where(width * np.maximum(1.0, np.abs(middle)) < 1e-4, narrow, both)
    one_sided = np.where(np.isinf(low), log_ndtr(high), log_ndtr(-low))
    return np.where(np.isinf(low) | np.isinf(high), one_sided, both)
