"""What a measurement says of a simulated curve: residuals whose squares sum to -2 log-likelihood.

Every kind is smooth in the curve, also where a prediction is hopeless, zero or a rounding error
below zero, so that least squares can find its way back; none is all or nothing. Errors are
log-normal with a spread (standard deviation of the natural logarithm) for each observable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from .errors import InputError, unknown_name
from .patient import Observation
from .simulation import Simulation

Array = NDArray[np.float64]

SAMPLES_PER_DAY = 20
FLOOR = 1e-9
"""Below this fraction of the observed level a curve is solver noise: its logarithm bends there."""
SAME_DAY = 1e-9
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
RATIOS = ("ratio", "ratio_below", "ratio_above")
BOUNDS = ("below", "above", "ratio_below", "ratio_above")


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the natural logarithm of a reading (0.2: about 20 %), and its source.

    It holds assay error and everything the model leaves out.
    """

    sd: float
    source: str = ""


@dataclass(frozen=True)
class GradeScale:
    """How grades arise: cut-points on a latent quantity that is read with a normal error.

    Parameters
    ----------
    latent : str, a quantity or state of the model
    cuts : ids of four parameters, or quantities of parameters, ascending; grade g is a reading
        from cut g up to cut g+1
    sd : float, standard deviation of the reading, in the latent quantity's unit
    """

    latent: str
    cuts: tuple[str, ...]
    sd: float
    source: str = ""


@dataclass(frozen=True)
class Noise:
    """The spread of every observable, and the scale of the grades if there are any."""

    spreads: Mapping[str, Spread] = field(default_factory=dict)
    grade: GradeScale | None = None

    def sd(self, observation: Observation) -> float:
        """The observation's own spread if it has one, else that of its observable.

        Raises
        ------
        UnknownNameError
            If neither is there.
        """
        if not math.isnan(observation.sd):
            return observation.sd
        if observation.observable not in self.spreads:
            raise unknown_name("noise entry", observation.observable, self.spreads)
        return self.spreads[observation.observable].sd


def days_needed(observations: Iterable[Observation]) -> Array:
    """The days at which a run must be sampled to be compared: (n,) ascending, no two alike.

    Windows are sampled at every whole twentieth of a day, and at both ends.
    """
    days = [d for o in observations for d in (*_window(o.day, o.until), o.reference)]
    return np.unique(np.array([d for d in days if not math.isnan(d)], dtype=np.float64))


@lru_cache(maxsize=4096)
def _window(first: float, last: float) -> Array:
    """Both ends and the twentieths between; k/20 is one and the same float in every window."""
    lowest, highest = math.ceil(first * SAMPLES_PER_DAY), math.floor(last * SAMPLES_PER_DAY)
    grid = (k / SAMPLES_PER_DAY for k in range(lowest, highest + 1))
    inside = (day for day in grid if first + SAME_DAY < day < last - SAME_DAY)
    days = np.array([first, *inside, last] if last > first else [first])
    days.flags.writeable = False
    return days


def predicted(observation: Observation, sim: Simulation) -> float:
    """What the run gives for the observation, in the observation's unit.

    A value on an unknown day is the one in its window closest to the observed.

    Raises
    ------
    InputError
        If the run was not sampled on one of the `days_needed`.
    """
    curve = _during(observation, sim, observation.observable)
    if observation.kind in RATIOS:
        reference = float(_on(sim, observation.observable, observation.reference)[0])
        return float(curve[0]) / reference if reference else math.inf
    if observation.kind == "sometime":
        misses = np.abs(log_level(curve, observation.value) - math.log(observation.value))
        return float(curve[int(np.argmin(misses))])
    return float(curve.max())


def residual(observation: Observation, sim: Simulation, noise: Noise) -> float:
    """One number for a table: its square is the observation's -2 log-likelihood, up to a constant.

    Positive where the reading is above the run (grades: always positive). Fitting uses
    `residuals`, of which this is the signed length.
    """
    parts = residuals(observation, sim, noise)
    return math.copysign(math.sqrt(sum(part * part for part in parts)), parts[0])


def residual_vector(
    observations: Iterable[Observation], sim: Simulation, noise: Noise
) -> Array:
    """All residuals of all observations, (n,), in their order."""
    return np.array([r for o in observations for r in residuals(o, sim, noise)], dtype=np.float64)


def residuals(observation: Observation, sim: Simulation, noise: Noise) -> tuple[float, ...]:
    """The residuals of one observation: two for a value on an unknown day, else one.

    ==================================  ====================================================
    value, peak, ratio                  (ln observed - ln predicted)/sd
    below, above, ratio_below, _above   sqrt(-2 ln P), P: chance of a reading beyond the limit
    sometime                            see `sometime_residuals`
    grade                               sqrt(-2 ln P), P: chance of that grade (ordinal probit)
    ==================================  ====================================================

    Raises
    ------
    InputError
        If the run was not sampled on a day the observation needs.
    """
    if observation.kind == "grade":
        return (_grade_residual(observation, sim, noise),)
    sd = noise.sd(observation)
    deviations = (math.log(observation.value) - _log_predicted(observation, sim)) / sd
    if observation.kind == "sometime":
        return sometime_residuals(deviations)
    deviation = float(deviations.min())  # at the largest level of a peak; else the only one
    if observation.kind in BOUNDS:
        return (_bound_residual(deviation, below=observation.kind.endswith("below")),)
    return (deviation,)


