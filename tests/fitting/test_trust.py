"""What a report says first: a poor optimum, a bound, a covariance that is singular."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small_fits import LEVELS, asked, free
from small_models import small

from crs_sim.fitting.diagnostics import agreeing, agreement_text, condition_text, fit_warnings
from crs_sim.fitting.fitting import covariance_of, fit
from crs_sim.fitting.priors import Free
from crs_sim.reports.fit_report import report_text


@pytest.fixture(scope="module")
def good():
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3)), starts=3, workers=1)


def first_lines(result):
    return "\n".join(report_text(result).splitlines()[:4])


def test_nothing_is_said_of_a_good_fit(good):
    assert fit_warnings(good) == ()
    assert agreeing(good) == 3
    assert agreement_text(good) == ("3 of 3 starts end within 0.1 of the best cost, 3 within 1")
    assert "Warning" not in report_text(good)
    assert "3 of 3 starts end within 0.1" in report_text(good)


def test_a_best_cost_that_one_start_reached_is_said_first(good):
    far = tuple(replace(s, cost=s.cost + 5.0) for s in good.starts[1:])
    poor = replace(good, starts=(good.starts[0], *far))
    assert "only one of the 3 starts came within 1 of the best cost" in fit_warnings(poor)[0]
    assert "only one of the 3 starts" in first_lines(poor)
    none = replace(good, starts=tuple(replace(s, cost=s.cost + 5.0) for s in good.starts))
    assert fit_warnings(none)[0].startswith("none of the 3 starts")
    alone = replace(good, starts=good.starts[:1])
    assert "only one start was made" in first_lines(alone)


def test_a_bound_is_said_first():
    result = fit(
        asked(free("a0", 10.0, 5.0, factor=1.05), free("gain", 3.0, 0.3)), starts=2, workers=1
    )
    assert "at a bound: a0 (upper)" in first_lines(result)


def test_a_descent_that_was_cut_off_is_said_first(good):
    cut = replace(good, polish=replace(good.polish, converged=False, status="too many steps"))
    assert "stopped before it had converged: too many steps" in first_lines(cut)


def test_a_singular_covariance_is_said_first_and_gives_no_small_errors():
    """Only the product of the two is seen, and their priors say next to nothing."""
    both = small(
        "both",
        {"A": ("a0", "-k*A")},
        {"k": 0.5, "a0": 10.0, "p": 1.0, "q": 1.0},
        {"signal": "p*q*A"},
    )
    wide = [Free(name, 1e-9, 1e9, 1.0, 1e12, "a test") for name in ("p", "q")]
    result = fit(asked(*wide, observations=LEVELS[2:], model=both), starts=2, workers=1)
    assert result.singular
    assert math.isinf(result.condition)
    assert "the covariance is singular" in first_lines(result)
    assert condition_text(result) == "the covariance is singular"
    for estimate in result.estimates:
        assert estimate.standard_error > 1e6
        assert estimate.low < 1e-100 < 1e100 < estimate.high
    assert np.isfinite(result.covariance).all()


def test_the_covariance_of_a_sound_jacobian_is_its_inverse():
    jacobian = np.random.default_rng(1).normal(size=(9, 4)) * [1.0, 1e-3, 1e4, 1.0]
    covariance, singular = covariance_of(jacobian)
    assert covariance == pytest.approx(np.linalg.inv(jacobian.T @ jacobian), rel=1e-8)
    assert not singular
    assert covariance_of(np.array([[1.0, 1.0], [2.0, 2.0]]))[1]


def test_the_condition_number_is_that_of_the_correlations(good):
    r = good.covariance[0, 1] / math.sqrt(good.covariance[0, 0] * good.covariance[1, 1])
    assert good.condition == pytest.approx((1 + abs(r)) / (1 - abs(r)), rel=1e-9)
    assert condition_text(good) == f"condition number of the correlations {good.condition:.3g}"
    tight = 1 - 1e-5
    close = replace(good, covariance=np.array([[1.0, tight], [tight, 1.0]]))
    assert "can hardly be distinguished" in condition_text(close)
