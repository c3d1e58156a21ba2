"""The error model: residuals of observations, whose squares sum to -2 log-likelihood.

Every kind of residual is smooth in the curve, even for a prediction far off, at zero or a rounding
error below zero, so that least squares can recover; none is a step function. Errors are log-normal
with a spread (standard deviation of the natural logarithm) for each observable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.special import log_ndtr, ndtr

from ..dosing import SAME_TIME
from ..errors import InputError, unknown_name
from ..model import Array, Model
from ..patients import Observation
from ..simulation import peak, states_of

SAMPLES_PER_DAY = 20
FLOOR = 1e-9
"""Below this fraction of the observed level a curve is solver noise: its logarithm flattens."""
NORMAL_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
RATIOS = ("ratio", "ratio_below", "ratio_above")
BOUNDS = ("below", "above", "ratio_below", "ratio_above")


class Curves(Protocol):
    """Simulated curves to compare with observations: one run, or many on the same days.

    A `crs_sim.simulation.Simulation` is one run; its curves are (n_days,). For many runs, curves
    are (n_runs, n_days) and each residual is (n_runs,).
    """

    @property
    def days(self) -> Array:
        """Ascending, (n_days,)."""

    @property
    def values(self) -> Mapping[str, float] | Mapping[str, Array]:
        """Parameter values, each a number or (n_runs,)."""

    def __getitem__(self, name: str) -> Array:
        """The course of a state or quantity."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the natural logarithm of a reading (0.2: about 20 %), and its source.

    It covers assay error and model misspecification.
    """

    sd: float
    source: str = ""


@dataclass(frozen=True)
class GradeScale:
    """Ordinal probit model of the grade: cut-points on a latent quantity with normal error.

    Parameters
    ----------
    latent : str, a quantity or state of the model
    cuts : ids of four parameters, or of quantities that depend only on parameters, ascending;
        grade g is a latent reading from cut g up to cut g+1
    sd : float, standard deviation of the latent reading, in the latent quantity's unit
    """

    latent: str
    cuts: tuple[str, ...]
    sd: float
    source: str = ""


@dataclass(frozen=True)
class Noise:
    """The spread of every observable, and the grade scale if there are grades."""

    spreads: Mapping[str, Spread] = field(default_factory=dict)
    grade: GradeScale | None = None

    def sd(self, observation: Observation) -> float:
        """The standard deviation of an observation: its own if given, else its observable's.

        Raises
        ------
        UnknownNameError
            If neither is given.
        """
        if not math.isnan(observation.sd):
            return observation.sd
        if observation.observable not in self.spreads:
            raise unknown_name("noise entry", observation.observable, self.spreads)
        return self.spreads[observation.observable].sd


def days_needed(observations: Iterable[Observation]) -> Array:
    """The days a run must be sampled on to compare it with observations: (n,) ascending, unique.

    Windows are sampled at every multiple of 1/20 day, and at both ends.
    """
    days = [d for o in observations for d in (*_window(o.day, o.until), o.reference)]
    return np.unique(np.array([d for d in days if not math.isnan(d)], dtype=np.float64))


@lru_cache(maxsize=4096)
def _window(first: float, last: float) -> Array:
    """Both ends and the multiples of 1/20 day between; k/20 is the same float in every window."""
    lowest, highest = math.ceil(first * SAMPLES_PER_DAY), math.floor(last * SAMPLES_PER_DAY)
    grid = (k / SAMPLES_PER_DAY for k in range(lowest, highest + 1))
    inside = (day for day in grid if first + SAME_TIME < day < last - SAME_TIME)
    days = np.array([first, *inside, last] if last > first else [first])
    days.flags.writeable = False
    return days


def predicted(observation: Observation, sim: Curves) -> float:
    """The predicted value of an observation, in its unit.

    For a value on an unknown day: the value in its window closest to the observed one.

    Raises
    ------
    InputError
        If the run was not sampled on one of the `days_needed`.
    """
    curve = _curve_in_window(observation, sim, observation.observable)
    if observation.kind in RATIOS:
        reference = float(_curve_on_day(sim, observation.observable, observation.reference)[0])
        return float(curve[0]) / reference if reference else math.inf
    if observation.kind == "sometime":
        misses = np.abs(log_level(curve, observation.value) - math.log(observation.value))
        return float(curve[int(np.argmin(misses))])
    if observation.kind == "peak":
        return float(_highest(observation, sim, observation.observable))
    return float(curve.max())


def residual(observation: Observation, sim: Curves, noise: Noise) -> float:
    """One number for tables: its square is the observation's -2 log-likelihood, up to a constant.

    Positive where the reading is above the prediction (grades: always positive). Fitting uses
    `residuals`; this is their norm with a sign.
    """
    parts = [float(part) for part in residuals(observation, sim, noise)]
    return math.copysign(math.sqrt(sum(part * part for part in parts)), parts[0])


def residual_vector(observations: Iterable[Observation], sim: Curves, noise: Noise) -> Array:
    """All residuals of all observations, in order: (n,), or (n_runs, n) for many runs."""
    several = tuple(observations)
    grades = [o for o in several if o.kind == "grade"]
    each_grade = iter(np.moveaxis(_grade_residuals(grades, sim, noise), -1, 0) if grades else ())
    parts = [
        r
        for o in several
        for r in ((next(each_grade),) if o.kind == "grade" else residuals(o, sim, noise))
    ]
    return np.stack(parts, axis=-1) if parts else np.zeros(0)


def residuals(observation: Observation, sim: Curves, noise: Noise) -> tuple[Array, ...]:
    """The residuals of one observation: two for a value on an unknown day, else one.

    Each is a number, or (n_runs,) for many runs.

    ==================================  ====================================================
    value, peak, ratio                  (ln observed - ln predicted)/sd
    below, above, ratio_below, _above   sqrt(-2 ln P), P: probability beyond the limit
    sometime                            see `sometime_residuals`
    grade                               sqrt(-2 ln P), P: probability of that grade
    ==================================  ====================================================

    Raises
    ------
    InputError
        If the run was not sampled on one of the `days_needed`.
    """
    if observation.kind == "grade":
        return (_grade_residuals([observation], sim, noise)[..., 0],)
    sd = noise.sd(observation)
    deviations = (math.log(observation.value) - _log_predicted(observation, sim)) / sd
    if observation.kind == "sometime":
        return sometime_residuals(deviations)
    deviation = deviations.min(axis=-1)  # at the largest level for a peak; else there is one
    if observation.kind in BOUNDS:
        return (_bound_residual(deviation, below=observation.kind.endswith("below")),)
    return (deviation,)


def log_level(level: Array, observed: float | Array) -> Array:
    """ln(level), regularised where the level is below a billionth of the observed one.

    Defined and increasing at and below zero as well: ``ln f + asinh(x/2f)``, f the floor.

    >>> float(log_level(np.array([5.0]), 10.0)[0]) - math.log(5.0) < 1e-11
    True
    """
    floor = FLOOR * np.asarray(observed)
    return np.asarray(np.log(floor) + np.arcsinh(level / (2.0 * floor)))


def sometime_residuals(deviations: Array) -> tuple[Array, Array]:
    """Residuals of a reading on an unknown day, from its deviations (in sd) on each day.

    The days are the last axis. The likelihood is the mean over the window. With w the probability
    of each day given the reading, -2 ln mean exp(-e^2/2) = (mean of e)^2 + variance of e
    + 2 KL(w, uniform), with moments under w. The first residual is the mean, which stays smooth
    where the curve is flat and fits, where a plain square root would have a kink. The second is the
    root of the rest; a constant 1e-6 under that root keeps it smooth.
    """
    logs = -0.5 * deviations**2
    top = logs.max(axis=-1, keepdims=True)
    scaled = _trapezoid(deviations.shape[-1]) * np.exp(logs - top)
    total = scaled.sum(axis=-1, keepdims=True)
    weights = scaled / total
    mean = (weights * deviations).sum(axis=-1, keepdims=True)
    variance = (weights * (deviations - mean) ** 2).sum(axis=-1)
    divergence = (weights * (logs - top)).sum(axis=-1) - np.log(total[..., 0])
    return mean[..., 0], np.sqrt(variance + 2.0 * np.maximum(divergence, 0.0) + 1e-6)


@lru_cache(maxsize=256)
def _trapezoid(n: int) -> Array:
    """Trapezoidal weights (n,) that sum to one."""
    weights = np.ones(n)
    if n > 1:
        weights[[0, -1]] = 0.5
    weights /= weights.sum()
    weights.flags.writeable = False
    return weights


def _log_predicted(observation: Observation, sim: Curves) -> Array:
    curve = _curve_in_window(observation, sim, observation.observable)
    if observation.kind in RATIOS:
        reference = _curve_on_day(sim, observation.observable, observation.reference)
        scale = np.maximum(np.abs(curve), np.abs(reference))
        scale = np.where(scale > 0.0, scale, 1.0)
        return log_level(curve, scale) - log_level(reference, scale)
    if observation.kind == "peak":
        curve = _highest(observation, sim, observation.observable)[..., None]
    return log_level(curve, observation.value)


def _curve_in_window(observation: Observation, sim: Curves, name: str) -> Array:
    """A curve over the observation's window."""
    return _curve_on_days(sim, name, _window(observation.day, observation.until))