def log_level(level: Array, observed: float) -> Array:
    """ln(level), bent smoothly where level falls under a billionth of the observed one.

    There it goes on falling, ever more slowly, through zero and below: ``ln f + asinh(x/2f)``.

    >>> float(log_level(np.array([5.0]), 10.0)[0]) - math.log(5.0) < 1e-11
    True
    """
    floor = FLOOR * observed
    return math.log(floor) + np.arcsinh(level / (2.0 * floor))


def sometime_residuals(deviations: Array) -> tuple[float, float]:
    """Residuals of a reading on an unknown day, from its deviations (in sd) on each day: (n,).

    The likelihood is the mean over the window. With w the chance of each day given the reading,
    -2 ln mean exp(-e^2/2) = (mean of e)^2 + variance of e + 2 KL(w, uniform), moments under w.
    The first residual is the mean: it keeps its sign and its slope where the curve is flat and
    right, where a plain square root would have a kink. The second is the root of the rest; a
    constant 1e-6 under that root keeps it smooth.
    """
    weights = _trapezoid(deviations.size)
    logs = -0.5 * deviations**2
    top = float(logs.max())
    scaled = weights * np.exp(logs - top)
    total = float(scaled.sum())
    chance = scaled / total
    mean = float(chance @ deviations)
    variance = float(chance @ (deviations - mean) ** 2)
    divergence = float(chance @ (logs - top)) - math.log(total)
    return mean, math.sqrt(variance + 2.0 * max(divergence, 0.0) + 1e-6)


@lru_cache(maxsize=256)
def _trapezoid(n: int) -> Array:
    """Weights (n,) that sum to one; the ends count half."""
    weights = np.ones(n)
    if n > 1:
        weights[[0, -1]] = 0.5
    weights /= weights.sum()
    weights.flags.writeable = False
    return weights


def _log_predicted(observation: Observation, sim: Simulation) -> Array:
    curve = _during(observation, sim, observation.observable)
    if observation.kind in RATIOS:
        reference = _on(sim, observation.observable, observation.reference)
        scale = max(abs(float(curve[0])), abs(float(reference[0]))) or 1.0
        return log_level(curve, scale) - log_level(reference, scale)
    return log_level(curve, observation.value)


def _during(observation: Observation, sim: Simulation, name: str) -> Array:
    """A curve over the observation's window."""
    return _sampled(sim, name, _window(observation.day, observation.until))


def _on(sim: Simulation, name: str, day: float) -> Array:
    """A curve on one day, (1,)."""
    return _sampled(sim, name, _window(day, day))


def _sampled(sim: Simulation, name: str, days: Array) -> Array:
    rows = sim.days.searchsorted(days)
    if rows[-1] >= sim.days.size or (sim.days[rows] != days).any():
        raise InputError(
            f"{name} is observed from day {days[0]:g} to {days[-1]:g}, where the run was not "
            "sampled; run it with days=days_needed(observations)"
        )
    return sim[name][rows]


def _bound_residual(deviation: float, *, below: bool) -> float:
    """Root of -2 ln P(reading beyond the limit); `deviation` is (ln limit - ln predicted)/sd."""
    if below:
        return -math.sqrt(-2.0 * float(log_ndtr(deviation)))
    return math.sqrt(-2.0 * float(log_ndtr(-deviation)))


def _grade_residual(observation: Observation, sim: Simulation, noise: Noise) -> float:
    scale = noise.grade
    if scale is None:
        raise InputError(f"{observation.id} is a grade, and the noise has no grade scale; add one")
    level = float(_during(observation, sim, scale.latent).max())
    grade = int(observation.value)
    low = _cut(observation, sim, scale.cuts[grade - 1]) if grade > 0 else -math.inf
    high = _cut(observation, sim, scale.cuts[grade]) if grade < len(scale.cuts) else math.inf
    low, high = (low - level) / scale.sd, (high - level) / scale.sd
    return math.sqrt(-2.0 * log_chance_between(low, high))


def _cut(observation: Observation, sim: Simulation, name: str) -> float:
    if name in sim.model.values:
        return sim.model.values[name]
    return float(_on(sim, name, observation.day)[0])


def log_chance_between(low: float, high: float) -> float:
    """ln P(low < Z < high) for a standard normal Z; exact in both tails and for narrow intervals.

    Should a fit put the limits the wrong way round, the width bends to a small positive number
    (as in `log_level`), so that the way back can be felt.

    >>> round(math.exp(log_chance_between(-1.0, 1.0)), 6)
    0.682689
    """
    if math.isinf(low):
        return float(log_ndtr(high))
    if math.isinf(high):
        return float(log_ndtr(-low))
    middle = 0.5 * (low + high)
    width = FLOOR * math.exp(math.asinh((high - low) / (2.0 * FLOOR)))
    if width * max(1.0, abs(middle)) < 1e-4:
        return -0.5 * middle * middle - HALF_LOG_2PI + math.log(width)
    outside = float(ndtr(low) + ndtr(-high))
    if outside < 0.5:
        return math.log1p(-outside)
    near, far = (-high, -low) if low + high > 0 else (low, high)
    less, more = float(log_ndtr(near)), float(log_ndtr(far))
    return more + math.log(-math.expm1(less - more))
