"""A problem whose posterior is a normal distribution known in closed form, for the sampler."""

from __future__ import annotations

import numpy as np
from small_fits import asked, free, seen

from crs_sim.uncertainty.posterior import SamplePlan
from crs_sim.uncertainty.sampler import PosteriorMode

FREES = (free("a0", 10.0, 0.5), free("gain", 3.0, 0.4))
READINGS = (
    seen("first", "A", 0.0, 12.0),
    seen("second", "A", 0.0, 9.0),
    seen("amplified", "signal", 0.0, 24.0),
)
SHORT = SamplePlan(draws=12, thin=2, groups=2, walkers=8)


def linear(**more):
    """A problem whose posterior is a normal distribution: all readings are of day 0."""
    return asked(*FREES, observations=READINGS, **more)


def exact(problem) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of its log parameters."""
    # ln A = ln a0 (twice, sd 0.2); ln signal = ln a0 + ln gain (sd 0.1)
    design = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    weights = np.array([0.2, 0.2, 0.1]) ** -2.0
    data = np.log([o.value for o in problem.patient.observations])
    prior = np.diag([f.sd**-2.0 for f in problem.free])
    centre = np.log([f.median for f in problem.free])
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design) + prior)
    return covariance @ (design.T @ (weights * data) + prior @ centre), covariance


def around(problem) -> PosteriorMode:
    mean, covariance = exact(problem)
    return PosteriorMode(problem, mean[None], covariance)
