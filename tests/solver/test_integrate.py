"""Runs against closed forms, against themselves cut otherwise, and at every awkward instant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.linalg import expm
from scipy.special import lambertw
from small_models import EXPLODING, LOOP, ONE, SATURABLE, TWO, WITH_DRUG, small

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError, IntegrationError, UnknownNameError
from crs_sim.simulation.simulation import simulate

HOUR = 1 / 24
METHODS = ["Rosenbrock", "LSODA", "BDF", "Radau"]


def run(model, *doses, changes=(), **options):
    scenario = Scenario("test", Schedule(doses), tuple(changes))
    return simulate(model, scenario, **{"rtol": 1e-9, "until": 5.0, **options})


@pytest.mark.parametrize("method", METHODS)
def test_bolus(method):
    sim = run(ONE, Dose(1, "A", 8), method=method, rtol=1e-8)
    expected = np.where(sim.days > 1, 8 * np.exp(-0.7 * (sim.days - 1)), 0)
    assert sim["A"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_infusion(method):
    sim = run(ONE, Dose(1, "A", 8, hours=12), method=method, rtol=1e-8)
    t = np.clip(sim.days - 1, 0, 0.5)
    during = 16 / 0.7 * (1 - np.exp(-0.7 * t))
    expected = during * np.exp(-0.7 * np.clip(sim.days - 1.5, 0, None))
    assert sim["A"] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_two_compartments():
    v = TWO.values
    matrix = np.array([[-(v["k"] + v["k12"]), v["k21"]], [v["k12"], -v["k21"]]])
    sim = run(TWO, Dose(0, "A", 5))
    expected = [expm(matrix * t) @ [5, 0] for t in sim.days]
    assert sim.states[1:] == pytest.approx(np.array(expected)[1:], rel=1e-7)


def test_michaelis_menten():
    sim = run(SATURABLE, Dose(0, "C", 9))
    expected = 2 * lambertw(9 / 2 * np.exp((9 - 3 * sim.days) / 2)).real
    assert sim["C"][1:] == pytest.approx(expected[1:], rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(cut=st.floats(0.0, 5.0), method=st.sampled_from(["LSODA", "Radau"]))
def test_a_change_by_factor_one_changes_nothing(cut, method):
    doses = (Dose(0.5, "E", 3), Dose(1, "S", 2, hours=2))
    whole = run(LOOP, *doses, rtol=1e-7, method=method)
    split = run(LOOP, *doses, rtol=1e-7, method=method, changes=[Change("r", first=cut, factor=1)])
    assert split.states == pytest.approx(whole.states, rel=1e-4, abs=1e-6)


def test_many_short_infusions_are_one_long():
    hours = 7
    long = run(TWO, Dose(0.1, "A", 10, hours=hours))
    short = run(TWO, *Dose(0.1, "A", 10 / 21, hours=hours / 21).repeated(hours / 21, 21))
    assert short.states == pytest.approx(long.states, rel=1e-7, abs=1e-9)


def test_times_that_differ_in_the_last_bit_are_one():
    assert 0.1 + 0.2 != 0.3
    sim = run(ONE, Dose(0.1, "A", 1, hours=4.8), Dose(0.1 + 0.2, "A", 1), until=20)
    assert sim.solver.segments == 3


def test_a_short_infusion_is_not_stepped_over():
    sim = run(ONE, Dose(10, "A", 8, hours=1), until=40, rtol=1e-6)
    assert sim["A"].max() > 6


def test_dose_on_day_0_is_after_the_first_sample():
    sim = run(ONE, Dose(0, "A", 8), days=[0, 1e-6])
    assert sim["A"] == pytest.approx([0, 8], rel=1e-5)


def test_dose_on_the_last_day_is_given_after_its_sample():
    sim = run(ONE, Dose(5, "A", 8))
    assert sim["A"][-1] == 0
    assert len(sim.inputs) == 1


def test_dose_after_the_last_day_is_left_out():
    sim = run(ONE, Dose(1, "A", 8), Dose(6, "A", 8))
    assert [i.start for i in sim.inputs] == [1]


def test_dose_on_a_sampled_day_is_seen_the_sample_after():
    sim = run(ONE, Dose(2, "A", 8), days=[1, 2, 2.5])
    assert sim["A"] == pytest.approx([0, 0, 8 * math.exp(-0.35)])


def test_infusion_inside_another_and_overlapping():
    doses = [Dose(1, "A", 6, hours=24), Dose(1.25, "A", 2, hours=6), Dose(1.5, "A", 4, hours=24)]
    together = run(ONE, *doses)
    alone = sum(run(ONE, dose)["A"] for dose in doses)
    assert together["A"] == pytest.approx(alone, rel=1e-7, abs=1e-10)


def test_infusion_cut_by_the_end_of_the_run():
    sim = run(ONE, Dose(4.5, "A", 10, hours=24))
    assert sim.states[-1].sum() == pytest.approx(5, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_mass_balance(method):
    doses = [Dose(0.3, "A", 7, hours=1), Dose(1, "A", 100), Dose(1.01, "A", 13, hours=0.1)]
    doses += Dose(2, "A", 1e-3, hours=1).repeated(6, 8)
    sim = run(ONE, *doses, method=method, rtol=1e-6)
    total = sum(i.amount for i in sim.inputs)
    assert sim.states[-1].sum() == pytest.approx(total, rel=1e-8)


ORDER = {
    "observe then bolus": ([Dose(1, "A", 3)], [], 0.0, 3.0),
    "stop then observe": ([Dose(0.5, "A", 3, hours=12)], [], 3.0, 3.0),
    "observe then start": ([Dose(1, "A", 3, hours=12)], [], 0.0, 0.0),
    "stop then bolus": ([Dose(0.5, "A", 3, hours=12), Dose(1, "A", 2)], [], 3.0, 5.0),
    "stop then start": ([Dose(0.5, "A", 3, hours=12), Dose(1, "A", 2, hours=12)], [], 3.0, 3.0),
    "bolus then start": ([Dose(1, "A", 3), Dose(1, "A", 2, hours=12)], [], 0.0, 3.0),
}


@pytest.mark.parametrize("name", ORDER)
def test_what_happens_first_at_one_time(name):
    model = small("still", {"A": ("0", "0*k")}, {"k": 1.0})
    doses, changes, before, after = ORDER[name]
    sim = run(model, *doses, changes=changes, days=[1, 1 + 1e-7])
    assert sim["A"] == pytest.approx([before, after], abs=1e-5)


def test_a_change_holds_from_its_first_day_up_to_its_last():
    model = small("shown", {"A": ("0", "k")}, {"k": 1.0}, {"rate": "k + 0*A"})
    sim = run(
        model,
        Dose(1, "A", 5),
        days=[0.5, 1, 1.5, 2, 3],
        changes=[Change("k", first=1, last=2, factor=3)],
    )
    assert sim["rate"] == pytest.approx([1, 3, 3, 1, 1])
    assert sim["A"] == pytest.approx([0.5, 1, 7.5, 9, 10])


def test_a_change_before_day_0_reaches_the_initial_values():
    early = Change("a0", value=4)
    late = Change("a0", first=0, value=4)
    assert run(WITH_DRUG, changes=[early])["A"][0] == 4
    assert run(WITH_DRUG, changes=[late])["A"][0] == 0


def test_changes_apply_each_in_its_time():
    model = small("shown", {"A": ("0", "k")}, {"k": 1.0}, {"rate": "k"})
    changes = [Change("k", first=2, factor=2), Change("k", last=2, value=5)]
    assert run(model, changes=changes, days=[1, 2]).quantities.ravel() == pytest.approx([5, 2])


def test_bioavailability_weight_and_usual_hours():
    sim = run(WITH_DRUG.with_values(k=0), Dose(1, "pill", 2, "mg/kg"), days=[1, 1 + HOUR, 2])
    assert sim["A"] == pytest.approx([0, 35, 70])
    assert sim.inputs[0].amount == 70


def test_days_come_back_as_given():
    days = np.array([0.1 + 0.2, 1.0, 4.999999999999])
    assert run(ONE, days=days).days.tolist() == days.tolist()


def test_a_run_of_day_0_alone():
    assert run(LOOP, days=[0]).states[0, 0] == 1


def test_methods_agree():
    doses = (Dose(0.5, "E", 3), Dose(1, "S", 2, hours=2))
    results = [run(LOOP, *doses, method=m, rtol=1e-8).states for m in METHODS]
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_blow_up_names_day_segment_and_state(method):
    with pytest.raises(IntegrationError) as caught:
        run(EXPLODING, Dose(0.25, "calm", 1), method=method, rtol=1e-5)
    words = str(caught.value)
    assert "segment 2 of 2 (day 0.25 to 5)" in words
    assert "wild = " in words
    day = float(words.split("failed on day ")[1].split(",")[0])
    assert day == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("factor", [-1e4, -1e9, -1e12])
def test_growth_too_fast_to_follow_is_an_error_and_not_damped(factor):
    """A method that damps whatever is fast would damp this too, and come back with a number."""
    model = small("wild", {"A": ("1", "-k*A"), "B": ("0", "A - B")}, {"k": 1.0})
    with pytest.raises(IntegrationError, match=r"wild: the run failed on day [12]"):
        run(model, changes=(Change("k", 1, 2, factor=factor),), rtol=1e-5)


@pytest.mark.parametrize("rate", ["ln(1 - A)", "exp(A*1e4)", "1/(1 - A)^3"])
@pytest.mark.parametrize("method", METHODS)
def test_rate_that_leaves_its_range(rate, method):
    model = small("bad", {"A": ("0", "k"), "B": ("0", rate)}, {"k": 1.0})
    with pytest.raises(IntegrationError, match=r"bad: the run failed on day [01]"):
        run(model, method=method, rtol=1e-5)


def test_initial_value_that_cannot_be_computed():
    model = small("bad", {"A": ("ln(k)", "k")}, {"k": -1.0})
    with pytest.raises(IntegrationError, match="initial states cannot be computed"):
        run(model)


@pytest.mark.parametrize(
    ("doses", "changes", "options", "error", "words"),
    [
        ([Dose(-1, "A", 1)], [], {}, InputError, "dose of A on day -1: the run starts on day 0"),
        ([Dose(1, "B", 1)], [], {}, UnknownNameError, "unknown drug 'B'"),
        ([], [Change("kk", factor=2)], {}, UnknownNameError, "did you mean 'k'"),
        ([], [], {"days": [1, 1]}, InputError, "ascending"),
        ([], [], {"days": [2, 1]}, InputError, "1 follows 2"),
        ([], [], {"days": []}, InputError, "at least one"),
        ([], [], {"days": [math.nan]}, InputError, "finite"),
        ([], [], {"days": [-1, 1]}, InputError, "first is -1"),
        ([], [], {"method": "Euler"}, InputError, "choose Rosenbrock, LSODA"),
        ([], [], {"until": -1}, InputError, "until"),
        ([], [], {"every_hours": 0}, InputError, "every_hours"),
        ([], [], {"rtol": 2}, InputError, "rtol"),
    ],
)
def test_refused(doses, changes, options, error, words):
    with pytest.raises(error, match=words):
        run(ONE, *doses, changes=changes, **options)
