"""Lags and steady states through fits, ensembles and exports: a dose may move with a parameter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError
from crs_sim.exchange.petab_experiments import regimen
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.objective import Objective
from crs_sim.fitting.priors import Free
from crs_sim.fitting.problem import FitProblem
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import Observation, Observations, Patient
from crs_sim.simulation.batches import simulate_many
from crs_sim.simulation.ensemble import Sampling
from crs_sim.simulation.simulation import simulate

ONE = load_model("one_compartment")
ORAL = Scenario("oral", Schedule((Dose(0, "oral", 100, hours=0), Dose(0.5, "oral", 50, hours=0))))
STEADY = Scenario("steady", Schedule((Dose(0, "oral", 100, hours=0, steady="alone", every=12),)))
TRUE = {"cl": 60.0, "ka": 20.0, "lag_oral": 0.031}
DAYS = (0.04, 0.06, 0.1, 0.2, 0.35, 0.5, 0.6, 0.8, 1.0, 1.4)


def problem(scenario, names=tuple(TRUE)):
    """Synthetic levels without noise, from known values."""
    run = simulate(ONE.with_values(**TRUE), scenario, days=DAYS, rtol=1e-9)
    seen = [Observation(f"o{k}", "c_central", "value", day, day, math.nan, float(level), "mg_per_L")
            for k, (day, level) in enumerate(zip(DAYS, run["c_central"], strict=True))]  # fmt: skip
    patient = Patient("p", "one_compartment", scenario, Observations(tuple(seen)))
    frees = tuple(Free(n, ONE.values[n] / 50, ONE.values[n] * 50, ONE.values[n], 3.0, "a test")
                  for n in names)  # fmt: skip
    return FitProblem("moving", ONE, patient, frees, Noise({"c_central": Spread(0.05, "a test")}))


@pytest.mark.parametrize("scenario", [ORAL, STEADY], ids=lambda s: s.name)
def test_a_free_lag_is_found(scenario):
    result = fit(problem(scenario), starts=2, seed=1, workers=1)
    for name, value in TRUE.items():
        assert result.values[name] == pytest.approx(value, rel=2e-2)


def test_slopes_of_the_residuals_are_those_of_differences():
    asked = problem(ORAL)
    objective = Objective(asked, rtol=1e-10)
    x = np.log([70.0, 22.0, 0.027])
    slopes = objective.jacobian(x)[: len(DAYS)]
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        difference = (objective.attempt(x + step) - objective.attempt(x - step)) / 2e-5
        assert slopes[:, k] == pytest.approx(difference, rel=2e-3, abs=2e-2)


def test_members_with_lags_of_their_own():
    values = {"lag_oral": np.array([0.01, 0.05, 0.01, 0.3]), "cl": np.array([60, 70, 80, 90.0])}
    sampling = Sampling(days=DAYS, outputs=("c_central",), rtol=1e-8)
    many = simulate_many(ONE, (ORAL, STEADY), values, sampling=sampling)
    for k in range(4):
        model = ONE.with_values(**{name: float(v[k]) for name, v in values.items()})
        for scenario in (ORAL, STEADY):
            alone = simulate(model, scenario, days=DAYS, rtol=1e-8)["c_central"]
            assert many.course("c_central", scenario.name)[k] == pytest.approx(
                alone, rel=1e-6, abs=1e-9)  # fmt: skip


def test_a_member_without_steady_state_is_named():
    values = {"cl": np.array([60.0, 0.0])}
    sampling = Sampling(days=DAYS, outputs=("c_central",))
    (failure,) = simulate_many(ONE, STEADY, values, sampling=sampling).failures
    assert failure.member == 1 and failure.day == 0.0
    assert "CENTRAL never becomes steady" in failure.reason


@pytest.mark.parametrize(
    ("scenario", "names", "words"),
    [
        (STEADY, ("cl",), "a reset or a steady state .* cannot be expressed in PEtab"),
        (Scenario("back", resets=(1.0,)), ("cl",), "a reset or a steady state"),
        (ORAL, ("lag_oral",), "lag_oral is free and shifts dose times, which PEtab cannot express"),
        (ORAL.with_changes(Change("f_oral", first=0.3, factor=0.5)), ("cl",),
         "doses follow a change of f_oral, which the export does not support"),
    ],
)  # fmt: skip
def test_what_petab_cannot_state_is_refused(scenario, names, words):
    seen = problem(ORAL).patient.observations
    patient = Patient("p", "one_compartment", scenario, seen)
    frees = problem(ORAL, names).free
    asked = FitProblem("e", ONE, patient, frees, Noise({"c_central": Spread(0.05, "a test")}))
    with pytest.raises(InputError, match=words):
        regimen(asked, DAYS)
