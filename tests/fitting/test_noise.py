"""Residuals against log-likelihoods written down independently with scipy.stats."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from crs_sim.errors import InputError, UnknownNameError
from crs_sim.fitting.grades import log_chance_between
from crs_sim.fitting.noise import (
    GradeScale,
    Noise,
    Spread,
    days_needed,
    log_level,
    predicted,
    residual_vector,
    residuals,
    sometime_residuals,
)
from crs_sim.fitting.objective import residual
from crs_sim.patients.patient import Observation

NAN = math.nan
SD = 0.3
CUTS = {"grade_1": 0.5, "grade_2": 1.0, "grade_3": 1.5, "grade_4": 3.0}
NOISE = Noise({"il6": Spread(SD)}, GradeScale("shock", tuple(CUTS), 0.2))


class Curves:
    """A run that needs no solver: each name is a formula in days."""

    def __init__(self, days, **formulas):
        self.days = np.asarray(days, dtype=float)
        self.values = CUTS
        self._columns = {name: f(self.days) + 0.0 * self.days for name, f in formulas.items()}

    def __getitem__(self, name):
        return self._columns[name]


def observed(kind, day=2.0, until=None, reference=NAN, value=10.0, sd=NAN):
    observable = "crs_grade" if kind == "grade" else "il6"
    until = day if until is None else until
    return Observation(kind, observable, kind, day, until, reference, value, "pg/mL", sd)


def squares(observation, **formulas):
    run = Curves(days_needed([observation]), **formulas)
    return sum(r * r for r in residuals(observation, run, NOISE))


def reading(level):
    return stats.lognorm(SD, scale=level)


def hump(height):
    return lambda days: height * np.exp(-((days - 2.3) ** 2))


def window(first, last):
    days = np.arange(round(first * 20), round(last * 20) + 1) / 20
    weights = np.ones(days.size)
    weights[[0, -1]] = 0.5
    return days, weights / weights.sum()


def log_likelihood_sometime(height):
    days, weights = window(1.0, 3.0)
    return math.log(weights @ reading(hump(height)(days)).pdf(10.0))


LEVELS = [0.5, 3.0, 9.0, 10.0, 14.0, 60.0]
CURVE_KINDS = {
    "value": (observed("value"), lambda h: reading(hump(h)(2.0)).logpdf(10.0)),
    "below": (observed("below"), lambda h: reading(hump(h)(2.0)).logcdf(10.0)),
    "above": (observed("above"), lambda h: reading(hump(h)(2.0)).logsf(10.0)),
    "peak": (observed("peak", 1.0, 3.0), lambda h: reading(h).logpdf(10.0)),
    "sometime": (observed("sometime", 1.0, 3.0), log_likelihood_sometime),
}


@pytest.mark.parametrize("kind", CURVE_KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_squares_differ_as_twice_the_log_likelihood(kind, level):
    observation, log_likelihood = CURVE_KINDS[kind]
    got = squares(observation, il6=hump(level)) - squares(observation, il6=hump(10.0))
    expected = -2 * (log_likelihood(level) - log_likelihood(10.0))
    assert got == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "log_likelihood"),
    [
        ("ratio", stats.norm.logpdf),
        ("ratio_below", stats.norm.logcdf),
        ("ratio_above", stats.norm.logsf),
    ],
)
@pytest.mark.parametrize("factor", [0.2, 0.5, 0.7, 3.0])
def test_a_ratio_compares_two_days_of_one_run(kind, log_likelihood, factor):
    observation = observed(kind, day=2.0, reference=1.0, value=0.5)

    def course(ratio):
        return lambda days: 700.0 * np.where(days == 2.0, ratio, 1.0)

    z = [math.log(0.5 / ratio) / SD for ratio in (factor, 0.5)]
    expected = -2 * (log_likelihood(z[0]) - log_likelihood(z[1]))
    got = squares(observation, il6=course(factor)) - squares(observation, il6=course(0.5))
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9)
    run = Curves(days_needed([observation]), il6=course(factor))
    assert predicted(observation, run) == pytest.approx(factor)


@pytest.mark.parametrize("grade", range(5))
@pytest.mark.parametrize("latent", [0.0, 0.45, 1.2, 2.0, 3.1, 9.0])
def test_a_grade_is_an_ordinal_probit_of_the_latent_quantity(grade, latent):
    edges = np.array([-np.inf, *CUTS.values(), np.inf])
    chance = np.diff(stats.norm(latent, 0.2).cdf(edges))[grade]
    got = squares(observed("grade", value=float(grade)), shock=lambda days: latent)
    if chance > 1e-12:
        assert got == pytest.approx(-2 * math.log(chance), rel=1e-6, abs=1e-12)
    else:
        assert 50 < got < math.inf


def test_an_observation_brings_its_own_spread():
    run = Curves([2.0], il6=lambda days: 5.0)
    assert residual(observed("value", sd=1.0), run, NOISE) == pytest.approx(math.log(2))
    assert residual(observed("value"), run, NOISE) == pytest.approx(math.log(2) / SD)


def test_an_observable_without_spread_is_refused_by_name():
    run = Curves([2.0], il6=lambda days: 5.0)
    with pytest.raises(UnknownNameError, match="noise entry 'il6': did you mean 'il6r'"):
        residual(observed("value"), run, Noise({"il6r": Spread(0.2)}))
    with pytest.raises(InputError, match="no grade scale"):
        residual(observed("grade", value=1.0), run, Noise())


@pytest.mark.parametrize("kind", ["below", "above"])
@pytest.mark.parametrize("z", [-40.0, -20.0, -6.0, -1.0, 0.0, 1.0, 5.0, 8.5, 14.0, 30.0])
def test_a_limit_keeps_its_slope_however_far_away(kind, z):
    """The derivative to z of sqrt(-2 ln Phi(z)), where it is tiny and where it is huge."""
    sign = 1 if kind == "below" else -1

    def root(z):
        level = 10.0 * math.exp(-sign * SD * z)
        return abs(residual(observed(kind), Curves([2.0], il6=lambda days: level), NOISE))

    log_slope = (
        stats.norm.logpdf(z) - stats.norm.logcdf(z) - math.log(math.sqrt(-2 * stats.norm.logcdf(z)))
    )
    step = 1e-4
    slope = (root(z + step) - root(z - step)) / (2 * step)
    assert slope == pytest.approx(-math.exp(log_slope), rel=2e-5)


@pytest.mark.parametrize("kind", ["value", "below", "above", "peak", "sometime", "ratio_above"])
@pytest.mark.parametrize("level", [0.0, -1e-12, -1e-3, 1e-300, 1e12])
def test_hopeless_curves_give_finite_residuals(kind, level):
    until = 3.0 if kind in ("peak", "sometime") else None
    reference = 1.0 if kind == "ratio_above" else NAN
    assert math.isfinite(squares(observed(kind, 2.0, until, reference), il6=lambda days: level))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 10))
def test_the_bent_logarithm_rises_everywhere(level, factor):
    here, there = log_level(np.array([level, level + abs(level) * 1e-3 + 1e-9]), factor)
    assert here <= there
    if level > 0.01 * factor:
        assert here == pytest.approx(math.log(level), abs=1e-7)


def test_an_unknown_day_on_a_flat_curve_is_a_plain_value():
    """Signed and with the full slope, also where the curve is exactly right."""
    for e in (-2.0, -1e-9, 0.0, 1e-9, 3.0):
        mean, rest = sometime_residuals(np.full(41, e))
        assert mean == pytest.approx(e, abs=1e-12)
        assert rest == pytest.approx(1e-3)


def test_an_unknown_day_forgives_a_curve_that_passes_the_value():
    passing = squares(observed("sometime", 0.0, 4.0), il6=lambda days: 10 * np.exp(2 * days - 4))
    missing = squares(observed("sometime", 0.0, 4.0), il6=lambda days: 0.01 + 0 * days)
    assert passing < 6 < 400 < missing


@pytest.mark.parametrize("shift", [-900.0, -30.0, -3.0, 0.0, 3.0, 30.0, 900.0])
def test_the_chance_of_an_interval_in_both_tails(shift):
    got = log_chance_between(shift - 0.5, shift + 0.5)
    exact = stats.norm.logcdf(0.5 - abs(shift))  # the nearer edge carries the far tail
    near = stats.norm.logcdf(-0.5 - abs(shift))
    expected = exact + math.log(-math.expm1(near - exact))
    assert got == pytest.approx(expected, rel=1e-10)


def test_cut_points_in_the_wrong_order_lead_back():
    chances = [log_chance_between(0.0, width) for width in (-2, -1, -1e-3, 0.0, 1e-9, 1e-3, 1.0)]
    assert chances == sorted(chances)
    assert all(math.isfinite(chance) for chance in chances)


@given(st.floats(-5, 5), st.floats(1e-5, 5))
def test_interval_chances_agree_with_the_plain_difference(low, width):
    plain = stats.norm.cdf(low + width) - stats.norm.cdf(low)
    assert math.exp(log_chance_between(low, low + width)) == pytest.approx(plain, rel=1e-4)


def test_days_needed_are_ascending_and_none_is_there_twice():
    asked = [
        observed("peak", 11.0, 18.0),
        observed("sometime", 17.3, 18.05),
        observed("ratio", day=27.0, reference=18.0),
        observed("value", day=20.3541666),
    ]
    days = days_needed(asked)
    assert np.diff(days).min() > 1e-3
    assert {11.0, 11.05, 18.0, 18.05, 20.3541666, 27.0} <= set(days)
    assert days.size == 142 + 2
    residual_vector(asked, Curves(days, il6=lambda days: 10.0), NOISE)


def test_a_run_that_was_not_sampled_there_is_refused():
    with pytest.raises(InputError, match=r"il6 is observed from day 1 to 3.*days_needed"):
        predicted(observed("peak", 1.0, 3.0), Curves([1.0, 3.0], il6=lambda days: days))
    with pytest.raises(InputError, match="not sampled"):
        predicted(observed("value", 9.0), Curves([1.0, 3.0], il6=lambda days: days))


def test_predicted_is_the_peak_the_closest_or_the_value():
    days = days_needed([observed("peak", 1.0, 3.0)])
    run = Curves(days, il6=lambda days: 4 * days, crs_grade=lambda days: np.floor(days))
    assert predicted(observed("peak", 1.0, 3.0), run) == 12.0
    assert predicted(observed("sometime", 1.0, 3.0), run) == pytest.approx(10.0)
    assert predicted(observed("value", 2.0), run) == 8.0
    assert predicted(observed("grade", 3.0, value=4.0), run) == 3.0


def test_signs_say_on_which_side_the_reading_lies():
    run = Curves([2.0], il6=lambda days: 5.0)
    assert residual(observed("value"), run, NOISE) > 0
    assert residual(observed("above"), run, NOISE) > 0
    assert residual(observed("below"), run, NOISE) < 0
