"""Fit problems small enough to have known answers, shared by the tests of fitting."""

from __future__ import annotations

import math

from small_models import small

from crs_sim.dosing.scenario import Scenario
from crs_sim.fitting.noise import GradeScale, Noise, Spread
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import FitProblem
from crs_sim.model.model import Model
from crs_sim.patients.patient import Observation, Observations, Patient

CUTS = {"grade_1": 1.0, "grade_2": 2.0, "grade_3": 4.0, "grade_4": 8.0}
DECAY = small(
    "decay",
    {"A": ("a0", "-k*A")},
    {"k": 0.5, "a0": 10.0, "gain": 3.0, **CUTS},
    {
        "signal": "gain*A",
        "crs_grade": "reached(A, grade_1) + reached(A, grade_2) + reached(A, grade_3)"
        " + reached(A, grade_4)",
    },
)
NOISE = Noise({"A": Spread(0.2, "a test"), "signal": Spread(0.1, "a test")})
GRADED = Noise(NOISE.spreads, GradeScale("A", tuple(CUTS), 0.5))


def seen(
    id: str,
    observable: str,
    day: float,
    value: float,
    kind: str = "value",
    *,
    until: float | None = None,
) -> Observation:
    """An observation without a reference or a spread of its own."""
    last = day if until is None else until
    return Observation(id, observable, kind, day, last, math.nan, value, "mg")


LEVELS = (
    seen("first", "A", 0.0, 12.0),
    seen("third", "A", 3.0, 1.9),
    seen("amplified", "signal", 1.0, 24.0),
)


def free(name: str, median: float, sd: float, factor: float = 100.0) -> Free:
    """A free parameter with bounds far on both sides of its prior."""
    return Free(name, median / factor, median * factor, median, sd, "a test")


def asked(
    *frees: Free,
    observations: tuple[Observation, ...] = LEVELS,
    noise: Noise = NOISE,
    model: Model = DECAY,
    **more: object,
) -> FitProblem:
    """A problem about one untreated patient."""
    patient = Patient("p", "decay", Scenario("untreated"), Observations(observations))
    return FitProblem("small", model, patient, frees, noise, **more)  # type: ignore[arg-type]
