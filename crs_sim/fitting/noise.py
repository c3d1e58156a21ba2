"""The error model: residuals of observations, whose squares sum to -2 log-likelihood.

Every kind of residual is smooth in the curve, even for a prediction far off, at zero or a rounding
error below zero, so that least squares can recover; none is a step function. Errors are log-normal,
proportional, additive or combined, with a `Spread` for each observable.

A standard deviation s that is estimated, or depends on the prediction, adds 2 ln s: one more
residual, sqrt(2 ln(s/least)), with ``least`` below any s allowed. The sum of squares stays exact,
so optimiser, profiles and sampler need no other form.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.special import log_ndtr

from ..dosing import SAME_TIME
from ..errors import InputError, unknown_name
from ..model import Array
from ..patients import Observation
from ..simulation import peak
from ..store import text_of
from .grades import FLOOR, GradeScale, grade_residuals

SAMPLES_PER_DAY = 20
LOG_2PI = math.log(2.0 * math.pi)
NORMAL_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
SPAN, FLAT = 100.0, 30.0
"""Factor from a stated sd to the bounds of its estimate; sd of a prior that is flat within them."""
SMALL = 1e-3
"""A proportional error is not below this share of that at the reading, also for a level of 0."""
RATIOS = ("ratio", "ratio_below", "ratio_above")
EXACT_KINDS = ("value", "peak", "ratio", "sometime")
"""Kinds of a reading with a density; the others have a probability."""
BOUNDS = ("below", "above", "ratio_below", "ratio_above")


class Curves(Protocol):
    """Curves of one run (a `Simulation`), (n_days,), or of many on the same days, (n_runs, n_days).

    Each residual is a number, or (n_runs,).
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
    """The error of a reading: assay error and model misspecification.

    ``sd`` is that of the natural logarithm (0.2: about 20 %), for another ``error`` a share of the
    prediction, or if additive, in the observable's unit, as is ``additive``, the other part of a
    combined error. With ``estimate`` they are free parameters, with these medians and the
    log-normal ``prior_sd``, by default flat between the bounds. ``observable`` is an assay's.
    """

    sd: float
    source: str = ""
    error: str = "log-normal"
    additive: float = 0.0
    estimate: bool = False
    prior_sd: float = FLAT
    observable: str = ""

    def __repr__(self) -> str:
        return text_of(self, "observable")

    @property
    def parts(self) -> dict[str, float]:
        """Its numbers by the first word of the parameters they are estimated as."""
        return {"sd": self.sd} | ({"additive": self.additive} if self.error == "combined" else {})

    def at(self, entry: str, values: Mapping[str, Any]) -> Spread:
        """The spread of an entry with estimated numbers: of a run, or (n_runs, 1) of many."""
        if not self.estimate:
            return self
        now = {part: values.get(f"{part}_{entry}", x) for part, x in self.parts.items()}
        many = {part: x[..., None] if np.ndim(x) else x for part, x in now.items()}
        return replace(self, estimate=False, **many)

    def scale(self, level: float | Array, reading: float) -> float | Array:
        """The standard deviation of a reading at a level; of its logarithm if log-normal."""
        if self.error in ("log-normal", "additive"):
            return self.sd
        share, least = self.sd * level, self.sd * SMALL * reading
        return np.asarray(np.sqrt(share**2 + self.additive**2 + least**2))

    def least(self, reading: float) -> float:
        """Below every `scale` between the bounds, by a factor that keeps the residual above 1."""
        small = {"log-normal": 1.0, "additive": 1.0}.get(self.error, SMALL * reading)
        return max(self.sd * small, self.additive) / SPAN * math.exp(-0.5)

    def density_constant(self, scale: float, reading: float) -> float:
        """What turns a squared residual of this scale into -2 ln density of the log reading."""
        share = scale if self.error == "log-normal" else scale / reading
        return 2.0 * math.log(share) + LOG_2PI

    def reading(self, level: float | Array, z: float | Array) -> Array:
        """Readings at a level for errors z of a standard normal distribution."""
        if self.error == "log-normal":
            return np.asarray(level * np.exp(self.sd * z))
        return np.asarray(level + self.scale(level, 0.0) * z)


