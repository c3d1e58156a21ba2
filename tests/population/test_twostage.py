"""The population from evidence, against the marginal likelihood; and where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from crs_sim.population.importance_sampling import QuadraticLikelihood
from crs_sim.population.two_stage import PopulationPrior, two_stage

YES, NO = np.array([True, True]), np.array([False, False])


def evidence(rng: np.random.Generator, n: int, *, rank: int = 2) -> list[QuadraticLikelihood]:
    """What n patients say of two parameters, with centre (1, -2) and spread (0.5, 0.3)."""
    found = []
    for _ in range(n):
        true = np.array([1.0, -2.0]) + np.array([0.5, 0.3]) * rng.standard_normal(2)
        design = rng.standard_normal((rank, 2)) * 4.0
        readings = design @ true + rng.standard_normal(rank)
        x = rng.standard_normal(2)  # wherever the parabola is written down, it is the same
        found.append(QuadraticLikelihood(x, design.T @ (design @ x - readings), design.T @ design))
    return found


def minus_two_log(who: list[QuadraticLikelihood], centre: np.ndarray, spread: np.ndarray) -> float:
    """The marginal likelihood by plain Gaussian integration."""
    total = 0.0
    for e in who:
        precision = e.information + np.diag(1 / spread**2)
        pull = e.information @ e.x - e.slope + centre / spread**2
        total += np.log(np.linalg.det(precision)) + 2 * np.log(spread).sum()
        total += np.sum(centre**2 / spread**2) - pull @ np.linalg.solve(precision, pull)
    return float(total)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_it_is_the_maximum_of_the_marginal_likelihood(rank):
    who = evidence(np.random.default_rng(10 + rank), 30, rank=rank)
    found = two_stage(who, PopulationPrior(np.zeros(2), np.ones(2), 0.0, YES, NO))
    best = minimize(lambda p: minus_two_log(who, p[:2], np.exp(p[2:])), np.zeros(4),
                    method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10,
                                                   "maxiter": 4000, "maxfev": 4000})  # fmt: skip
    assert found.centre == pytest.approx(best.x[:2], abs=1e-4)
    assert found.spread == pytest.approx(np.exp(best.x[2:]), rel=1e-3)


def test_standard_errors_are_those_of_many_data_sets():
    rng = np.random.default_rng(3)
    prior = PopulationPrior(np.zeros(2), np.ones(2), 0.0, YES, NO)
    runs = [two_stage(evidence(rng, 25, rank=3), prior)
            for _ in range(60)]  # fmt: skip
    centres = np.array([r.centre for r in runs])
    assert centres.mean(axis=0) == pytest.approx([1.0, -2.0], abs=0.05)
    said = np.mean([r.centre_error for r in runs], axis=0)
    assert said == pytest.approx(centres.std(axis=0), rel=0.35)
    logs = np.log([r.spread for r in runs])
    said = np.median([r.spread_error for r in runs], axis=0)
    assert said == pytest.approx(logs.std(axis=0), rel=0.35)


def test_a_patient_who_says_nothing_gets_the_centre_and_changes_nothing():
    who = evidence(np.random.default_rng(1), 20)
    silent = QuadraticLikelihood(np.zeros(2), np.zeros(2), np.zeros((2, 2)))
    asked = PopulationPrior(np.zeros(2), np.ones(2), 0.0, YES, NO)
    alone, both = two_stage(who, asked), two_stage([*who, silent], asked)
    assert both.patients[-1] == pytest.approx(both.centre)
    assert both.errors[-1] == pytest.approx(both.spread)
    assert both.centre == pytest.approx(alone.centre, abs=1e-3)
    assert both.spread == pytest.approx(alone.spread, rel=1e-2)


def test_what_nobody_tells_stays_as_assumed_and_is_shrunk_wholly():
    who = [QuadraticLikelihood(e.x, e.slope * [1, 0], e.information * [[1, 0], [0, 0]])
           for e in evidence(np.random.default_rng(2), 10)]  # fmt: skip
    found = two_stage(
        who, PopulationPrior(np.array([0.0, 7.0]), np.array([1.0, 0.4]), 1.0, YES, NO)
    )
    assert found.centre[1] == pytest.approx(7.0)
    assert found.spread[1] == pytest.approx(0.4)
    assert found.shrinkage[1] == pytest.approx(1.0)
    assert found.centre_error[1] > 0.39


def test_more_data_shrink_less():
    rng = np.random.default_rng(4)
    who = evidence(rng, 30)
    weak = [QuadraticLikelihood(e.x, 0.05 * e.slope, 0.05 * e.information) for e in who]
    asked = PopulationPrior(np.zeros(2), np.array([0.5, 0.3]), 1.0, YES, NO)
    assert np.all(two_stage(weak, asked).shrinkage > two_stage(who, asked).shrinkage + 0.1)


def test_the_assumed_counts_as_so_many_patients():
    sure = [QuadraticLikelihood(np.array([z]), np.zeros(1), np.array([[1e8]])) for z in (1.0, 1.0)]
    one, no = np.array([True]), np.array([False])
    found = two_stage(sure, PopulationPrior(np.zeros(1), np.ones(1), 1e6, one, no))
    assert found.centre[0] == pytest.approx(0.0, abs=1e-4)
    assert found.spread[0] == pytest.approx(1.0, rel=1e-3)
    found = two_stage(sure, PopulationPrior(np.zeros(1), np.ones(1), 0.0, one, no))
    assert found.centre[0] == pytest.approx(1.0)
    assert found.spread[0] == pytest.approx(1e-3)  # alike: none is left


def test_a_shared_parameter_is_one_value_for_all():
    who = evidence(np.random.default_rng(5), 15)
    shared = np.array([False, True])
    found = two_stage(who, PopulationPrior(np.zeros(2), np.ones(2), 0.0, YES, shared))
    assert found.spread[1] == 0.0
    assert np.ptp(found.patients[:, 1]) == 0.0
    assert np.isnan(found.spread_error[1]) and found.centre_error[1] > 0
    sums = (
        np.sum([e.information for e in who], axis=0),
        np.sum([e.information @ e.x - e.slope for e in who], axis=0),
    )
    all_shared = two_stage(who, PopulationPrior(np.zeros(2), np.ones(2), 0.0, YES, YES))
    assert all_shared.centre == pytest.approx(np.linalg.solve(*sums))


def test_an_own_parameter_keeps_its_prior():
    who = evidence(np.random.default_rng(6), 15)
    pooled = np.array([True, False])
    found = two_stage(
        who, PopulationPrior(np.array([0.0, -1.0]), np.array([1.0, 0.8]), 0.0, pooled, NO)
    )
    assert (found.centre[1], found.spread[1]) == (-1.0, pytest.approx(0.8))
    assert np.isnan(found.centre_error[1]) and np.isnan(found.spread_error[1])
    assert np.ptp(found.patients[:, 1]) > 0
