"""Each drug of the case against published exposures that were not used to choose its parameters.

Where a study reports a spread, the model's typical patient lies within one standard deviation (or
the stated range); where it reports a typical value alone, within 25 %. Healthy subjects and
patients without CRS are the model without CAR-T cells; critical illness is switched on by a
vanishing ``shock_ill``. The numbers stand with their sources beside each test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.model.model_file import load_model
from crs_sim.simulation.simulation import Simulation, simulate

MODEL = load_model("crs")
ILL = {"shock_ill": 1e-6}
PER_DAY = 24.0


def give(doses: Schedule | Dose, days: np.ndarray, **values: float) -> Simulation:
    """A subject without CAR-T cells under these doses."""
    schedule = doses if isinstance(doses, Schedule) else Schedule((doses,))
    return simulate(MODEL, Scenario("exposure", schedule, (), values), days=days)


def area(sim: Simulation, name: str) -> float:
    """Area under the curve over the days sampled (linear trapezoid, dense samples)."""
    return float(np.trapezoid(sim[name], sim.days))


def half_life(sim: Simulation, name: str, first: float, last: float) -> float:
    """Days in which the concentration halves between two sampled days."""
    ratio = sim.at(first)[name][0] / sim.at(last)[name][0]
    return (last - first) * math.log(2) / math.log(ratio)


@pytest.mark.parametrize(("dose", "cmax", "sd"), [(8, 183, 85.6), (8, 182, 50.4), (4, 83.8, 23.1)])
def test_tocilizumab_steady_state_peak(dose: float, cmax: float, sd: float) -> None:
    """US and Swiss labels, rheumatoid arthritis, every four weeks."""
    doses = Dose(0, "tocilizumab", dose, "mg/kg").repeated(28 * 24, 7)
    sim = give(doses, np.arange(168, 196.001, 1 / 24))
    assert sim["c_tocilizumab"].max() == pytest.approx(cmax, abs=sd)


def test_tocilizumab_steady_state_trough_and_area() -> None:
    """US label: trough 9.74 +- 10.5 ug/mL, AUC over 4 weeks 35,000 +- 15,500 ug.h/mL."""
    doses = Dose(0, "tocilizumab", 8, "mg/kg").repeated(28 * 24, 7)
    sim = give(doses, np.arange(168, 196.001, 1 / 24))
    assert sim["c_tocilizumab"][-1] == pytest.approx(9.74, abs=10.5)
    assert area(sim, "c_tocilizumab") * PER_DAY == pytest.approx(35000, abs=15500)


def test_tocilizumab_in_intensive_care() -> None:
    """https://doi.org/10.1007/s40262-021-01074-2: 754 mg once, AUC 938 +- 190 ug.day/mL."""
    sim = give(Dose(0, "tocilizumab", 754, "mg"), np.arange(0, 120.01, 0.05), **ILL)
    assert area(sim, "c_tocilizumab") == pytest.approx(938, abs=190)


@pytest.mark.parametrize(
    ("ifng", "litres_per_hour"), [(1e3, 0.00218), (1e4, 0.00308), (1e5, 0.00623), (1e6, 0.01718)]
)
def test_emapalumab_clearance_of_an_infant(ifng: float, litres_per_hour: float) -> None:
    """https://doi.org/10.1007/s40744-024-00669-y: 1 year, 10 kg, by total IFN-g in pg/mL."""
    sim = give(Schedule(), np.array([0.0]), weight=10, age=1, ifng_0=ifng)
    assert sim["cl_ema_now"][0] / PER_DAY == pytest.approx(litres_per_hour, rel=0.01)


def test_emapalumab_in_haemophagocytic_children() -> None:
    """2018 label: 1 mg/kg every 3 days; steady-state peak 44, trough 25 ug/mL (medians)."""
    doses = Dose(0, "emapalumab", 1, "mg/kg").repeated(72, 14)
    sim = give(doses, np.arange(36, 42.001, 1 / 24), weight=10, age=1, ifng_0=1e3)
    before_last = sim["c_emapalumab"][sim.days <= 39]
    assert before_last.max() == pytest.approx(44, rel=0.25)
    assert sim.at(39)["c_emapalumab"][0] == pytest.approx(25, rel=0.25)