def _highest(observation: Observation, sim: Curves, name: str) -> Array:
    """The largest level in the observation's window, just after a dose and between samples too."""
    curve = _curve_in_window(observation, sim, name)
    if observation.until <= observation.day or not hasattr(sim, "dense"):
        return np.asarray(curve.max(axis=-1))
    return np.asarray(peak(sim, name, observation.day, observation.until))


def watched_states(model: Model, observations: Iterable[Observation], noise: Noise) -> list[int]:
    """Indices of the states whose courses between samples the observed peaks and grades need."""
    latent = {"grade": noise.grade.latent} if noise.grade else {}
    wanted = [
        latent.get(o.kind, o.observable)
        for o in observations
        if o.kind in ("peak", "grade") and o.until > o.day
    ]
    names = states_of(model, wanted) if wanted else ()
    return [model.state_ids.index(name) for name in names]


def _curve_on_day(sim: Curves, name: str, day: float) -> Array:
    """A curve on one day, (..., 1)."""
    return _curve_on_days(sim, name, _window(day, day))


def _curve_on_days(sim: Curves, name: str, days: Array) -> Array:
    rows = sim.days.searchsorted(days)
    if rows[-1] >= sim.days.size or (sim.days[rows] != days).any():
        raise InputError(
            f"{name} is observed from day {days[0]:g} to {days[-1]:g}, where the run was not "
            "sampled; run it with days=days_needed(observations)"
        )
    return sim[name][..., rows]