@dataclass(frozen=True)
class Noise:
    """The spread of every observable or assay, and the grade scale if there are grades."""

    spreads: Mapping[str, Spread] = field(default_factory=dict)
    grade: GradeScale | None = None

    def spread(self, observation: Observation) -> Spread:
        """The spread of an observation: its own sd (log-normal), its assay's, its observable's.

        Raises
        ------
        UnknownNameError
            If neither is given.
        """
        if not math.isnan(observation.sd):
            return Spread(observation.sd)
        if observation.noise_entry not in self.spreads:
            raise unknown_name("noise entry", observation.noise_entry, self.spreads)
        spread = self.spreads[observation.noise_entry]
        return replace(spread, error="log-normal") if observation.kind in RATIOS else spread

    @property
    def estimated(self) -> frozenset[str]:
        """Names of the parameters that estimated standard deviations become."""
        each = self.spreads.items()
        return frozenset(f"{part}_{name}" for name, s in each if s.estimate for part in s.parts)

    def at(self, values: Mapping[str, float]) -> Noise:
        """The noise with the estimates of its standard deviations."""
        now = {name: spread.at(name, values) for name, spread in self.spreads.items()}
        return replace(self, spreads=now)

    def with_term(self, observations: Iterable[Observation]) -> list[Observation]:
        """The observations whose standard deviation is estimated or depends on the prediction."""
        exact = [o for o in observations if o.kind in EXACT_KINDS and
                 (o.noise_entry in self.spreads or not math.isnan(o.sd))]  # fmt: skip
        return [o for o in exact if (s := self.spread(o)).estimate
                or (s.error in ("proportional", "combined") and o.kind != "sometime")]  # fmt: skip


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
    """
    curve = _curve_in_window(observation, sim, observation.observable)
    if observation.kind in RATIOS:
        reference = float(_curve_on_days(sim, observation.observable, observation.reference)[0])
        return float(curve[0]) / reference if reference else math.inf
    if observation.kind == "sometime":
        misses = np.abs(log_level(curve, observation.value) - math.log(observation.value))
        return float(curve[int(np.argmin(misses))])
    if observation.kind == "peak":
        return float(_highest(observation, sim, observation.observable))
    return float(curve.max())


def residual_vector(observations: Iterable[Observation], sim: Curves, noise: Noise) -> Array:
    """All residuals of the observations, in order, then `_log_terms`: (n,), or (n_runs, n).

    Those of grades are as `grade_residuals`: each given the grades before it.
    """
    several = tuple(observations)
    grades = [o for o in several if o.kind == "grade"]
    each_grade = iter(np.moveaxis(_grade_residuals(grades, sim, noise), -1, 0) if grades else ())
    parts = [
        r
        for o in several
        for r in ((next(each_grade),) if o.kind == "grade" else residuals(o, sim, noise))
    ] + _log_terms(several, sim, noise)
    return np.stack(parts, axis=-1) if parts else np.zeros(0)


def residuals(observation: Observation, sim: Curves, noise: Noise) -> tuple[Array, ...]:
    """The residuals of one observation: two for a value on an unknown day, else one.

    Each is a number, or (n_runs,) for many runs.

    ==================================  ====================================================
    value, peak, ratio                  (ln observed - ln predicted)/sd, without ln if the error
                                        is not log-normal
    below, above, ratio_below, _above   sqrt(-2 ln P), P: probability beyond the limit
    sometime                            see `sometime_residuals`
    grade                               sqrt(-2 ln P), P: probability of that grade, whatever
                                        other grades are (`residual_vector`: given those before)
    ==================================  ====================================================
    """
    if observation.kind == "grade":
        return (_grade_residuals([observation], sim, noise)[..., 0],)
    deviations = _deviations(observation, sim, noise)
    if observation.kind == "sometime":
        return sometime_residuals(deviations)
    deviation = deviations.min(axis=-1)  # at the largest level for a peak; else there is one
    if observation.kind in BOUNDS:
        return (_bound_residual(deviation, below=observation.kind.endswith("below")),)
    return (deviation,)


def _deviations(observation: Observation, sim: Curves, noise: Noise) -> Array:
    """The errors in standard deviations, on each day of the window (the last axis)."""
    spread = noise.spread(observation).at(observation.noise_entry, sim.values)
    if spread.error == "log-normal":
        off = math.log(observation.value) - _log_predicted(observation, sim)
        return np.asarray(off / spread.sd)
    level = _levels(observation, sim)
    at = observation.value if observation.kind == "sometime" else level
    return np.asarray((observation.value - level) / spread.scale(at, observation.value))


def _log_terms(observations: Sequence[Observation], sim: Curves, noise: Noise) -> list[Array]:
    """sqrt(2 ln(s/least)) for each reading `with_term`; at least 1 between the bounds of s."""
    terms = []
    for o in noise.with_term(observations):
        spread, level = noise.spread(o), _levels(o, sim)[..., :1]
        at = np.full_like(level, o.value) if o.kind == "sometime" else level
        scale = spread.at(o.noise_entry, sim.values).scale(at, o.value)
        square = 2.0 * np.log(scale / spread.least(o.value))
        terms.append(np.broadcast_to(np.sqrt(np.maximum(square, 1e-6)), level.shape)[..., 0])
    return terms


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

    The days are the last axis; the likelihood is the mean over the window. With w the probability
    of each day given the reading, -2 ln mean exp(-e^2/2) = (mean of e)^2 + variance of e
    + 2 KL(w, uniform), with moments under w. The first residual is the mean, smooth where a plain
    root would have a kink. The second is the root of the rest, kept smooth by a constant 1e-6.
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
    if observation.kind in RATIOS:
        curve = _curve_in_window(observation, sim, observation.observable)
        reference = _curve_on_days(sim, observation.observable, observation.reference)
        scale = np.maximum(np.abs(curve), np.abs(reference))
        scale = np.where(scale > 0.0, scale, 1.0)
        return log_level(curve, scale) - log_level(reference, scale)
    return log_level(_levels(observation, sim), observation.value)


def _levels(observation: Observation, sim: Curves) -> Array:
    """The levels to compare with a reading, on each day of its window; of a peak, the highest."""
    if observation.kind == "peak":
        return _highest(observation, sim, observation.observable)[..., None]
    return _curve_in_window(observation, sim, observation.observable)


def _curve_in_window(observation: Observation, sim: Curves, name: str) -> Array:
    """A curve over the observation's window."""
    return _curve_on_days(sim, name, observation.day, observation.until)