def test_rimiducid_is_linear_and_falls_as_published() -> None:
    """Iuliucci 2001: 0.01 mg/kg gives about 10, 1 mg/kg 1,275 ng/mL; 18, 7, 1 % at 0.5, 2, 10 h."""
    hours = np.array([0, 2, 2.5, 4, 12]) / 24
    low = give(Dose(0, "rimiducid", 0.01, "mg/kg"), hours)["c_rimiducid"]
    high = give(Dose(0, "rimiducid", 1, "mg/kg"), hours)["c_rimiducid"]
    assert high[1] == pytest.approx(1275, rel=0.05)
    assert low[1] == pytest.approx(10, rel=0.30)  # "approximately 10", one digit
    np.testing.assert_allclose(high[2:] / high[1], [0.18, 0.07, 0.01], rtol=0.1)


def test_siltuximab_area_and_half_life() -> None:
    """https://doi.org/10.1007/s00280-019-03939-7: tumours, 11 mg/kg: 3,515 ug.d/mL, 22.2 d."""
    sim = give(Dose(0, "siltuximab", 11, "mg/kg"), np.arange(0, 300.01, 0.1), weight=73)
    assert area(sim, "c_siltuximab") == pytest.approx(3515, rel=0.25)
    assert half_life(sim, "c_siltuximab", 30, 60) == pytest.approx(22.2, rel=0.25)


def test_dexamethasone_in_health() -> None:
    """https://doi.org/10.1007/BF01060016: clearance 14.9 L/h, half-life 3.4 h (men)."""
    days = np.arange(0, 3.0001, 1 / 240)
    sim = give(Dose(0, "dexamethasone", 8, "mg"), days)
    assert 8000 / (area(sim, "c_dexamethasone") * PER_DAY) == pytest.approx(14.9, rel=0.25)
    assert half_life(sim, "c_dexamethasone", days[120], days[240]) * PER_DAY == pytest.approx(
        3.4, rel=0.25
    )


def test_dexamethasone_in_hospital_lies_between_health_and_intensive_care() -> None:
    """https://doi.org/10.1111/bcp.12295: pneumonia, 4 mg: AUC 626 (401 to 1,161) ug.h/L."""
    days = np.arange(0, 8.0001, 1 / 48)
    dose = Dose(0, "dexamethasone", 4, "mg")
    load_at_rest = give(dose, days[:1])["shock"][0]
    areas = [
        area(give(dose, days, **values), "c_dexamethasone") * PER_DAY
        for values in ({}, {"shock_ill": float(load_at_rest)}, ILL)
    ]
    assert areas[0] < 401
    assert 401 <= areas[1] <= 1161  # half of critical illness
    assert areas[2] == pytest.approx(4000 / 2.85, rel=0.02)  # ng.h/mL at the published clearance


def test_methylprednisolone_peak_clearance_and_half_life() -> None:
    """1 g: 16 to 72 uM (10.1007/BF00542323); 21 L/h, 2.8 h (10.1002/bdd.2510100504)."""
    days = np.arange(0, 2.0001, 1 / 480)
    sim = give(Dose(0, "methylprednisolone", 1, "g", hours=0.5), days)
    assert 16 <= sim["c_methylprednisolone"].max() / 374.5 <= 72
    arrived = 1e6 * MODEL.values["f_mp"]
    assert arrived / (area(sim, "c_methylprednisolone") * PER_DAY) == pytest.approx(21, rel=0.02)
    assert half_life(sim, "c_methylprednisolone", days[240], days[480]) * PER_DAY == pytest.approx(
        2.8, rel=0.02
    )


@pytest.mark.parametrize(("injury", "ml_per_min", "sd"), [(0, 137, 21), (1, 20, 1)])
def test_anakinra_clearance(injury: float, ml_per_min: float, sd: float) -> None:
    """https://doi.org/10.1016/S0009-9236(03)00094-8: healthy, and end-stage renal disease."""
    days = np.arange(0, 6.0001, 1 / 240)
    values = {"injury_0": injury, "d_injury": 1e-9}
    sim = give(Dose(0, "anakinra", 1, "mg/kg"), days, **values)
    clearance = 70e3 / area(sim, "c_anakinra") * 1000 / 1440  # mL/min from ug and ng/mL.day
    assert clearance == pytest.approx(ml_per_min, abs=sd)


def test_ruxolitinib_half_life_and_area() -> None:
    """Half-life 2 to 3 h (ASH 2011, 5162); oral clearance 22.1 L/h in men (label)."""
    days = np.arange(0, 2.0001, 1 / 480)
    sim = give(Dose(0, "ruxolitinib", 10, "mg"), days)
    assert 2 <= half_life(sim, "c_ruxolitinib", days[120], days[240]) * PER_DAY <= 3
    assert 1e4 / (area(sim, "c_ruxolitinib") * PER_DAY) == pytest.approx(22.1, rel=0.25)
