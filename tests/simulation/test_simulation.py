"""The simulation object: look-ups, rows, table; and its endpoints."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import LOOP, ONE, small

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import InputError, IntegrationError, UnknownNameError
from crs_sim.simulation.endpoints import (
    auc,
    day_of_peak,
    days_above,
    peak,
    vasopressor_days,
    worst_grade,
)
from crs_sim.simulation.simulation import sample_days, simulate

TENT = small(
    "tent",
    {"A": ("0", "k")},
    {"k": 1.0},
    {"crs_grade": "reached(A, 0.9) + reached(A, 1.9) + reached(A, 2.9) - 2*reached(A, 3.9)"},
)


@pytest.fixture(scope="module")
def sim():
    return simulate(ONE, Scenario("bolus", Schedule((Dose(1, "A", 8),))), until=4)


def test_table_has_day_states_quantities():
    table = simulate(LOOP, until=1).table()
    assert list(table) == ["day", *LOOP.state_ids, *LOOP.quantity_ids]
    assert len(table) == 5


def test_units():
    assert simulate(LOOP, until=1).units["signal"] == "mg"


def test_unknown_name(sim):
    with pytest.raises(UnknownNameError, match="did you mean 'Out'"):
        sim["out"]


def test_rows_by_day(sim):
    picked = sim.at([0.5, 2])
    assert picked.days.tolist() == [0.5, 2.0]
    assert picked["A"][1] == sim["A"][8]
    with pytest.raises(InputError, match=r"day 0.6 was not sampled; the nearest is 0.5"):
        sim.at(0.6)


def test_repr(sim):
    assert repr(sim) == "Simulation('one', 'bolus': 17 days 0 to 4, 1 doses, Rosenbrock)"


def test_sample_days_are_exact_and_include_the_end():
    days = sample_days(40, 6)
    assert len(days) == 161
    assert days[77] == 77 * 6 / 24
    assert sample_days(1, 7).tolist() == [0, 7 / 24, 14 / 24, 21 / 24, 1]
    assert sample_days(0.3, 0.1)[-1] == 72 * 0.1 / 24


@pytest.mark.parametrize(("until", "every"), [(1e9, 6), (40, 1e-9)])
def test_more_samples_than_memory_holds_are_refused(until, every):
    with pytest.raises(InputError, match="more than 1,000,000 samples; end sooner, or sample less"):
        sample_days(until, every)


def test_scenario_values_go_into_the_model():
    sim = simulate(ONE, Scenario("slow", Schedule((Dose(0, "A", 1),)), values={"k": 0.0}), until=1)
    assert sim["A"][-1] == 1
    assert sim.model.values["k"] == 0
    assert ONE.values["k"] == 0.7


def test_peak_and_area(sim):
    assert peak(sim, "A") == pytest.approx(8, rel=1e-12)
    assert day_of_peak(sim, "A") == 1.0
    assert peak(sim, "A", last=1) == 0
    assert peak(sim, "A", 1, 2) == pytest.approx(8, rel=1e-12)
    whole = 8 / 0.7 * (1 - np.exp(-0.7 * 3))
    assert auc(sim, "A") == pytest.approx(whole, rel=1e-9)
    for first, last in ((7, 9), (2, 10), (-1, 2)):
        with pytest.raises(InputError, match=f"day {first} to {last} is asked for, but the run"):
            auc(sim, "A", first, last)


def test_days_above_and_grades():
    sim = simulate(TENT, until=6, every_hours=24)
    assert days_above(sim, "A", 2.5) == pytest.approx(3.5)
    assert days_above(sim, "A", 7) == 0
    assert worst_grade(sim) == 3
    assert vasopressor_days(sim) == pytest.approx(1, abs=1e-12)


NO_NUMBER = {
    "A/(k - 1)": 0.0,
    "ln(A - 0.5)": 0.75,
    "1/hill(A - 0.5, 1, 2)": 0.75,
    "exp(k*800*(1.5 - A))": 0.5,
    "(A - A0)^-1.5": 0.0,
    "1/reached(A, 0.5)": 0.75,
}


@pytest.mark.parametrize("formula", NO_NUMBER)
@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_quantity_that_is_no_number_is_an_error_with_its_day(formula, method):
    """Neither inf nor nan is written; the first day and the first quantity are named."""
    quantities = {"fine": "2*A", "bad": formula, "after": "bad + 1"}
    model = small("m", {"A": ("1", "-k*A")}, {"k": 1.0, "A0": 1.0}, quantities)
    days = [0.0, 0.25, 0.5, 0.75, 1.0]
    with pytest.raises(IntegrationError) as caught:
        simulate(model, days=days, method=method)
    day = NO_NUMBER[formula]
    assert str(caught.value).startswith(f"m  bad is not a finite number on day {day:g}, though")
