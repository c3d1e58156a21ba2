"""Triggers and holds: when they fire, what the ledger says of it, the same by every solver."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from small_fits import DECAY, NOISE, asked, free
from small_models import small

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.ledger import Ledger
from crs_sim.dosing.scenario import Change, Condition, Hold, Scenario, Trigger
from crs_sim.dosing.timeline import build_timeline
from crs_sim.errors import InputError, IntegrationError, UnitError, UnknownNameError
from crs_sim.exchange.petab_export import petab_files
from crs_sim.fitting.objective import Objective
from crs_sim.model.model import Drug, Model, Parameter, State
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient
from crs_sim.population.virtual_patients import Design, synthetic_patient
from crs_sim.simulation.batches import plan_batches, run_batch, simulate_many
from crs_sim.simulation.ensemble import Sampling
from crs_sim.simulation.simulation import simulate, table_files
from crs_sim.solver.integration import METHODS
from crs_sim.solver.kernel import compile_kernel
from crs_sim.solver.trigger_resolution import CompiledRunner, resolve_triggers

MINUTE = 1 / 1440
TURNOVER = small(
    "turnover",
    {"A": ("a0", "base - k*A"), "Seen": ("0", "-0.1*Seen")},
    {"a0": 8.0, "base": 0.0, "k": math.log(2), "weight": 50.0, "late": 0.0},
    {"double": "2*A"},
    (Drug("pill", "A", "mg"), Drug("drip", "A", "mg", 6.0), Drug("slow", "A", "mg", lag="late"),
     Drug("mark", "Seen", "mg"), Drug("long", "Seen", "mg", 6.0)),
)  # fmt: skip
RESCUED = small(
    "rescued",
    {"A": ("1", "k*A^2/(1 + 1000*B) - 0.1*A"), "B": ("0", "0")},
    {"k": 0.5},
)
"""Without a dose into B, A is infinite after about 2.2 days."""


def when(text):
    return Condition.read_all(text)


def trigger(text, dose=None, name="low", **options):
    options = {"at_most": 1, "hours_apart": 24, **options}
    return Trigger(name, when(text), dose or Dose(0, "mark", 1), **options)


def falling(*triggers, holds=(), doses=(), **values):
    return Scenario("falling", Schedule(tuple(doses)), values=values, triggers=triggers,
                    holds=tuple(holds))  # fmt: skip


def days(ledger, drug="mark"):
    return [entry.day for entry in ledger.given if entry.drug == drug]


def minute_after(day):
    return math.ceil(day * 1440) / 1440


def by_every_path(model, scenario, until):
    """The ledger by each method, and of a member of an ensemble with neighbours."""
    names = model.parameter_ids[:1]
    spread = {name: model.values[name] * np.array([0.9, 1.0, 1.2, 1.0, 0.8, 1.1]) for name in names}
    scenario = replace(scenario, values={k: v for k, v in scenario.values.items()
                                         if k not in names})  # fmt: skip
    many = simulate_many(model, scenario, spread, sampling=Sampling(until=until), workers=2)
    found = {method: simulate(model, scenario, until=until, method=method).ledger
             for method in METHODS}  # fmt: skip
    return {**found, "ensemble": many.ledgers[scenario.name][1],
            "elsewhere in it": many.ledgers[scenario.name][3]}  # fmt: skip


# --- when a trigger fires -------------------------------------------------------------------------


@pytest.mark.parametrize("level", [7.9, 5.0, 3.1, 1.23])
@pytest.mark.parametrize("method", METHODS)
def test_watched_all_the_time_fires_at_the_first_whole_minute(level, method):
    scenario = falling(trigger(f"A <= {level}"))
    sim = simulate(TURNOVER, scenario, until=4, method=method)
    assert days(sim.ledger) == [minute_after(math.log2(8 / level))]


def test_a_rising_level_and_a_quantity():
    scenario = falling(trigger("double > 10.5"), base=10 * math.log(2), a0=0.0)
    sim = simulate(TURNOVER, scenario, until=4)
    assert days(sim.ledger) == [minute_after(-math.log2(1 - 5.25 / 10))]


def test_a_condition_that_holds_from_the_start_fires_at_its_first_day():
    assert days(simulate(TURNOVER, falling(trigger("A > 0")), until=1).ledger) == [0.0]
    late = falling(trigger("A > 0", first=0.123456))
    assert days(simulate(TURNOVER, late, until=1).ledger) == [0.123456]


def test_a_round_gives_its_dose_at_that_round():
    scenario = falling(trigger("A <= 5", every_hours=12, first=0.25))
    assert days(simulate(TURNOVER, scenario, until=4).ledger) == [0.75]  # A is 5 on day 0.68


@pytest.mark.parametrize("every", [None, 12, 24 * 1.7])
def test_the_last_instant_fires_and_the_one_after_does_not(every):
    last = 1.7
    level = 8 * 2**-last * (1 + 1e-5)  # reached about a second before the last instant
    first = 0.2 if every == 12 else 0.0
    scenario = falling(trigger(f"A <= {level!r}", every_hours=every, first=first))
    assert days(simulate(TURNOVER, scenario, until=last).ledger) == [last]
    closed = replace(scenario, triggers=(replace(scenario.triggers[0], last=last),))
    assert days(simulate(TURNOVER, closed, until=3).ledger) == [last]
    assert days(simulate(TURNOVER, scenario, until=last - MINUTE).ledger) == []
    sim = simulate(TURNOVER, scenario, until=last)
    assert sim["Seen"][-1] == 0  # a sample is taken before the dose


def test_rounds_counted_to_the_last_day_include_it_whatever_the_rounding():
    rounds = trigger("A > 0", at_most=100, hours_apart=1, every_hours=2.4, first=0.1)
    ledger = simulate(TURNOVER, falling(rounds), until=2.3).ledger
    assert days(ledger) == pytest.approx([0.1 * k for k in range(1, 24)])


def test_fires_again_no_sooner_than_hours_apart_and_no_more_than_at_most():
    often = trigger("A > 0", at_most=3, hours_apart=8)
    assert days(simulate(TURNOVER, falling(often), until=4).ledger) == [0, 8 / 24, 16 / 24]
    odd = trigger("A > 0", at_most=3, hours_apart=0.99)
    assert days(simulate(TURNOVER, falling(odd), until=4).ledger) == [0, 60 / 1440, 120 / 1440]
    rounds = trigger("A > 0", at_most=3, hours_apart=13, every_hours=12)
    assert days(simulate(TURNOVER, falling(rounds), until=4).ledger) == [0, 1, 2]
    exact = trigger("A > 0", at_most=9, hours_apart=12, every_hours=12, last=1)
    assert days(simulate(TURNOVER, falling(exact), until=4).ledger) == [0, 0.5, 1]


def test_a_dose_that_ends_the_condition_ends_the_doses():
    top_up = trigger("A < 2.1", Dose(0, "pill", 5.9), at_most=9, hours_apart=0.1)
    ledger = simulate(TURNOVER, falling(top_up), until=6).ledger
    found = days(ledger, "pill")
    first = minute_after(math.log2(8 / 2.1))
    level = 8 * 2**-first + 5.9
    assert found == [first, minute_after(first + math.log2(level / 2.1)),
                     *found[2:]] and len(found) == 3  # fmt: skip


def test_a_dose_days_after_the_decision():
    scenario = falling(trigger("A <= 5", Dose(0.5, "mark", 1), at_most=2, hours_apart=6))
    first = minute_after(math.log2(8 / 5))
    ledger = simulate(TURNOVER, scenario, until=1.4).ledger
    assert days(ledger) == pytest.approx([first + 0.5])  # the second is due on day 1.43
    assert len(resolve_triggers(TURNOVER, scenario, until=1.4)[0].doses) == 2


# --- conditions of several parts, and courses of doses --------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_conditions_joined_by_and_fire_when_the_last_of_them_is_met(method):
    both = falling(trigger("A <= 5 and double <= 7 and Seen < 1"))
    ledger = simulate(TURNOVER, both, until=4, method=method).ledger
    assert days(ledger) == [minute_after(math.log2(8 / 3.5))]
    marked = falling(trigger("A <= 5 and Seen >= 0.5", Dose(0, "pill", 1)),
                     doses=[Dose(1, "mark", 1)])  # fmt: skip
    ledger = simulate(TURNOVER, marked, until=4, method=method).ledger
    assert days(ledger, "pill") == [1 + MINUTE]  # on day 1 itself, before that dose, Seen is 0
    never = falling(trigger("A <= 5 and A > 5"))
    assert days(simulate(TURNOVER, never, until=4, method=method).ledger) == []


def test_conditions_joined_by_and_leave_a_dose_out():
    held = Hold("mark", when("A <= 5 and A > 3"))  # from day 0.68 to day 1.42
    doses = [Dose(day, "mark", 1) for day in (0.5, 1.0, 1.4, 1.5)]
    ledger = simulate(TURNOVER, falling(holds=[held], doses=doses), until=2).ledger
    assert days(ledger) == [0.5, 1.5]
    assert [e.why for e in ledger.held] == ["held: no mark while A <= 5 and A > 3"] * 2


def test_or_is_refused_with_what_to_write():
    with pytest.raises(InputError, match=r"joined by 'and' only; for 'or' write one more trigger"):
        when("A > 1 or double > 3")
    with pytest.raises(InputError, match="'' is not a condition"):
        when("A > 1 and")


FIRST = minute_after(math.log2(8 / 5))


@pytest.mark.parametrize("method", METHODS)
def test_a_course_goes_on_whatever_the_condition_is_later(method):
    course = trigger("A <= 5", Dose(0, "pill", 4), course=(4, 12.0))
    ledger = simulate(TURNOVER, falling(course), until=4, method=method).ledger
    assert days(ledger, "pill") == pytest.approx([FIRST + 0.5 * k for k in range(4)], abs=1e-12)
    assert {entry.why for entry in ledger} == {"trigger low"}
    # each dose follows on a level above 5: 9 after the first, 9 * 2^-0.5 = 6.4 before the second
    short = simulate(TURNOVER, falling(course), until=1.5, method=method).ledger
    assert days(short, "pill") == pytest.approx([FIRST, FIRST + 0.5])


def test_the_next_course_is_hours_apart_from_the_last_dose_of_the_one_before():
    twice = trigger("A <= 5", at_most=2, hours_apart=24, course=(4, 12.0))
    ledger = simulate(TURNOVER, falling(twice), until=9).ledger
    again = FIRST + (3 * 12 + 24) / 24
    assert days(ledger) == pytest.approx(
        [start + 0.5 * k for start in (FIRST, again) for k in range(4)]
    )
    rounds = replace(twice, every_hours=12.0, first=0.25)
    ledger = simulate(TURNOVER, falling(rounds), until=9).ledger  # rounds at day 0.25, 0.75, ...
    assert days(ledger) == [start + 0.5 * k for start in (0.75, 3.25) for k in range(4)]


def test_a_hold_leaves_single_doses_of_a_course_out():
    course = trigger("A <= 5", course=(4, 12.0))
    ledger = simulate(TURNOVER, falling(course, holds=[Hold("mark", when("Seen > 1.5"))]),
                      until=4).ledger  # fmt: skip
    # Seen falls by a twentieth in half a day: 0, 0.951, then 1.951 * 0.951 and less
    assert [entry.given for entry in ledger] == [True, True, False, False]
    assert ledger.held[0].why == "trigger low, held: no mark while Seen > 1.5"


def test_every_path_gives_the_same_courses():
    course = trigger("A < 3 and double > 4", Dose(0.1, "drip", 3), at_most=3, hours_apart=5,
                     course=(5, 7.0))  # fmt: skip
    rules = falling(course, ALWAYS, holds=[HELD], doses=[Dose(1.5, "pill", 2)])
    found = by_every_path(TURNOVER, rules, 9)
    assert len([entry for entry in found["Rosenbrock"] if entry.drug == "drip"]) > 8
    for path, ledger in found.items():
        assert ledger == found["Rosenbrock"], path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"course": (0, 12.0)}, "trigger 'low': mark: doses must be at least 1"),
        ({"course": (3, 0.0)}, "trigger 'low': mark: every must be a positive number of hours"),
        ({"course": (30, 1.0), "at_most": 4}, "at_most is 4 courses of 30; give 1 to 100 doses"),
    ],
)
def test_a_course_without_sense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        trigger("A < 3", **options)


def test_triggers_of_one_dose_are_told_as_before_there_were_courses():
    plain = trigger("A < 3")
    assert "course" not in repr(plain) and "also" not in repr(plain)
    assert "course=(2, 12.0)" in repr(replace(plain, course=(2, 12.0)))
    assert "also=(Condition(quantity='A', side='>', level=1.0),)" in repr(when("A < 3 and A > 1"))


# --- two rules at one instant ---------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 12])
def test_two_triggers_at_one_instant_keep_their_order_and_see_the_level_before(every):
    up = trigger("A <= 5", Dose(0, "pill", 50), "up", every_hours=every)
    mark = trigger("A <= 5", Dose(0, "mark", 1), "mark", every_hours=every)
    for order in ((up, mark), (mark, up)):
        ledger = simulate(TURNOVER, falling(*order), until=2).ledger
        assert [entry.by for entry in ledger] == [f"trigger {t.name}" for t in order]
        assert len({entry.day for entry in ledger}) == 1


def test_a_round_and_a_planned_dose_at_one_instant_see_the_level_before():
    scenario = falling(trigger("A > 8", every_hours=12, last=0.7), doses=[Dose(0.5, "pill", 100)])
    assert days(simulate(TURNOVER, scenario, until=2).ledger) == []
    seen = falling(trigger("A > 8"), doses=[Dose(0.5, "pill", 100)])
    assert days(simulate(TURNOVER, seen, until=2).ledger) == [0.5 + MINUTE]


def test_a_trigger_that_feeds_another():
    up = trigger("A <= 5", Dose(0, "pill", 50), "up")
    mark = trigger("A > 40", Dose(0, "mark", 1), "mark", every_hours=6)
    ledger = simulate(TURNOVER, falling(mark, up), until=2).ledger
    first = minute_after(math.log2(8 / 5))
    assert [(e.day, e.by) for e in ledger] == [(first, "trigger up"), (0.75, "trigger mark")]


# --- holds ----------------------------------------------------------------------------------------


def test_a_hold_leaves_out_what_is_due_while_it_holds_and_says_so():
    plan = [Dose(day, "mark", 2) for day in (0, 0.5, 1, 2)] + [Dose(0.5, "pill", 0)]
    scenario = falling(doses=plan, holds=[Hold("mark", when("A > 5"))])
    sim = simulate(TURNOVER, scenario, until=3)
    assert days(sim.ledger) == [1, 2]
    assert [(e.day, e.why) for e in sim.ledger.held] == [
        (0, "held: no mark while A > 5"), (0.5, "held: no mark while A > 5")]  # fmt: skip
    assert [e.drug for e in sim.ledger].count("pill") == 1
    kept = [dose for dose in plan if dose.drug == "pill" or dose.day >= 1]
    without = simulate(TURNOVER, Scenario("known", Schedule(tuple(kept))), until=3)
    assert np.array_equal(sim.states, without.states)


def test_a_hold_looks_when_the_dose_is_due_and_the_held_dose_counts():
    due_later = trigger("A <= 6", Dose(0.5, "mark", 1), at_most=2, hours_apart=12)
    scenario = falling(due_later, holds=[Hold("mark", when("A > 4"))])
    ledger = simulate(TURNOVER, scenario, until=3).ledger
    first = minute_after(math.log2(8 / 6))  # due half a day later, when A is 4.2
    assert [(e.day, e.why) for e in ledger] == [
        (pytest.approx(first + 0.5), "trigger low, held: no mark while A > 4"),
        (pytest.approx(first + 1.0), "trigger low"),
    ]


def test_the_level_before_a_dose_decides_whether_it_is_held():
    scenario = falling(doses=[Dose(1, "pill", 9)], holds=[Hold("pill", when("A > 4.5"))])
    assert len(simulate(TURNOVER, scenario, until=2).ledger.held) == 0
    held_first = falling(
        doses=[Dose(1, "pill", 9), Dose(2, "pill", 9)], holds=[Hold("pill", when("A > 4.5"))]
    )
    assert [e.day for e in simulate(TURNOVER, held_first, until=2).ledger.held] == [2]


def test_triggered_and_held_at_one_instant():
    scenario = falling(trigger("A <= 5"), holds=[Hold("mark", when("A > 4"))])
    (entry,) = simulate(TURNOVER, scenario, until=2).ledger
    assert entry.held == "no mark while A > 4" and entry.by == "trigger low"
    assert entry.day == minute_after(math.log2(8 / 5))


# --- an independent referee -----------------------------------------------------------------------


def refereed(level, amount, hours, until):
    """Top-ups of a level that falls by Michaelis-Menten, by ``solve_ivp`` with events."""

    def crossed(t, y, rate):
        return y[0] - level

    crossed.terminal, crossed.direction = True, -1  # type: ignore[attr-defined]
    options = {"rtol": 1e-10, "atol": 1e-12, "method": "DOP853"}

    def rate(t, y, r):
        return [0.3 - 3 * y[0] / (2 + y[0]) + r]

    day, y, given, opens = 0.0, [9.0], [], 0.0
    while day < until:
        free = solve_ivp(rate, (day, until), y, args=(0.0,), events=crossed, **options)
        if not len(free.t_events[0]):
            break
        fires = max(minute_after(free.t_events[0][0]), opens)
        if fires > until:
            break
        y = solve_ivp(rate, (day, fires), y, args=(0.0,), **options).y[:, -1]
        given.append(fires)
        day, opens = fires + hours / 24, fires + 1.0
        y = solve_ivp(rate, (fires, day), y, args=(amount / (hours / 24),), **options).y[:, -1]
    return given


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("level", "amount"), [(2.5, 6.0), (4.0, 9.0), (1.1, 11.0)])
def test_continuous_trigger_against_scipys_events(level, amount, method):
    model = small("saturable", {"C": ("9", "0.3 - 3*C/(2 + C)")}, {"x": 1.0})
    dose = Dose(0, "C", amount, hours=3)
    low = trigger(f"C <= {level}", dose, at_most=50, hours_apart=24)
    expected = refereed(level, amount, 3.0, 20.0)
    assert len(expected) > 2
    found = simulate(model, Scenario("low", triggers=(low,)), until=20, method=method).ledger
    assert days(found, "C") == pytest.approx(expected, abs=1e-9)


# --- every path -----------------------------------------------------------------------------------


ROUNDS = trigger("A <= 5", Dose(0, "drip", 0.1, "mg/kg"), "rounds", at_most=3, every_hours=8)
ALWAYS = trigger("double <= 3", Dose(0.1, "pill", 4), "always", at_most=4, hours_apart=7)
HELD = Hold("drip", when("A > 4.1"))
MIXED = falling(ROUNDS, ALWAYS, holds=[HELD], doses=[Dose(1.3, "drip", 2), Dose(5, "drip", 3)])


def test_every_path_gives_the_same_ledger():
    found = by_every_path(TURNOVER, MIXED, 9)
    kinds = {entry.why for entry in found["Rosenbrock"]}
    held = "held: no drip while A > 4.1"
    assert kinds == {
        "planned", "trigger rounds", "trigger always", held, f"trigger rounds, {held}"
    }  # fmt: skip
    for path, ledger in found.items():
        assert ledger == found["Rosenbrock"], path


def test_the_settled_scenario_is_one_like_any_other():
    decided, ledger = resolve_triggers(TURNOVER, MIXED, until=9)
    assert decided.decided and decided.name == MIXED.name
    sim, again = simulate(TURNOVER, MIXED, until=9), simulate(TURNOVER, decided, until=9)
    assert np.array_equal(sim.states, again.states)
    assert sim.ledger == ledger == simulate(TURNOVER, MIXED, until=9, rtol=1e-3).ledger
    assert [(e.day, e.drug, e.amount) for e in ledger.given] == [
        (e.day, e.drug, e.amount) for e in again.ledger]  # fmt: skip
    assert sim.scenario is MIXED


def test_a_run_cut_short_has_the_beginning_of_the_ledger():
    whole = simulate(TURNOVER, MIXED, until=9).ledger
    for until in (0, 1, 1.3, 2.5, 7):
        part = simulate(TURNOVER, MIXED, until=until).ledger
        assert list(part) == [e for e in whole if e.day <= until]


def test_how_it_is_sampled_changes_nothing():
    sampled = ([9.0], [0.1, 1.3, 9.0], np.linspace(0, 9, 999))
    sims = [simulate(TURNOVER, MIXED, days=some) for some in sampled]
    assert sims[0].ledger == sims[1].ledger == sims[2].ledger
    assert sims[0].at([9.0]).ledger == sims[0].ledger


def test_what_is_lost_between_two_hours_and_what_is_not():
    brief = falling(trigger("A > 8.5"), doses=[Dose(0.51, "pill", 4)], k=40.0)
    assert days(simulate(TURNOVER, brief, until=2).ledger) == []
    longer = falling(trigger("A > 8.6"), doses=[Dose(0.51, "pill", 4)], k=1.0)
    assert days(simulate(TURNOVER, longer, until=2).ledger) == []  # for 33 minutes
    lasting = falling(trigger("A > 8.5"), doses=[Dose(0.51, "pill", 9)], k=1.0)
    assert days(simulate(TURNOVER, lasting, until=2).ledger) == [minute_after(0.51)]


@pytest.mark.parametrize("workers", [2, 5])
def test_the_same_ledgers_and_bits_on_any_number_of_workers(workers):
    values = {"a0": np.linspace(4, 12, 70), "k": np.linspace(0.4, 1.0, 70)[::-1]}
    plain = Scenario("plain", MIXED.doses)
    one, other = (
        simulate_many(TURNOVER, [MIXED, plain], values, sampling=Sampling(until=6), workers=n)
        for n in (1, workers)
    )
    assert np.array_equal(one.courses, other.courses)
    assert one.ledgers == other.ledgers and list(one.ledgers) == ["falling"]
    assert list(one.ledgers["falling"]) == list(one.members) == list(range(70))
    assert len(set(map(str, one.ledgers["falling"].values()))) > 30
    alone = simulate_many(TURNOVER, plain, values, sampling=Sampling(until=6))
    assert np.array_equal(one["A"][1], alone["A"][0])


def test_members_are_the_runs_of_their_own_values():
    values = {"a0": np.linspace(4, 12, 9), "weight": np.linspace(30, 110, 9)}
    many = simulate_many(TURNOVER, MIXED, values, sampling=Sampling(until=6, rtol=1e-8))
    for i in many.members:
        own = TURNOVER.with_values(**{name: column[i] for name, column in values.items()})
        sim = simulate(own, MIXED, days=many.days, rtol=1e-8)
        assert many.ledgers["falling"][i] == sim.ledger
        assert many.course("A")[i] == pytest.approx(sim["A"], rel=1e-6)


def test_members_whose_doses_come_later_decide_on_what_has_come():
    scenario = falling(trigger("A > 9", at_most=1), doses=[Dose(0.5, "slow", 20)])
    values = {"late": [0.0, 0.25, 0.5, 3.0, 0.25]}
    many = simulate_many(TURNOVER, scenario, values, sampling=Sampling(until=2))
    found = [days(many.ledgers["falling"][i]) for i in many.members]
    assert found == [[0.5 + MINUTE], [0.75 + MINUTE], [1 + MINUTE], [], [0.75 + MINUTE]]


def test_a_member_alone_fails_and_the_rest_have_their_ledgers():
    scenario = Scenario("late", triggers=(trigger("A > 2", Dose(0, "B", 1), first=2.0),))
    values = {"k": [0.2, 2.0, 0.3]}
    many = simulate_many(RESCUED, scenario, values, sampling=Sampling(until=4))
    assert many.members == (0, 2) and [f.member for f in many.failures] == [1]
    assert list(many.ledgers["late"]) == [0, 2]


@pytest.mark.parametrize("k", [0.5, 0.9, 3.0])  # without: no end on day 2.2, 1.2 or 0.3
def test_a_dose_that_saves_the_run_is_given_before_it_fails(k):
    scenario = Scenario("rescue", values={"k": k}, triggers=(trigger("A > 1.4", Dose(0, "B", 99)),))
    with pytest.raises(IntegrationError):
        simulate(RESCUED, replace(scenario, triggers=()), until=6)
    sim = simulate(RESCUED, scenario, until=6)
    assert len(sim.ledger) == 1 and sim["A"].max() < 10
    many = simulate_many(RESCUED, replace(scenario, values={}), {"k": [k, 0.05, k]},
                         sampling=Sampling(until=6))  # fmt: skip
    assert many.ledgers["rescue"] == {0: sim.ledger, 1: Ledger(), 2: sim.ledger}


def test_a_batch_that_travels_gives_the_same():
    plan = plan_batches(TURNOVER, MIXED, {"a0": np.linspace(4, 12, 40)}, Sampling(until=6))
    there = [pickle.loads(pickle.dumps(run_batch(pickle.loads(pickle.dumps(b)))))
             for b in plan.batches()]  # fmt: skip
    here = simulate_many(TURNOVER, MIXED, plan.columns, sampling=Sampling(until=6))
    assert plan.gather(there).ledgers == here.ledgers


# --- window by window -----------------------------------------------------------------------------


BORDERS = falling(
    ROUNDS, ALWAYS, trigger("A < 2.5", Dose(1.9, "long", 1), "later", at_most=3, every_hours=48),
    holds=[HELD, Hold("pill", when("A > 20"))],
    doses=[Dose(1.9, "drip", 2), Dose(2, "pill", 1), Dose(3.5, "pill", 1, hours=30),
           Dose(5.99, "drip", 3), Dose(8, "pill", 20), Dose(8, "pill", 3, hours=0)],
)  # fmt: skip


COURSES = replace(BORDERS, triggers=(
    *BORDERS.triggers, trigger("A < 4 and Seen < 3", Dose(0.2, "long", 1), "course", at_most=3,
                               hours_apart=9, course=(6, 8.0)),
))  # fmt: skip


@pytest.mark.parametrize("scenario", [MIXED, BORDERS, COURSES])
def test_windows_give_the_ledgers_of_runs_from_day_0(scenario, monkeypatch):
    scenario = scenario.with_changes(Change("k", 1.5, 4.0, factor=0.8), Change("k", 6, 7, value=1))
    values = {"a0": np.linspace(4, 12, 24), "base": np.linspace(0, 3, 24)[::-1]}
    sampling = Sampling(until=11)
    windows = simulate_many(TURNOVER, scenario, values, sampling=sampling)
    monkeypatch.setattr(CompiledRunner, "in_windows", False)
    whole = simulate_many(TURNOVER, scenario, values, sampling=sampling)
    assert windows.ledgers == whole.ledgers
    assert len(set(map(str, whole.ledgers["falling"].values()))) > 12


@pytest.mark.parametrize("day", [0.0, 0.4, 1.0, 1.3, 2.0, 2.5, 3.0, 3.7])
def test_a_timeline_goes_on_from_any_day(day):
    doses = (Dose(0, "pill", 2), Dose(1, "pill", 3), Dose(1, "pill", 4, hours=24),
             Dose(2.5, "pill", 1, hours=30), Dose(4, "pill", 9))  # fmt: skip
    scenario = Scenario("given", Schedule(doses), (Change("k", 1.3, 3, factor=2),))
    kernel, values = compile_kernel(TURNOVER), np.array([list(TURNOVER.values.values())])
    line, _ = build_timeline(TURNOVER, scenario, np.unique([*np.linspace(0, 4, 33), day]))
    whole = kernel.run(line, values, rtol=1e-9)
    row = int(np.searchsorted(line.days, day))
    rest = kernel.run(line.onward(day), values, rtol=1e-9, start=whole.states[:, row])
    assert rest.states[0] == pytest.approx(whole.states[0, row + 1 :], rel=1e-7, abs=1e-9)
    assert rest.quantities[0] == pytest.approx(whole.quantities[0, row + 1 :], rel=1e-7, abs=1e-9)
    assert rest.final == pytest.approx(whole.final, rel=1e-7, abs=1e-9)


# --- the ledger as a person reads it --------------------------------------------------------------


def test_the_ledger_in_words_and_as_a_table(tmp_path):
    plan = [Dose(0.25, "long", 0.1, "mg/kg"), Dose(1, "pill", 3, hours=2), Dose(5, "pill", 1)]
    scenario = falling(trigger("A <= 5"), doses=plan, holds=[Hold("pill", when("A < 8"))])
    sim = simulate(TURNOVER, scenario, until=2)
    assert str(sim.ledger).splitlines() == [
        "day 0.25: long 0.1 mg/kg over 6 h (planned)",
        "day 0.678472: mark 1 mg (trigger low)",
        "day 1: pill 3 mg over 2 h (held: no pill while A < 8)",
    ]
    table = sim.ledger.table()
    assert table.given.tolist() == [True, True, False]
    assert table.why.tolist()[2] == "held: no pill while A < 8"
    files = table_files(sim, tmp_path / "run.csv", {})
    text = files[tmp_path / "run.csv.ledger.csv"].decode()
    assert text.splitlines()[:2] == [
        "day,drug,amount,unit,hours,given,why", "0.25,long,0.1,mg/kg,6.0,True,planned"]  # fmt: skip
    plain = table_files(simulate(TURNOVER, Scenario("plain"), until=1), tmp_path / "run.csv", {})
    assert len(plain) == 2 and len(Ledger().table()) == 0


def test_infusion_times_that_parameters_decide_are_each_members_own():
    model = Model(
        "pump", (State("A", "0", "-A", "mg", "", ""),),
        (Parameter("speed", 2.0, "mg/day", "", ""),),
        drugs=(Drug("pump", "A", "mg", rate="speed"),),
    )  # fmt: skip
    scenario = Scenario("pumped", triggers=(trigger("A < 1", Dose(0, "pump", 1)),))
    assert simulate(model, scenario, until=1).ledger.entries[0].hours == pytest.approx(12)
    many = simulate_many(model, scenario, {"speed": [1.0, 4.0]}, sampling=Sampling(until=1))
    hours = [many.ledgers["pumped"][i].entries[0].hours for i in (0, 1)]
    assert hours == pytest.approx([24, 6])


# --- what is refused ------------------------------------------------------------------------------


MARK = Dose(0, "mark", 1)


@pytest.mark.parametrize(
    ("scenario", "error", "words"),
    [
        (falling(trigger("doubel > 1")), UnknownNameError,
         "falling: trigger 'low'  unknown state or quantity 'doubel': did you mean 'double'?"),
        (falling(trigger("A > 1", Dose(0, "pil", 1))), UnknownNameError,
         "falling: trigger 'low'  unknown drug 'pil': did you mean 'pill'?"),
        (falling(holds=[Hold("pil", when("A > 1"))]), UnknownNameError,
         "falling: hold 'no pil while A > 1'  unknown drug 'pil': did you mean 'pill'?"),
        (falling(holds=[Hold("pill", when("a > 1"))]), UnknownNameError,
         "unknown state or quantity 'a': did you mean 'A'?"),
        (falling(trigger("A > 1", Dose(0, "pill", 1, "cells"))), UnitError,
         "falling: trigger 'low'"),
        (falling(trigger("A > 1", first=5.0)), InputError,
         "falling: trigger 'low': it is first evaluated on day 5, and the run ends on day 2; "),
        (falling(trigger("A > 1", every_hours=0.001)), InputError,
         "trigger 'low': it is evaluated every 0.001 hours; give a minute or more"),
        (falling(trigger("A > 1", Dose(0, "pill", 1, steady="alone", every=24))), InputError,
         "trigger 'low': its dose must be an ordinary one"),
    ],
)  # fmt: skip
def test_refused_by_name(scenario, error, words):
    for run in (
        lambda: simulate(TURNOVER, scenario, until=2),
        lambda: plan_batches(TURNOVER, scenario, {"k": [1.0]}, Sampling(until=2)),
        lambda: resolve_triggers(TURNOVER, scenario, until=2),
    ):
        with pytest.raises(error) as raised:
            run()
        assert words in str(raised.value)


def test_a_dose_per_kg_needs_a_weight():
    model = small("bare", {"A": ("1", "-A")}, {"k": 1.0}, drugs=(Drug("pill", "A", "mg"),))
    heavy = Scenario("heavy", triggers=(trigger("A > 0", Dose(0, "pill", 1, "mg/kg")),))
    with pytest.raises(InputError, match="heavy: trigger 'low': mg/kg needs a body weight"):
        simulate(model, heavy)


def test_what_needs_known_doses_refuses_triggers_and_holds():
    scenario = falling(trigger("A > 1"), holds=[Hold("pill", when("A > 1"))])
    words = r"falling: trigger 'low', hold 'no pill while A > 1': these are decided"
    with pytest.raises(InputError, match=words):
        build_timeline(TURNOVER, scenario, np.array([0.0, 1.0]))
    problem = asked(free("k", 0.5, 1.0), model=DECAY)
    undecided = replace(problem, patient=replace(problem.patient, scenario=Scenario(
        "undecided", triggers=(trigger("A < 3", Dose(0, "A", 1)),))))  # fmt: skip
    for use in (Objective, petab_files):
        with pytest.raises(InputError, match="undecided: trigger 'low': these are decided"):
            use(undecided)


def test_a_synthetic_patient_has_the_doses_that_were_given():
    scenario = Scenario("rescued", triggers=(trigger("A < 3", Dose(0, "A", 5)),))
    design = Design(scenario, {"A": (1.0, 4.0)}, {})
    patient = synthetic_patient(DECAY, design, NOISE, np.random.default_rng(1))
    (given,) = patient.scenario.doses
    assert patient.scenario.decided and given.day == minute_after(2 * math.log(10 / 3))


# --- the model of the case ------------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 12])
def test_tocilizumab_when_the_grade_reaches_2(every):
    model, given = load_model("crs"), load_patient("ruemmele2025").scenario
    rescue = Trigger("rescue", when("crs_grade >= 2"), Dose(0, "tocilizumab", 8, "mg/kg"),
                     at_most=4, hours_apart=8, every_hours=every)  # fmt: skip
    scenario = replace(given.with_doses(given.doses.without("tocilizumab"), "rescued"),
                       triggers=(rescue,))  # fmt: skip
    sim = simulate(model, scenario, until=20)
    found = days(sim.ledger, "tocilizumab")
    assert 1 <= len(found) <= 4 and (np.diff(found) >= 8 / 24 - 1e-9).all()
    grade = simulate(model, scenario, days=[day for day in found if day > 0])["crs_grade"]
    assert (grade >= 2).all()
    untreated = simulate(model, replace(scenario, triggers=()), until=20, every_hours=1)
    first = untreated.days[np.flatnonzero(untreated["crs_grade"] >= 2)[0]]
    late = every / 24 if every else MINUTE
    assert first - 1 / 24 < found[0] <= max(first, math.ceil(first / late) * late) + 1e-9
    if every:
        assert (np.array(found) * 2 % 1 == 0).all()
    names = ("k_il6", "k_ferritin")
    values = {name: model.values[name] * np.array([0.7, 1, 1.4, 1, 1.2]) for name in names}
    many = simulate_many(model, scenario, values, sampling=Sampling(until=20))
    assert many.ledgers["rescued"][1] == many.ledgers["rescued"][3] == sim.ledger
    assert simulate(model, scenario, until=20, method="LSODA").ledger == sim.ledger
