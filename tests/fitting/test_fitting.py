"""Fits whose answer is known: closed forms, exact likelihoods, and what must not change it."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from small_fits import DECAY, GRADED, LEVELS, asked, free, seen
from small_models import small

from crs_sim.errors import InputError, IntegrationError
from crs_sim.fitting.fitting import drop_one, fit, start_points
from crs_sim.fitting.noise import GradeScale, Noise, Spread
from crs_sim.fitting.objective import Objective, curves, point_of

CLOSE = 1e-4  # of a log parameter: hundreds of times under the smallest standard error here


def linear_answer(problem):
    """MAP and covariance of ln a0 and ln gain with k fixed: a linear Gaussian model."""
    k = problem.model.values["k"]
    rows = {"A": [1.0, 0.0], "signal": [1.0, 1.0]}
    sds = {"A": 0.2, "signal": 0.1}
    design = [np.array(rows[o.observable]) / sds[o.observable] for o in LEVELS]
    target = [(math.log(o.value) + k * o.day) / sds[o.observable] for o in LEVELS]
    for i, prior in enumerate(problem.free):
        design.append(np.eye(2)[i] / prior.sd)
        target.append(math.log(prior.median) / prior.sd)
    stacked, wanted = np.array(design), np.array(target)
    covariance = np.linalg.inv(stacked.T @ stacked)
    best = covariance @ stacked.T @ wanted
    return best, covariance, float(np.sum((wanted - stacked @ best) ** 2))


@pytest.fixture(scope="module")
def linear():
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3)), starts=3, workers=1)


def test_a_linear_problem_has_its_closed_form_answer(linear):
    best, covariance, cost = linear_answer(linear.problem)
    assert point_of(linear.problem, linear.values) == pytest.approx(best, abs=1e-6)
    assert linear.covariance == pytest.approx(covariance, rel=1e-5)
    assert linear.cost == pytest.approx(cost, rel=1e-7)
    for start in linear.starts:
        assert start.converged
        assert start.cost == pytest.approx(cost, rel=1e-6)


def test_estimates_say_how_sure_and_how_far_from_the_prior(linear):
    best, covariance, _ = linear_answer(linear.problem)
    a0 = linear.estimates[0]
    assert a0.estimate == pytest.approx(math.exp(best[0]), rel=1e-6)
    assert a0.standard_error == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-5)
    assert a0.shift == pytest.approx((best[0] - math.log(8.0)) / 0.4, rel=1e-5)
    assert a0.high / a0.estimate == pytest.approx(math.exp(1.959964 * a0.standard_error))
    assert a0.estimate / a0.low == pytest.approx(a0.high / a0.estimate)
    assert not a0.at_bound
    assert not a0.carried_by_prior


def test_cost_is_twice_the_negative_log_posterior(linear):
    problem = linear.problem

    def log_posterior(values):
        run = {o.id: values["a0"] * math.exp(-0.5 * o.day) for o in LEVELS}
        run["amplified"] *= values["gain"]
        spread = {"A": 0.2, "signal": 0.1}
        terms = [
            stats.lognorm(spread[o.observable], scale=run[o.id]).logpdf(o.value) for o in LEVELS
        ]
        # on the log scale a log-normal prior is normal
        priors = [
            stats.norm(math.log(f.median), f.sd).logpdf(math.log(values[f.name]))
            for f in problem.free
        ]
        return sum(terms) + sum(priors)

    elsewhere = {"a0": 5.0, "gain": 4.0}
    residuals = Objective(problem).residuals(point_of(problem, elsewhere))
    difference = -2 * (log_posterior(elsewhere) - log_posterior(linear.values))
    assert float(residuals @ residuals) - linear.cost == pytest.approx(difference, rel=1e-6)


def test_a_nonlinear_fit_agrees_with_another_optimiser():
    result = fit(asked(free("a0", 8.0, 0.4), free("k", 0.9, 0.7)), starts=3, workers=1)

    def cost(x):
        a0, k = np.exp(x)
        level = {o.id: a0 * math.exp(-k * o.day) for o in LEVELS}
        misses = [
            math.log(12.0 / level["first"]) / 0.2,
            math.log(1.9 / level["third"]) / 0.2,
            math.log(24.0 / (3 * level["amplified"])) / 0.1,
        ]
        return (
            sum(m * m for m in misses)
            + (x[0] - math.log(8)) ** 2 / 0.16
            + (x[1] - math.log(0.9)) ** 2 / 0.49
        )

    other = optimize.minimize(
        cost, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    assert result.cost == pytest.approx(other.fun, rel=1e-6)
    assert point_of(result.problem, result.values) == pytest.approx(other.x, abs=CLOSE)


def test_limits_are_fitted_by_their_exact_likelihood():
    limits = (seen("low", "A", 0.0, 6.0, "below"), seen("high", "A", 1.0, 5.0, "above"))
    result = fit(asked(free("a0", 10.0, 0.5), observations=limits), starts=2, workers=1)

    def cost(x):
        low = stats.norm.logcdf((math.log(6.0) - x) / 0.2)
        high = stats.norm.logcdf((x - 0.5 - math.log(5.0)) / 0.2)
        return -2 * (low + high) + ((x - math.log(10.0)) / 0.5) ** 2

    other = optimize.minimize_scalar(
        cost, bounds=(0, 5), method="bounded", options={"xatol": 1e-10}
    )
    assert result.cost == pytest.approx(other.fun, rel=1e-6)
    assert math.log(result.values["a0"]) == pytest.approx(other.x, abs=CLOSE)


def test_cut_points_can_be_fitted_to_grades():
    """Grades 0 and 1 on levels just either side of 2: the first cut-point lies between them."""
    days = {4: 0.4, 3: 1.2, 2: 2.1, 1: 3.3, 0: 5.0}
    grades = tuple(seen(f"g{g}", "crs_grade", d, g, "grade") for g, d in days.items())
    problem = asked(free("grade_1", 1.2, 1.0, 1.6), observations=grades, noise=GRADED)

    def cost(x):
        edges = np.array([-np.inf, math.exp(x), 2.0, 4.0, 8.0, np.inf])
        chance = [
            np.diff(stats.norm(10 * math.exp(-0.5 * d), 0.5).cdf(edges))[g] for g, d in days.items()
        ]
        return -2 * np.sum(np.log(chance)) + (x - math.log(1.2)) ** 2

    other = optimize.minimize_scalar(
        cost, bounds=(-0.4, 0.6), method="bounded", options={"xatol": 1e-10}
    )
    result = fit(problem, starts=1, workers=1)
    assert math.log(result.values["grade_1"]) == pytest.approx(other.x, abs=CLOSE)


def test_cut_points_may_be_quantities_of_parameters():
    """Written as steps they cannot get out of order."""
    steps = small(
        "steps",
        {"A": ("a0", "-k*A")},
        {"k": 0.5, "a0": 10.0, "one": 1.0, "step": 1.0, "three": 4.0, "four": 8.0},
        {"two": "one + step", "crs_grade": "reached(A, one) + reached(A, two)"},
    )
    noise = Noise({}, GradeScale("A", ("one", "two", "three", "four"), 0.5))
    grades = (seen("g", "crs_grade", 3.0, 2.0, "grade"), seen("h", "crs_grade", 4.0, 1.0, "grade"))
    by_steps = Objective(asked(free("k", 0.5, 0.3), observations=grades, noise=noise, model=steps))
    by_cuts = Objective(asked(free("k", 0.5, 0.3), observations=grades, noise=GRADED))
    x = np.log([0.6])
    assert by_steps.residuals(x) == pytest.approx(by_cuts.residuals(x), rel=1e-6)


def test_the_numbers_are_the_same_on_one_and_two_workers():
    problem = asked(free("a0", 8.0, 0.4), free("k", 0.9, 0.7))
    reports = []
    one = fit(problem, starts=3, seed=7, workers=1)
    two = fit(
        problem,
        starts=3,
        seed=7,
        workers=2,
        progress=lambda done, of, start: reports.append((done, of, start.number)),
    )
    assert one.values == two.values
    assert one.starts == two.starts
    assert np.array_equal(one.covariance, two.covariance)
    assert [r[:2] for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(r[2] for r in reports) == [0, 1, 2]


def test_the_fit_changes_no_model(linear):
    assert linear.problem.model is DECAY
    assert DECAY.values["a0"] == 10.0
    assert linear.model.values["a0"] == linear.values["a0"]
    assert linear.model.hash == DECAY.hash


def test_starts_begin_at_the_prior_centre_and_fill_the_prior():
    problem = asked(free("a0", 8.0, 0.4), free("k", 0.9, 0.7))
    points = start_points(problem, 201, seed=3)
    assert points[0] == pytest.approx(np.log([8.0, 0.9]))
    z = (points[1:] - points[0]) / [0.4, 0.7]
    # one draw in each two-hundredth of the prior is what makes a Latin hypercube
    strata = np.sort(np.floor(stats.norm.cdf(z) * 200), axis=0)
    assert np.array_equal(strata, np.column_stack([np.arange(200)] * 2))
    assert np.array_equal(points, start_points(problem, 201, seed=3))
    assert not np.array_equal(points[1:], start_points(problem, 201, seed=4)[1:])


def test_starts_stay_inside_tight_bounds():
    points = start_points(asked(free("a0", 10.0, 2.0, factor=1.1)), 50, seed=1)
    assert np.all(np.abs(points - math.log(10.0)) <= math.log(1.1) + 1e-12)
    assert np.ptp(points) > 0.15


def test_an_estimate_at_its_bound_is_flagged():
    tight = free("a0", 10.0, 5.0, factor=1.05)
    result = fit(asked(tight, free("gain", 3.0, 0.3)), starts=2, workers=1)
    a0, gain = result.estimates
    assert a0.at_bound
    assert a0.estimate <= tight.upper
    assert not gain.at_bound


def test_a_parameter_the_data_say_nothing_of_is_carried_by_its_prior():
    only_a = LEVELS[:2]
    result = fit(
        asked(free("a0", 8.0, 0.4), free("gain", 2.9, 0.3), observations=only_a),
        starts=2,
        workers=1,
    )
    a0, gain = result.estimates
    assert gain.carried_by_prior
    assert gain.estimate == pytest.approx(2.9, rel=1e-5)
    assert not a0.carried_by_prior
    share = a0.standard_error**2 / 0.4**2
    assert result.effective_parameters == pytest.approx(1 - share, abs=1e-4)
    assert result.aic == pytest.approx(result.deviance + result.prior_penalty + 4)


def test_dropping_a_parameter_is_a_fit_without_it(linear):
    a0, gain = drop_one(linear, workers=1)
    again = fit(linear.problem.without("a0"), starts=1, workers=1)
    assert a0.cost == pytest.approx(again.cost, rel=1e-6)
    assert a0.delta_aic == pytest.approx(again.aic - linear.aic, abs=1e-5)
    assert linear.problem.without("a0").model.values["a0"] == 8.0
    assert gain.parameter == "gain"
    assert min(a0.delta_aic, gain.delta_aic) > -2


def test_dropping_the_only_parameter():
    problem = asked(free("a0", 8.0, 0.4))
    result = fit(problem, starts=1, workers=1)
    (dropped,) = drop_one(result, workers=1)
    at_prior = curves(problem, {"a0": 8.0}, np.array([0.0, 1.0, 3.0]))
    misses = [
        math.log(12 / at_prior["A"][0]) / 0.2,
        math.log(1.9 / at_prior["A"][2]) / 0.2,
        math.log(24 / at_prior["signal"][1]) / 0.1,
    ]
    assert dropped.cost == pytest.approx(sum(m * m for m in misses), rel=1e-6)


def test_failed_runs_are_counted_and_end_no_fit(linear):
    """Some starts lie above 13, where every run fails; the prior leads them back."""
    fragile = small(
        "fragile",
        {"A": ("a0", "-k*A + tiny*ln(limit - a0)")},
        {"k": 0.5, "a0": 10.0, "gain": 3.0, "tiny": 1e-12, "limit": 13.0},
        {"signal": "gain*A"},
    )
    wide = asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3), model=fragile)
    result = fit(wide, starts=6, seed=5, workers=1)
    assert result.values == pytest.approx(linear.values, rel=1e-5)
    assert 0 < result.failed_runs < result.runs
    assert f"{result.failed_runs} of {result.runs} runs failed" in repr(result)


def test_a_model_that_never_runs_says_why():
    exploding = small("wild", {"A": ("a0", "A^2")}, {"a0": 10.0})
    problem = asked(
        free("a0", 10.0, 0.1),
        observations=LEVELS[:2],
        model=exploding,
        noise=Noise({"A": Spread(0.2)}),
    )
    with pytest.raises(IntegrationError, match="day"):
        fit(problem, starts=1, workers=1)


def test_a_fit_needs_something_to_fit():
    with pytest.raises(InputError, match="at least one start and one free parameter"):
        fit(asked(), workers=1)
    with pytest.raises(InputError, match="at least one start"):
        fit(asked(free("a0", 8.0, 0.4)), starts=0, workers=1)


def test_an_unknown_day_is_found():
    """Read once in days 0 to 4 as 5: any course that passes 5 will do, so the prior rules."""
    once = (seen("once", "A", 0.0, 5.0, "sometime", until=4.0),)
    result = fit(asked(free("a0", 10.0, 0.3), observations=once), starts=2, workers=1)
    assert 8.0 < result.values["a0"] < 12.0
    assert result.estimates[0].standard_error > 0.2
