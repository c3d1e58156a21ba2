"""Steady states, resets and lags in the engine: both paths, many runs, replays, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from small_models import LOOP, ONE, SATURABLE, small

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.event_times import just_after
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.dosing.timeline import build_timeline
from crs_sim.errors import InputError, IntegrationError
from crs_sim.model.model import Drug, Parameter
from crs_sim.simulation.simulation import simulate
from crs_sim.solver.kernel import compile_kernel, gradient

METHODS = ["Rosenbrock", "LSODA", "BDF", "Radau"]
PLAIN = small("plain", {"A": ("0", "-k*A")}, {"k": 0.7})
TURNOVER = small("turnover", {"R": ("r0", "k*r0*(1 + A) - k*R"), "A": ("0", "-d*A")},
                 {"r0": 5.0, "k": 0.4, "d": 2.0})  # fmt: skip
LAGGED = replace(
    small("lagged", {"A": ("0", "-k*A")}, {"k": 0.7}),
    parameters=(
        Parameter("k", 0.7, "1/day", "", ""), Parameter("wait", 6.0, "hour", "", ""),
        Parameter("F", 0.5, "dimensionless", "", ""), Parameter("long", 12.0, "hour", "", ""),
        Parameter("fast", 2.0, "mg/hour", "", ""),
    ),
    drugs=(Drug("pill", "A", "mg", 0.0, "F", lag="wait"), Drug("patch", "A", "mg", duration="long"),
           Drug("pump", "A", "mg", bioavailability="F", rate="fast")),
)  # fmt: skip


def run(model, *doses, resets=(), changes=(), **options):
    scenario = Scenario("test", Schedule(doses), tuple(changes), resets=tuple(resets))
    return simulate(model, scenario, **{"rtol": 1e-8, "until": 5.0, **options})


# --- steady states --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_bolus_doses_for_ever(method):
    dose = Dose(1, "A", 8, hours=0, steady="alone", every=12)
    sim = run(PLAIN, dose, days=[1.0, just_after(1.0), 2.0], method=method)
    top = 8 / (1 - np.exp(-0.35))
    assert sim["A"] == pytest.approx([0, top, top * np.exp(-0.7)], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_saturable_drug_finds_its_own_steady_state(method):
    vmax, km, dose, every = 3.0, 2.0, 1.0, 0.5

    def trough_after(trough):
        # of dC/dt = -vmax C/(km + C): km ln C + C falls by vmax t
        top = trough + dose
        goal = km * np.log(top) + top - vmax * every
        return brentq(lambda c: km * np.log(c) + c - goal, 1e-12, top, xtol=1e-14)

    trough = brentq(lambda c: trough_after(c) - c, 1e-6, 50)
    given = Dose(0, "C", dose, hours=0, steady="alone", every=24 * every)
    # the errors of one cycle add up over those it takes to forget one: hence the tighter rtol
    sim = run(SATURABLE, given, days=[0, just_after(0), every], method=method, rtol=1e-9)
    assert sim["C"] == pytest.approx([0, trough + dose, trough], rel=1e-6)


@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_constant_infusion_ends_on_its_day(method):
    dose = Dose(1, "A", 0, rate=0.5, steady="alone")
    sim = run(PLAIN, dose, days=[1.0, just_after(1), 3.0], method=method)
    level = 12 / 0.7
    assert sim["A"] == pytest.approx([0, level, level * np.exp(-1.4)], rel=1e-6)


def test_a_steady_state_starts_from_the_initial_states_and_ends_what_was_before():
    steady = Dose(2, "A", 1, hours=0, steady="alone", every=24)
    before = (Dose(0, "A", 50, hours=72), Dose(0.5, "A", 50, hours=0, ordered=0),
              Dose(3, "A", 50, hours=0, ordered=1))  # fmt: skip
    alone = run(TURNOVER, steady, days=[just_after(2), 2.5, 4, 5])
    mixed = run(TURNOVER, *before, steady, days=[just_after(2), 2.5, 4, 5])
    assert mixed.states == pytest.approx(alone.states, rel=1e-7)
    mean = 5 + 5 * 1 / 2.0
    assert alone["R"][0] == pytest.approx(mean, rel=0.1)


def test_an_added_steady_state_is_a_sum_for_a_linear_model():
    first, second = Dose(0, "A", 3, hours=2), Dose(1, "A", 2, hours=1, steady="added", every=8)
    days = [just_after(1), 1.2, 2, 4]
    both, one, two = (run(PLAIN, *d, days=days)["A"]
                      for d in ((first, second), (first,), (second,)))  # fmt: skip
    assert both == pytest.approx(one + two, rel=1e-7)


def test_two_steady_states_on_one_day_add_up():
    am = Dose(1, "A", 2, hours=1, steady="alone", every=24)
    pm = Dose(1, "A", 2, hours=30, steady="added", every=24)
    days = [just_after(1), 1.2, 2, 4]
    both = run(PLAIN, am, pm, days=days)["A"]
    alone = run(PLAIN, am, days=days)["A"] + run(PLAIN, pm, days=days)["A"]
    assert both == pytest.approx(alone, rel=1e-7)


@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_state_that_never_becomes_steady_is_named(method):
    dose = Dose(1, "A", 8, hours=0, steady="alone", every=24)
    with pytest.raises(IntegrationError, match=r"one: Out never becomes steady: no steady"):
        run(ONE, dose, method=method, rtol=1e-4)


def test_a_failed_steady_state_takes_no_other_run_with_it():
    model = small("some", {"A": ("0", "-k*A")}, {"k": 0.7})
    dose = Dose(0, "A", 8, hours=0, steady="alone", every=24)
    line, _ = build_timeline(model, Scenario("s", Schedule((dose,))), np.array([0.0, 1.0]))
    runs = compile_kernel(model).run(line, np.array([[0.7], [0.0], [1.4]]), rtol=1e-8)
    assert (runs.status == [0, 5, 0]).all()
    trough = [8 / (np.exp(k) - 1) for k in (0.7, 1.4)]
    assert runs.states[[0, 2], 1, 0] == pytest.approx(trough, rel=1e-7)


def test_lanes_and_a_run_alone_agree():
    dose = Dose(1, "S", 2, hours=3, steady="alone", every=12)
    scenario = Scenario("s", Schedule((dose, Dose(2, "E", 1, hours=0))))
    days = np.linspace(0, 4, 9)
    line, _ = build_timeline(LOOP, scenario, days)
    values = np.array([[p.value for p in LOOP.parameters]] * 5)
    values[:, LOOP.parameter_ids.index("k_s")] = [0.9, 1.0, 1.1, 1.2, 1.3]
    values[:, LOOP.parameter_ids.index("r")] = 0.1  # or E grows without bound
    runs = compile_kernel(LOOP).run(line, values, rtol=1e-8)
    assert (runs.status == 0).all()
    for k, (row, states) in enumerate(zip(values, runs.states, strict=True)):
        model = LOOP.with_values(**dict(zip(LOOP.parameter_ids, row, strict=True)))
        alone = simulate(model, scenario, days=days, rtol=1e-8)
        assert states == pytest.approx(alone.states, rel=1e-6, abs=1e-6)
        if k in (0, 4):  # one of four side by side and the one left over: on the plain path too
            alone = simulate(model, scenario, days=days, rtol=1e-8, method="Radau")
            assert states == pytest.approx(alone.states, rel=1e-5, abs=1e-6)


def test_derivatives_go_through_a_steady_state():
    dose = Dose(1, "A", 8, hours=0, steady="alone", every=12)
    line, _ = build_timeline(PLAIN, Scenario("s", Schedule((dose,))), np.array([1.5, 2.0, 3.0]))
    found = gradient(compile_kernel(PLAIN), line, np.array([0.7]), [0], rtol=1e-9)

    def level(k, days):
        return 8 / (1 - np.exp(-k / 2)) * np.exp(-k * days)

    days, step = np.array([0.5, 1.0, 2.0]), 1e-5
    slope = (level(0.7 * np.exp(step), days) - level(0.7 * np.exp(-step), days)) / (2 * step)
    assert found.states[0, :, 0] == pytest.approx(slope, rel=1e-5)
    assert (found.run.steps == 0).sum() == 1


# --- resets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_reset_goes_back_to_the_initial_states_of_that_day(method):
    days = [1.0, just_after(1.0), 1.5, 3]
    sim = run(TURNOVER, Dose(0, "A", 9, hours=48), Dose(1, "A", 1, hours=0), resets=[1.0],
              changes=[Change("r0", first=0.5, value=7.0)], days=days, method=method)  # fmt: skip
    assert sim["A"][0] == pytest.approx(4.5 / 2 * (1 - np.exp(-2)), rel=1e-6)
    assert sim["R"][1:2] == pytest.approx([7.0])
    assert sim["A"][1:] == pytest.approx([1, np.exp(-1), np.exp(-4)], rel=1e-6)
    ran = [(i.start, i.stop, i.amount) for i in sim.inputs]
    assert ran == [(0, 1, pytest.approx(4.5)), (1, 1, 1)]


def test_a_reset_before_day_0_is_refused():
    with pytest.raises(InputError, match="test: reset on day -1; a run starts on day 0"):
        Scenario("test", resets=(-1.0,))


# --- lags, durations, rates -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_lag_a_duration_and_a_rate_are_in_their_own_units(method):
    days = [0.2, 0.25, just_after(0.25), 1.0]
    sim = run(LAGGED, Dose(0, "pill", 8), days=days, method=method)
    assert sim["A"] == pytest.approx([0, 0, 4, 4 * np.exp(-0.7 * 0.75)], rel=1e-7, abs=1e-12)
    half = run(LAGGED, Dose(0, "patch", 8), days=[0.5], method=method)
    assert half["A"] == pytest.approx(16 / 0.7 * (1 - np.exp(-0.35)), rel=1e-7)
    # 8 mg, half of which arrives, at 2 mg an hour
    pumped = run(LAGGED, Dose(0, "pump", 8), days=[2 / 24], method=method)
    assert pumped["A"] == pytest.approx(48 / 0.7 * (1 - np.exp(-0.7 / 12)), rel=1e-7)
    assert pumped.inputs[0].stop == pytest.approx(2 / 24)


def test_a_given_rate_stays_when_less_arrives():
    sim = run(LAGGED, Dose(0, "pump", 8, rate=1.0), days=[4 / 24, 1.0])
    assert sim.inputs[0].stop == pytest.approx(4 / 24)
    assert sim["A"][0] == pytest.approx(24 / 0.7 * (1 - np.exp(-0.7 / 6)), rel=1e-7)


def test_bioavailability_is_that_of_the_day_the_dose_is_ordered():
    change = Change("F", first=1.0, value=0.25)
    doses = (Dose(0, "pill", 8), Dose(1, "pill", 8), Dose(1.5, "pill", 8, ordered=0.0))
    sim = run(LAGGED, *doses, changes=[change], days=[2.0])
    assert [i.amount for i in sim.inputs] == [4, 2, 4]
    e = lambda t: np.exp(-0.7 * t)  # noqa: E731
    assert sim["A"] == pytest.approx(4 * e(1.75) + 2 * e(0.75) + 4 * e(0.25), rel=1e-7)


def test_runs_with_other_lags_are_each_its_own():
    doses = (Dose(0, "pill", 8), Dose(0.5, "pump", 8))
    days = np.array([0.2, 0.4, 1.0])
    line, _ = build_timeline(LAGGED, Scenario("s", Schedule(doses)), days)
    values = np.array([[p.value for p in LAGGED.parameters]] * 6)
    values[1::2, 1] = 9.0
    values[2, 2] = 0.25
    values[4, 0] = 1.0
    runs = compile_kernel(LAGGED).run(line, values, rtol=1e-9)
    for row, states in zip(values, runs.states, strict=True):
        model = LAGGED.with_values(**dict(zip(LAGGED.parameter_ids, row, strict=True)))
        assert states == pytest.approx(run(model, *doses, days=days, rtol=1e-9).states, rel=1e-9)


def test_a_line_with_other_samples_serves_one_lag():
    line, _ = build_timeline(
        LAGGED, Scenario("s", Schedule((Dose(0, "pill", 8),))), np.array([1.0])
    )
    values = np.array([[p.value for p in LAGGED.parameters]])
    other = line.sampled(np.array([0.5, 1.0]))
    assert (compile_kernel(LAGGED).run(other, values).status == 0).all()
    values[0, 1] = 7.0
    with pytest.raises(InputError, match="cannot change lag, duration or rate"):
        compile_kernel(LAGGED).run(other, values)


@pytest.mark.parametrize("steady", ["", "alone"])
def test_derivatives_by_a_lag_a_duration_and_a_rate(steady):
    doses = [Dose(0.1, name, 8, modelled=which, steady=steady if k == 0 else "",
                  every=12.0 if steady and k == 0 else 0.0)
             for k, (name, which) in enumerate(
                 (("pill", ""), ("patch", "duration"), ("pump", "rate")))]  # fmt: skip
    scenario, days = Scenario("s", Schedule(tuple(doses))), np.array([0.15, 0.3, 0.55, 0.8, 2.0])
    line, _ = build_timeline(LAGGED, scenario, days)
    values = np.array([0.7, 5.0, 0.6, 11.0, 2.5])  # not those of the timeline
    found = gradient(compile_kernel(LAGGED), line, values, range(5), rtol=1e-9)
    assert not found.failed.any()

    def course(logs):
        moved = dict(zip(LAGGED.parameter_ids, np.exp(logs), strict=True))
        return simulate(LAGGED.with_values(**moved), scenario, days=days, rtol=1e-11)["A"]

    for k, slope in enumerate(found.states[:, :, 0]):
        step = 1e-4 * np.eye(5)[k]
        expected = (course(np.log(values) + step) - course(np.log(values) - step)) / 2e-4
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_replay_whose_doses_come_in_another_order_fails():
    doses = (Dose(0, "pill", 8), Dose(0.25 + 1e-9, "A", 8, hours=0))
    line, _ = build_timeline(LAGGED, Scenario("s", Schedule(doses)), np.array([1.0]))
    values = np.array([[p.value for p in LAGGED.parameters]] * 2)
    engine = compile_kernel(LAGGED)
    steps = engine.run(line, values).steps
    values[1, 1] = 7.0
    runs = engine.replay(line, values, steps)
    assert runs.status.tolist() == [0, 6]
    assert np.isnan(runs.states[1]).all()


@pytest.mark.parametrize(
    ("dose", "values", "words"),
    [
        (Dose(0, "pill", 8), {"wait": -1.0}, "wait = -1 is a time below 0"),
        (Dose(2, "pill", 8), {"F": -0.1}, "on day 2: the bioavailability F = -0.1 is below 0"),
        (Dose(0, "pump", 8), {"fast": 0.0}, "its rate fast = 0 must be above 0"),
        (Dose(0, "pill", 8, modelled="rate"), {}, "its rate is to be a parameter, but pill has"),
    ],
)
def test_times_that_cannot_be(dose, values, words):
    with pytest.raises(InputError, match=words):
        run(LAGGED.with_values(**values), dose)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"every": 12}, "'every' belongs to a steady state"),
        ({"steady": "alone"}, "a steady state needs 'every'"),
        ({"steady": "often", "every": 1}, "steady is 'often'"),
        ({"rate": 1, "hours": 1}, "give either hours or a rate"),
        ({"rate": 0}, "give either hours or a rate above 0"),
        ({"hours": 1, "modelled": "rate"}, "its rate is a parameter; give no hours or rate"),
    ],
)
def test_doses_that_make_no_sense(fields, words):
    with pytest.raises(InputError, match=words):
        Dose(0, "A", 8, **fields)


def test_too_many_infusions_at_once_are_refused():
    with pytest.raises(InputError, match=r"each infusion of its steady state lasts 100 days"):
        run(PLAIN, Dose(0, "A", 8, hours=2400, steady="alone", every=1))
