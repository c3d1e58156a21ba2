"""Many runs: each its own, the same bits however they are spread, failures named, nothing left."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_models import LOOP, WITH_DRUG, small

import crs_sim
from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError, UnknownNameError
from crs_sim.simulation import batches
from crs_sim.simulation.batches import plan_batches, run_batch, simulate_batches, simulate_many
from crs_sim.simulation.endpoints import endpoint
from crs_sim.simulation.ensemble import Sampling
from crs_sim.simulation.simulation import simulate

CASE = Scenario(
    "case",
    Schedule((Dose(0.5, "E", 3), Dose(1, "S", 2, hours=2), Dose(1.5, "S", 1))),
    (Change("r", first=1.2, last=3, factor=0.4),),
)
SPARED = CASE.with_doses(CASE.doses.without("S"), "spared")
DAILY = Sampling(until=6)
SOME = small("some", {"A": ("1", "k*A^2"), "B": ("1", "-B")}, {"k": 0.1}, {"twice": "2*A"})
REST = Scenario("rest")


def spread(n, model=LOOP, names=("r", "K", "k_i", "k_s")):
    """Values about the nominal ones."""
    rng = np.random.default_rng(7)
    return {name: model.values[name] * rng.uniform(0.7, 1.4, n) for name in names}


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("crs_sim")]


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_each_member_is_the_run_of_its_own_values(n):
    values = spread(n)
    many = simulate_many(LOOP, [CASE, SPARED], values, sampling=Sampling(until=6, rtol=1e-8))
    assert many.members == tuple(range(n))
    for i in many.members:
        own = LOOP.with_values(**{name: column[i] for name, column in values.items()})
        for scenario in (CASE, SPARED):
            alone = simulate(own, scenario, days=many.days, rtol=1e-8)
            for name in (*LOOP.state_ids, *LOOP.quantity_ids):
                size = np.abs(alone[name]).max()
                assert many.course(name, scenario.name)[i] == pytest.approx(
                    alone[name], rel=1e-5, abs=1e-6 * size
                )


def test_doses_follow_each_members_weight_and_bioavailability():
    given = Scenario("given", Schedule((Dose(0, "pill", 2, "mg/kg"), Dose(1, "A", 3))))
    values = {"weight": [50.0, 100.0, 50.0], "F": [0.5, 0.5, 0.2], "k": [0.0, 0.0, 0.0]}
    many = simulate_many(WITH_DRUG, given, values, sampling=Sampling(days=[0, 1, 2]))
    assert many.course("A") == pytest.approx(
        np.array([[0, 50, 53], [0, 100, 103], [0, 20, 23]]), rel=1e-9
    )


@pytest.mark.parametrize("workers", [2, 16])
def test_the_same_bits_on_any_number_of_workers(workers):
    values = spread(70)
    one = simulate_many(LOOP, [CASE, SPARED], values, sampling=DAILY, workers=1)
    other = simulate_many(LOOP, [CASE, SPARED], values, sampling=DAILY, workers=workers)
    assert np.array_equal(one.courses, other.courses)
    assert one.members == other.members == tuple(range(70))


def test_the_same_bits_streamed():
    values = spread(70)
    whole = simulate_many(LOOP, [CASE, SPARED], values, sampling=DAILY, workers=2)
    parts = list(simulate_batches(LOOP, [CASE, SPARED], values, sampling=DAILY, workers=2))
    assert [len(part.members) for part in parts] == [batches.BATCH, 70 - batches.BATCH]
    assert [m for part in parts for m in part.members] == list(whole.members)
    assert np.array_equal(np.concatenate([part.courses for part in parts], axis=2), whole.courses)


def test_members_of_other_groups_of_four_do_not_matter():
    values = spread(40)
    whole = simulate_many(LOOP, CASE, values, sampling=DAILY)
    few = {name: column[:12] for name, column in values.items()}
    assert np.array_equal(
        simulate_many(LOOP, CASE, few, sampling=DAILY).courses, whole.courses[:, :, :12]
    )


def test_a_batch_travels_and_gives_the_same_bits():
    plan = plan_batches(LOOP, [CASE, SPARED], spread(40), DAILY)
    here = plan.gather(run_batch(batch) for batch in plan.batches())
    there = plan.gather(
        pickle.loads(pickle.dumps(run_batch(pickle.loads(pickle.dumps(batch)))))
        for batch in plan.batches()
    )
    assert np.array_equal(here.courses, there.courses)
    assert there.members == here.members


def test_a_failed_member_is_named_and_the_others_finish():
    k = np.linspace(0.05, 0.2, 12)
    calm = simulate_many(SOME, REST, {"k": k}, sampling=Sampling(until=2))
    k[5] = 0.9
    many = simulate_many(SOME, REST, {"k": k}, sampling=Sampling(until=2))
    (failure,) = many.failures
    assert (failure.member, failure.scenario) == (5, "rest")
    assert failure.day == pytest.approx(1 / 0.9, rel=1e-3)
    for words in ("failed on day 1.11", "segment 1 of 1", "A = ", "step size became too small"):
        assert words in failure.reason
    assert many.members == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)
    rest = np.array(many.members)
    assert many["A"] == pytest.approx(calm["A"][:, rest], rel=1e-5)
    others = [0, 1, 2, 3, 8, 9, 10, 11]
    assert np.array_equal(many["A"][:, np.isin(rest, others)], calm["A"][:, others])
    assert "11 of 12 members" in repr(many)
    assert str(failure).startswith("member 5 under 'rest': some: the run failed")


def test_the_reason_is_what_simulate_says():
    many = simulate_many(SOME, REST, {"k": [0.9]}, sampling=Sampling(until=2))
    assert many.members == ()
    assert many["A"].shape == (1, 0, 3)
    with pytest.raises(ArithmeticError) as alone:
        simulate(SOME.with_values(k=0.9), REST, until=2, rtol=1e-4)
    said, told = str(alone.value), many.failures[0].reason
    assert said.split(";")[-1] == told.split(";")[-1]
    with pytest.raises(InputError, match="no member finished"):
        many.quantiles("A")


def test_a_member_that_fails_under_one_scenario_is_left_out_of_all():
    pushed = Scenario("pushed", Schedule((Dose(0, "A", 3),)))
    many = simulate_many(SOME, [REST, pushed], {"k": [0.01, 0.2, 0.02]}, sampling=Sampling(until=2))
    assert [(f.member, f.scenario) for f in many.failures] == [(1, "pushed")]
    assert many.members == (0, 2)
    assert many["A"].shape == (2, 2, 3)
    assert many.course("A", "rest")[:, -1] == pytest.approx([1 / 0.98, 1 / 0.96], rel=1e-4)
    assert many.course("A", "pushed")[:, -1] == pytest.approx([4 / 0.92, 4 / 0.84], rel=1e-4)


def test_an_initial_state_that_is_no_number_is_a_failure():
    model = small("start", {"A": ("ln(a)", "-A")}, {"a": 1.0})
    many = simulate_many(model, REST, {"a": [1.0, -1.0]}, sampling=Sampling(until=1))
    assert many.members == (0,)
    assert "initial states cannot be computed: A is not finite" in many.failures[0].reason


def test_a_quantity_that_is_no_number_is_a_failure():
    model = small("log", {"A": ("1", "-A")}, {"a": 0.1}, {"log_a": "ln(A - a)", "twice": "2*A"})
    many = simulate_many(model, REST, {"a": [0.1, 0.3]}, sampling=Sampling(until=2))
    assert many.members == (0,)
    assert (many.failures[0].member, many.failures[0].day) == (1, 2.0)
    assert "log_a is not a finite number on day 2" in many.failures[0].reason
    kept = Sampling(until=2, outputs=["twice"])
    assert simulate_many(model, REST, {"a": [0.1, 0.3]}, sampling=kept).members == (0, 1)


def test_no_members_give_an_empty_ensemble():
    many = simulate_many(LOOP, [CASE, SPARED], spread(0), sampling=DAILY)
    assert many["I"].shape == (2, 0, 7)
    assert many.failures == ()
    assert many.table().empty
    assert list(simulate_batches(LOOP, CASE, spread(0))) == []


def test_members_without_values_of_their_own_are_the_nominal_one():
    two = simulate_many(LOOP, CASE, pd.DataFrame(index=["x", "y"]), sampling=DAILY)
    assert two.members == ("x", "y")
    assert np.array_equal(two.courses[:, :, 0], two.courses[:, :, 1])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k_ii": [1.0]}, "unknown parameter 'k_ii': did you mean 'k_i'"),
        ({"I": [1.0]}, "unknown parameter 'I'"),
        ({"k_i": [1.0, np.nan]}, "k_i of member 1 is nan"),
        ({"k_i": [1.0, 2.0], "r": [1.0]}, "r has 1 values, k_i has 2"),
        ({"k_i": ["many"]}, "k_i contains a value that is not a number"),
        ({"k_i": 3.0}, "k_i must be one-dimensional"),
        ({}, "give at least one parameter"),
        (pd.DataFrame({"k_i": [1.0, 2.0]}, index=["a", "a"]), "member 'a' appears twice"),
        (pd.DataFrame([[1.0, 2.0]], columns=["r", "r"]), "column r appears twice"),
        ({"K": [1.0]}, "K is set both by scenario 'own' and by the members' values"),
    ],
)
def test_values_that_cannot_be_used_are_refused(values, words):
    own = CASE.with_values(K=0.5).with_doses(CASE.doses, "own")
    with pytest.raises((InputError, UnknownNameError), match=words):
        simulate_many(LOOP, [REST, own], values)


@pytest.mark.parametrize(
    ("scenarios", "sampling", "words"),
    [
        ([], DAILY, "scenarios: give at least one"),
        ([CASE, CASE], DAILY, "two are named 'case'"),
        (CASE, Sampling(outputs=["E_fre"]), "unknown state or quantity 'E_fre'.*'E_free'"),
        (CASE, Sampling(days=[2, 1]), "ascending"),
        (CASE.with_values(k_sS=1.0), DAILY, "unknown parameter 'k_sS'"),
    ],
)
def test_other_things_that_cannot_be_run_are_refused(scenarios, sampling, words):
    with pytest.raises((InputError, UnknownNameError), match=words):
        simulate_many(LOOP, scenarios, spread(2), sampling=sampling)


def test_a_bad_number_of_workers_is_refused():
    with pytest.raises(InputError, match="workers is 0"):
        simulate_many(LOOP, CASE, spread(2), workers=0)


def test_a_scenarios_own_values_are_the_members_where_they_have_none():
    heavy = CASE.with_values(K=0.5)
    many = simulate_many(LOOP, heavy, spread(3, names=("r",)), sampling=DAILY)
    same = {**spread(3, names=("r",)), "K": [0.5] * 3}
    assert np.array_equal(many.courses, simulate_many(LOOP, CASE, same, sampling=DAILY).courses)


def test_progress_is_told():
    seen = []
    simulate_many(LOOP, CASE, spread(70), sampling=DAILY, workers=2,
                  progress=lambda done, of: seen.append((done, of)))  # fmt: skip
    assert seen == [(batches.BATCH, 70), (70, 70)]


def test_few_batches_run_ahead_of_the_reader(monkeypatch):
    begun = []

    def counted(batch, stop):
        begun.append(batch.members[0])
        return run_batch(batch, stop=stop)

    monkeypatch.setattr(batches, "run_batch", counted)
    monkeypatch.setattr(batches, "BATCH", 4)
    for taken, _ in enumerate(simulate_batches(LOOP, CASE, spread(80), sampling=DAILY, workers=2)):
        time.sleep(0.01)
        assert len(begun) <= taken + 1 + 4


def test_memory_of_a_stream_does_not_grow_with_the_members():
    def peak(n):
        values = spread(n)
        tracemalloc.start()
        # One worker: how many batches are at work at one time is then not a matter of luck.
        for _ in simulate_batches(LOOP, CASE, values, sampling=Sampling(until=60), workers=1):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(32)
    assert peak(3200) < 1.5 * peak(320)


def test_closing_early_leaves_no_thread():
    parts = simulate_batches(LOOP, CASE, spread(2000), sampling=DAILY, workers=3)
    next(parts)
    assert own_threads()
    parts.close()
    assert not own_threads()


def test_ctrl_c_stops_promptly_and_leaves_no_thread():
    seen = []

    def tell(done, _):
        seen.append(done)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        simulate_many(LOOP, CASE, spread(400_000), sampling=DAILY, workers=2, progress=tell)
    assert not own_threads()
    assert 0 < seen[-1] < 4_000  # of 400,000: what was under way, no more


def test_an_error_in_the_middle_stops_the_rest():
    def tell(done, _):
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        simulate_many(LOOP, CASE, spread(2000), sampling=DAILY, workers=2, progress=tell)
    assert not own_threads()


def test_patients_of_the_case():
    model, case = crs_sim.load_model("crs"), crs_sim.load_patient("ruemmele2025").scenario
    once = case.with_doses(case.doses.between(0, 11), "first two weeks")
    rng = np.random.default_rng(1)
    names = ("engraftment", "k_ifng_host", "d_mac", "k_ferritin")
    values = {n: model.values[n] * rng.lognormal(0, 0.2, 5) for n in names}
    asked = Sampling(outputs=("ifng", "c_ruxolitinib", "c_dexamethasone", "ferritin", "shock"))
    many = simulate_many(model, [case, once], values, sampling=asked)
    assert not many.failures
    for i in (0, 4):
        own = model.with_values(**{name: column[i] for name, column in values.items()})
        for scenario in (case, once):
            alone = simulate(own, scenario, days=many.days, rtol=1e-9)
            for name in many.outputs:
                floor = 1e-3 * np.abs(alone[name]).max()
                error = np.abs(many.course(name, scenario.name)[i] - alone[name])
                assert (error <= 1e-4 * np.maximum(np.abs(alone[name]), floor)).all()


def test_an_endpoint_asked_for_twice_is_the_same_number():
    """Parts of a run are joined by name, so that no row of the table is left unfilled."""
    end = endpoint(LOOP, f"auc_{LOOP.state_ids[0]}")
    once, twice = (
        simulate_many(LOOP, CASE, spread(70), sampling=replace(DAILY, endpoints=ends))
        for ends in ((end,), (end, end))
    )
    assert np.array_equal(twice.endpoint(end.name), once.endpoint(end.name))
