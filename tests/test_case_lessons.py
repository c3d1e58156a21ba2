"""What the case teaches comes out of the model: at the estimates, under the shipped scenarios."""

from __future__ import annotations

import numpy as np
import pytest
from paths import SHIPPED_RUN

from crs_sim.fitting.storage import load_fit
from crs_sim.scenarios.comparison import Comparison, compare
from crs_sim.scenarios.scenario_file import load_scenarios
from crs_sim.simulation.ensemble import Sampling
from crs_sim.store.files import root

IDEAL = "ideal IL-6R blockade from day 18, no emapalumab"


@pytest.fixture(scope="module")
def best():
    return load_fit(SHIPPED_RUN)


@pytest.fixture(scope="module")
def found(best) -> Comparison:
    given = best.problem.patient.scenario
    asked = load_scenarios(root() / "fits" / "ruemmele2025", given, best.model)
    sampling = Sampling(until=asked.until, every_hours=6)
    return compare(best, asked.scenarios, asked.endpoints, draws=24, sampling=sampling)


def at_estimates(found, scenario, endpoint):
    names = [e.name for e in found.endpoints]
    return found.estimates[found.scenarios.index(scenario), names.index(endpoint)]


def grades_from(found, scenario, day):
    run = found.runs[found.scenarios.index(scenario)]
    return run["crs_grade"][run.days >= day]


def test_as_given_is_the_fits_own_run_to_the_last_digit(best, found):
    run = best.simulation(found.predictions.days)
    assert [float(e.of(run)) for e in found.endpoints] == found.estimates[0].tolist()


def test_blocking_il6_alone_does_not_end_the_second_episode(found):
    assert grades_from(found, "as given", 28).max() == 0
    assert grades_from(found, IDEAL, 28).min() >= 3
    given = at_estimates(found, "as given", "vasopressor_days")
    assert at_estimates(found, IDEAL, "vasopressor_days") > given + 7
    assert (found.difference(IDEAL, "vasopressor_days") > 0).all()


def test_blocking_ifng_ends_it_and_keeps_the_cells(found):
    assert grades_from(found, "no emapalumab", 28).min() >= 3
    kept = at_estimates(found, "as given", "auc_vcn") / at_estimates(
        found, "no emapalumab", "auc_vcn")  # fmt: skip
    assert kept == pytest.approx(1.0, abs=0.01)
    for later, sooner in (("as given", "21"), ("emapalumab from day 21", "19")):
        days = [at_estimates(found, s, "vasopressor_days")
                for s in (later, f"emapalumab from day {sooner}")]  # fmt: skip
        assert days[1] < days[0]


def test_without_the_second_pulse_there_is_no_grade_4(found):
    assert at_estimates(found, "as given", "worst_grade") == 4
    assert at_estimates(found, "no second rimiducid", "worst_grade") < 4
    assert (found.of("no second rimiducid", "worst_grade") < 4).mean() > 0.9


def test_every_scenario_ran_for_every_draw(found):
    assert not found.predictions.ensemble.failures
    assert np.isfinite(found.draws).all() and found.draws.shape[0] == 19


def test_doses_by_rule_stand_in_the_ledger(found):
    run = found.runs[found.scenarios.index("tocilizumab by rule: grade 2, at most four")]
    given = [entry for entry in run.ledger.given if entry.drug == "tocilizumab"]
    assert [entry.why for entry in given] == ["trigger grade 2"] * 4
    assert all((2 * entry.day) % 1 == 0 for entry in given)
    late = found.runs[found.scenarios.index("emapalumab by rule: grade 4, at most two")]
    days = [entry.day for entry in late.ledger.given if entry.drug == "emapalumab"]
    assert len(days) >= 1 and 19 <= days[0] < 24


# --- ideal blockades ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blocked(best) -> Comparison:
    given = best.problem.patient.scenario
    asked = load_scenarios(root() / "fits" / "ruemmele2025" / "blockades.toml", given, best.model)
    sampling = Sampling(until=asked.until, every_hours=6)
    return compare(best, asked.scenarios, asked.endpoints, draws=4, sampling=sampling)


def after(found, target, name, first):
    run = found.runs[found.scenarios.index(f"{target} blocked from day 18")]
    return run[name][run.days >= first]


def test_each_ideal_blockade_blocks_what_it_names_and_nothing_before(best, blocked):
    day_18 = blocked.runs[0].days <= 18
    for run in blocked.runs:
        assert np.array_equal(run["shock"][day_18], blocked.runs[0]["shock"][day_18])
    assert after(blocked, "IL-6R", "crp", 25).max() < 1
    assert after(blocked, "IFN-g", "ifng", 19).max() <= best.model.values["ifng_0"] + 0.01
    assert (np.diff(after(blocked, "switch", "SWITCH", 18)) <= 0).all()
    share = {c.parameter: c.factor for c in blocked.runs[4].scenario.changes}
    assert share["k_il6"] == pytest.approx(1 - best.model.values["imax_ana"])
    assert after(blocked, "IL-1", "ana_factor", 18).min() == 1  # gone with or without anakinra


def test_only_ifng_and_the_switch_end_the_second_episode(blocked):
    for target, ends in (("IL-6R", False), ("IL-1", False), ("IFN-g", True), ("switch", True)):
        grade = after(blocked, target, "crs_grade", 28)
        assert grade.max() == 0 if ends else grade.min() >= 3
    kept = {n: at_estimates(blocked, f"{n} blocked from day 18", "auc_vcn")
            for n in ("IFN-g", "switch")}  # fmt: skip
    given = at_estimates(blocked, "as given", "auc_vcn")
    assert kept["IFN-g"] == pytest.approx(given, rel=0.01) and kept["switch"] < 0.95 * given
