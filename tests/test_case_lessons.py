"""What the case teaches comes out of the model: at the estimates, under the shipped scenarios."""

from __future__ import annotations

import numpy as np
import pytest

from crs_sim.comparison import Comparison, compare
from crs_sim.ensemble import Sampling
from crs_sim.scenariofile import load_scenarios
from crs_sim.shipped import root
from crs_sim.storage import load_fit

IDEAL = "ideal IL-6R blockade from day 18, no emapalumab"


@pytest.fixture(scope="module")
def best():
    return load_fit("ruemmele2025")


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
    assert np.isfinite(found.draws).all() and found.draws.shape[0] == 18


def test_doses_by_rule_stand_in_the_ledger(found):
    run = found.runs[found.scenarios.index("tocilizumab by rule: grade 2, at most four")]
    given = [entry for entry in run.ledger.given if entry.drug == "tocilizumab"]
    assert [entry.why for entry in given] == ["trigger grade 2"] * 4
    assert all((2 * entry.day) % 1 == 0 for entry in given)
    late = found.runs[found.scenarios.index("emapalumab by rule: grade 4, at most two")]
    days = [entry.day for entry in late.ledger.given if entry.drug == "emapalumab"]
    assert len(days) >= 1 and 19 <= days[0] < 24
