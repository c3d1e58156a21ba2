"""Observed peaks are those of the solution: just after a dose and between samples, with slopes."""

import math

import numpy as np
import pytest

from crs_sim import Dose, Scenario, Schedule, load_model
from crs_sim.fitting.noise import Noise, Spread, predicted
from crs_sim.fitting.objective import Objective, curves
from crs_sim.fitting.problem import FitProblem, Free
from crs_sim.patients.patient import Observation, Observations, Patient

MODEL = load_model("one_compartment")
K, KA, LAG = 2.4, 24.0, 0.02
TOP = LAG + math.log(KA / K) / (KA - K)
ORAL = 80 * KA / 30 / (KA - K) * (math.exp(-K * (TOP - LAG)) - math.exp(-KA * (TOP - LAG)))
RIGHT = {"iv": 100 / 30, "oral": ORAL}


def asked(drug, day=0.0):
    """A peak reported for the day on which a dose is given, and the level a day later."""
    doses = Schedule((Dose(day, drug, 100, "mg"),))
    seen = (
        Observation("cmax", "c_central", "peak", 0.0, 2.0, math.nan, RIGHT[drug], "mg/L"),
        Observation("c1", "c_central", "value", 2.0, 2.0, math.nan, 0.1, "mg/L"),
    )
    patient = Patient("p", MODEL.name, Scenario("p", doses), Observations(seen))
    free = tuple(
        Free(name, 1e-4, 1e4, MODEL.values[name], 1.0, "test")
        for name in ("cl", "v", "ka", "lag_oral")
    )
    return FitProblem("p", MODEL, patient, free, Noise({"c_central": Spread(0.01)}))


@pytest.mark.parametrize("day", [0.0, 0.33, 0.501])
@pytest.mark.parametrize("drug", RIGHT)
def test_a_predicted_peak_is_the_closed_form(drug, day):
    problem = asked(drug, day)
    objective = Objective(problem)
    run = curves(problem, {}, objective.days)
    peak = problem.patient.observations["cmax"]
    assert predicted(peak, run) == pytest.approx(RIGHT[drug], rel=1e-6)
    x = np.log([MODEL.values[name] for name in problem.names])
    assert abs(objective.residuals(x)[0]) < 1e-6 / 0.01


@pytest.mark.parametrize("drug", RIGHT)
def test_its_slopes_are_those_of_the_closed_form(drug):
    problem = asked(drug, 0.33)
    objective = Objective(problem)
    x = np.log([MODEL.values[name] for name in problem.names])
    found = dict(zip(problem.names, objective.jacobian(x)[0] * -0.01, strict=True))
    ratio = KA / K
    if drug == "iv":
        right = {"cl": 0.0, "v": -1.0, "ka": 0.0, "lag_oral": 0.0}
    else:  # ln peak = -ln v - ln(ka/k)/(ka/k - 1), by the logarithm of ka/k
        by_ratio = -(1 / (ratio - 1)) + ratio * math.log(ratio) / (ratio - 1) ** 2
        right = {"cl": -by_ratio, "v": by_ratio - 1, "ka": by_ratio, "lag_oral": 0.0}
    for name, value in right.items():
        assert found[name] == pytest.approx(value, abs=2e-5), name