def _bound_residual(deviation: Array, *, below: bool) -> Array:
    """Root of -2 ln P(reading beyond the limit); `deviation` is (ln limit - ln predicted)/sd."""
    sign = 1.0 if below else -1.0
    return np.asarray(-sign * np.sqrt(-2.0 * log_ndtr(sign * deviation)))


def _grade_residuals(grades: Sequence[Observation], sim: Curves, noise: Noise) -> Array:
    """Residuals of several grades, (..., n_grades), vectorised: a patient has one every day."""
    scale = noise.grade
    if scale is None:
        raise InputError(f"{grades[0].id} is a grade, but the noise has no grade scale; add one")
    limits = [_limits(grade, sim, scale) for grade in grades]
    low, high = (np.stack(side, axis=-1) for side in zip(*limits, strict=True))
    return np.asarray(np.sqrt(-2.0 * log_chance_between(low, high)))


def _limits(grade: Observation, sim: Curves, scale: GradeScale) -> tuple[Array, Array]:
    """Bounds of the standard normal error for which the grade is reported, each (...)."""
    level = _highest(grade, sim, scale.latent)
    place, unlimited = int(grade.value), np.full_like(level, np.inf)
    low = _cut(grade, sim, scale.cuts[place - 1]) - level if place > 0 else -unlimited
    high = _cut(grade, sim, scale.cuts[place]) - level if place < len(scale.cuts) else unlimited
    return np.asarray(low / scale.sd), np.asarray(high / scale.sd)


def _cut(observation: Observation, sim: Curves, name: str) -> Array:
    if name in sim.values:
        return np.asarray(sim.values[name])
    return _curve_on_day(sim, name, observation.day)[..., 0]


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