def _highest(observation: Observation, sim: Curves, name: str) -> Array:
    """The largest level in the observation's window, just after a dose and between samples too."""
    curve = _curve_in_window(observation, sim, name)
    if observation.until <= observation.day or not hasattr(sim, "dense"):
        return np.asarray(curve.max(axis=-1))
    return np.asarray(peak(sim, name, observation.day, observation.until))


def _curve_on_days(sim: Curves, name: str, first: float, last: float | None = None) -> Array:
    """A curve over a window, or on one day, (..., n_days)."""
    days = _window(first, first if last is None else last)
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
    """Residuals of all grades of a patient, (..., n_grades), each given those before it."""
    scale = noise.grade
    if scale is None:
        raise InputError(f"{grades[0].id} is a grade, but the noise has no grade scale; add one")
    limits = [_limits(grade, sim, scale) for grade in grades]
    low, high = (np.stack(side, axis=-1) for side in zip(*limits, strict=True))
    return grade_residuals(low, high, [0.5 * (g.day + g.until) for g in grades], scale)


def grades_given_others(
    observations: Iterable[Observation], ids: Collection[str], sim: Curves, noise: Noise
) -> dict[str, Array]:
    """The residual of each of these grades given all others, of earlier and later days.

    The others are the grades that are none of these: sqrt(-2 ln (P(others and it) / P(others))).
    """
    grades = [o for o in observations if o.kind == "grade"]
    others = [o for o in grades if o.id not in ids]

    def square(*several: Observation) -> Array:
        found = _grade_residuals(several, sim, noise) if several else np.zeros(1)
        return np.asarray(np.sum(found**2, axis=-1))

    without = square(*others)
    return {
        o.id: np.sqrt(np.maximum(square(*others, o) - without, 0.0))
        for o in grades if o.id in ids
    }  # fmt: skip


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
    return _curve_on_days(sim, name, observation.day)[..., 0]
