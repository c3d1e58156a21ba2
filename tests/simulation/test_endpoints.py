"""Endpoints against closed forms, whatever the samples: bolus, infusion, oral, two compartments."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from small_models import small

from crs_sim import Dose, Scenario, Schedule, load_model
from crs_sim.errors import InputError
from crs_sim.simulation.batches import simulate_many
from crs_sim.simulation.endpoints import (
    Endpoint,
    auc,
    day_of_peak,
    days_above,
    endpoint,
    level_on,
    peak,
    vasopressor_days,
    worst_grade,
)
from crs_sim.simulation.ensemble import Sampling
from crs_sim.simulation.simulation import simulate

MODEL = load_model("one_compartment")
K, V, KA, LAG, CL = 2.4, 30.0, 24.0, 0.02, 72.0
HALF = 0.5 / 24


def bolus(t):
    return 100 / V * np.exp(-K * t)


def infusion(t):
    rise = 1 - np.exp(-K * min(t, HALF))
    return 100 / HALF / CL * rise * np.exp(-K * max(t - HALF, 0))


def oral(t):
    since = max(t - LAG, 0)
    return 80 * KA / V / (KA - K) * (np.exp(-K * since) - np.exp(-KA * since))


KINDS = {
    "bolus": (Dose(0, "iv", 100, "mg"), bolus, 0.0, 100 / CL),
    "infusion": (Dose(0, "iv", 100, "mg", 0.5), infusion, HALF, 100 / CL),
    "oral": (Dose(0, "oral", 100, "mg"), oral, LAG + np.log(KA / K) / (KA - K), 80 / CL),
}


def given(dose, by=0.0):
    return Scenario("given", Schedule((dose,))) if not by else Scenario(
        "moved", Schedule((Dose(by, dose.drug, dose.amount, dose.unit, dose.hours),))
    )  # fmt: skip


@pytest.mark.parametrize("every", [1, 6, 48, 960])
@pytest.mark.parametrize("kind", KINDS)
def test_of_one_run(kind, every):
    dose, level, top, area = KINDS[kind]
    run = simulate(MODEL, given(dose), until=40, every_hours=every, rtol=1e-7)
    c = "c_central"
    assert peak(run, c) == pytest.approx(level(top), rel=1e-6)
    assert day_of_peak(run, c) == pytest.approx(top, abs=1e-5)
    assert auc(run, c) == pytest.approx(area, rel=1e-9)
    for first, last in ((1.1, 2.3), (0.9, 1.1), (1.0, 1.2), (1.0, 1.0 + 1e-3)):
        right = quad(level, first, last, epsabs=0, epsrel=1e-12)[0]
        assert auc(run, c, first, last) == pytest.approx(right, rel=1e-6)
        assert peak(run, c, first, last) == pytest.approx(level(first), rel=1e-6)
    assert level_on(run, c, 0.45) == pytest.approx(level(0.45), rel=1e-6)
    down = brentq(lambda t: level(t) - 0.5, top, 3)
    up = brentq(lambda t: level(t) - 0.5, LAG if kind == "oral" else 0, top) if top else 0.0
    assert days_above(run, c, 0.5) == pytest.approx(down - up, abs=1e-6)


@pytest.mark.parametrize("method", ["LSODA", "BDF", "Radau"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_run_of_scipys_methods(kind, method):
    dose, level, top, area = KINDS[kind]
    run = simulate(MODEL, given(dose), until=4, every_hours=48, method=method, rtol=1e-8)
    assert peak(run, "c_central") == pytest.approx(level(top), rel=1e-5)
    left = quad(level, 4, 40)[0]
    assert auc(run, "c_central") == pytest.approx(area - left, rel=1e-5)


@pytest.mark.parametrize("by", [0.125, 0.1, 1 / 6, 0.25])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dose_at_another_hour_has_the_same_peak_and_area(kind, by):
    dose, level, top, area = KINDS[kind]
    run = simulate(MODEL, given(dose, by), until=40)
    assert peak(run, "c_central") == pytest.approx(level(top), rel=1e-6)
    assert day_of_peak(run, "c_central") == pytest.approx(top + by, abs=1e-5)
    assert auc(run, "c_central") == pytest.approx(area, rel=1e-9)


@pytest.mark.parametrize("every", [6, 960])
@pytest.mark.parametrize("kind", KINDS)
def test_of_many_runs(kind, every):
    dose, level, top, area = KINDS[kind]
    names = ("peak_c_central", "auc_c_central", "day_of_peak_c_central", "c_central_d0.45")
    above = Endpoint("above", "", "day", "c_central", lambda run: days_above(run, "c_central", 0.5))
    ends = [*(endpoint(MODEL, name) for name in names), above]
    sampling = Sampling(until=40, every_hours=every, outputs=(), endpoints=ends, rtol=1e-6)
    many = simulate_many(MODEL, given(dose), {"cl": [CL] * 3}, sampling=sampling, workers=1)
    one = simulate(MODEL, given(dose), until=40, rtol=1e-8)
    right = [level(top), area, top, level(0.45), days_above(one, "c_central", 0.5)]
    for end, value in zip(ends, right, strict=True):
        assert many.endpoint(end.name) == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_of_two_compartments():
    model = load_model("two_compartment")
    v = model.values
    k10, k12, k21 = v["cl"] / v["v1"], v["q"] / v["v1"], v["q"] / v["v2"]
    run = simulate(model, given(Dose(0, "iv", 100, "mg")), until=60, every_hours=48, rtol=1e-7)
    assert peak(run, "c_central") == pytest.approx(100 / v["v1"], rel=1e-9)
    matrix = np.array([[-k10 - k12, k21], [k12, -k21]])
    values, vectors = np.linalg.eig(matrix)
    weights = np.linalg.solve(vectors, [100.0, 0.0])

    def amount(t, k):
        return float(vectors[k] @ (weights * np.exp(values * t)))

    def integral(first, last):
        return float(vectors[0] @ (weights * (np.exp(values * last) - np.exp(values * first))
                                   / values)) / v["v1"]  # fmt: skip

    assert auc(run, "c_central", 0.3, 1.7) == pytest.approx(integral(0.3, 1.7), rel=1e-6)
    found = minimize_scalar(lambda t: -amount(t, 1), bounds=(0, 3), options={"xatol": 1e-10})
    assert peak(run, "PERIPHERAL") == pytest.approx(-found.fun, rel=1e-6)


def test_a_step_function_is_cut_at_its_thresholds():
    rising = {"crs_grade": "reached(A, 0.3) + reached(A*2, 1.1) + reached(A, 0.777)"}
    model = small("hump", {"A": ("0", "k - k*B"), "B": ("0", "1")}, {"k": 1.6}, rising)

    def latent(t):
        return 1.6 * (t - t * t / 2)

    def times(level):
        half = np.sqrt(1 - level / 0.8)
        return 2 * half if level < 0.8 else 0.0

    for every in (1, 7, 48):
        run = simulate(model, until=2, every_hours=every)
        assert worst_grade(run) == 3
        assert vasopressor_days(run) == pytest.approx(times(0.777), abs=1e-7)
        area = times(0.3) + times(0.55) + times(0.777)
        assert auc(run, "crs_grade") == pytest.approx(area, abs=1e-7)
        assert day_of_peak(run, "crs_grade") == pytest.approx(1 - times(0.777) / 2, abs=1e-7)


def test_a_peak_between_two_samples_and_one_at_either_end_of_the_run():
    wave = small("wave", {"A": ("0", "k*B"), "B": ("1", "-k*A")}, {"k": 1.0})
    run = simulate(wave, until=6, every_hours=960)
    assert peak(run, "A") == pytest.approx(1, rel=1e-6)
    assert day_of_peak(run, "A") == pytest.approx(np.pi / 2, abs=1e-5)
    assert day_of_peak(run, "A", 3) == pytest.approx(3.0 if np.sin(3) > np.sin(6) else 6.0)
    assert days_above(run, "A", 0.5) == pytest.approx(np.pi * 2 / 3, abs=1e-6)


def test_a_level_on_the_day_of_a_dose_is_before_it_and_a_window_ends_before_it():
    run = simulate(MODEL, given(Dose(1, "iv", 100, "mg")), until=2)
    assert level_on(run, "c_central", 1) == 0
    assert peak(run, "c_central", 0, 1) == 0
    assert peak(run, "c_central", 1, 1.5) == pytest.approx(100 / V, rel=1e-9)


@pytest.mark.parametrize("window", [(2, 10), (-2, 1), (3, 2), (5, 6)])
def test_a_window_beyond_the_run_is_refused(window):
    run = simulate(MODEL, given(Dose(0, "iv", 100, "mg")), until=4)
    for of in (auc, peak, day_of_peak):
        with pytest.raises(InputError, match=r"is asked for, but the run covers day 0 to 4"):
            of(run, "c_central", *window)
    with pytest.raises(InputError, match="run covers day 0 to 4"):
        level_on(run, "c_central", 4.5)


def test_days_above_no_number_is_refused():
    run = simulate(load_model("one_compartment"), until=1)
    with pytest.raises(InputError, match="days above a level of c_central: the level is nan"):
        days_above(run, "c_central", float("nan"))
    assert days_above(run, "c_central", float("inf")) == 0.0
