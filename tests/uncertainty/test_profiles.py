"""Profiles against closed forms, a brute force, and every verdict; what is kept of them on disk."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from small_fits import LEVELS, asked, free, seen
from small_models import small

from crs_sim.errors import InputError, StorageError, UnknownNameError
from crs_sim.figures.fit_plots import plot_profiles
from crs_sim.fitting.fitting import assemble_fit, fit
from crs_sim.fitting.local_optimisation import Start, polish
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.objective import Objective, point_of
from crs_sim.uncertainty.profiles import append_profile, limit, profiles_table, read_profiles
from crs_sim.uncertainty.profiling import profile

Z = {0.5: 0.6744897501960817, 0.8: 1.2815515655446004, 0.95: 1.959963984540054}
TWO = small("two", {"A": ("a0", "0")}, {"a0": 10.0, "m": 1.3}, {"signal": "A*(1 + 25*ln(m)^2)"})
DIPS = (seen("s", "signal", 0.0, 12.0),)  # ln m = 0.0894 or -0.0894; 3.3 between them


@pytest.fixture(scope="module")
def linear():
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3)), starts=2, workers=1)


@pytest.fixture(scope="module")
def straight(linear):
    return profile(linear, workers=1)


def two_dips(sd=0.5):
    return asked(free("m", 1.3, sd, 4.0), observations=DIPS, model=TWO)


def stuck(problem, **values):
    """A fit that has not left the optimum next to these values."""
    start = Start(0, values, values, math.inf, "", True, 0, 0)
    last = polish(problem, start)
    return assemble_fit(problem, (replace(last, number=0),), last, 1)


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", Z)
def test_of_a_linear_problem_the_profile_interval_is_the_wald_interval(linear, straight, level):
    for one, estimate in zip(straight, linear.estimates, strict=True):
        low, high = one.interval(level)
        wide = Z[level] * estimate.standard_error
        assert math.log(low) == pytest.approx(math.log(estimate.estimate) - wide, abs=1e-6)
        assert math.log(high) == pytest.approx(math.log(estimate.estimate) + wide, abs=1e-6)


def test_without_its_own_prior_the_interval_is_that_of_the_data(linear, straight):
    """The normal distribution with the parameter's own prior divided out."""
    for one, estimate in zip(straight, linear.estimates, strict=True):
        precision = estimate.standard_error**-2 - estimate.prior_sd**-2
        centre = (
            math.log(estimate.estimate) * estimate.standard_error**-2
            - math.log(estimate.prior_median) * estimate.prior_sd**-2
        ) / precision
        low, high = one.interval(own_prior=False)
        assert math.log(low) == pytest.approx(centre - Z[0.95] / precision**0.5, abs=1e-4)
        assert math.log(high) == pytest.approx(centre + Z[0.95] / precision**0.5, abs=1e-4)
        assert one.verdict == "determined"


def test_a_curved_problem_agrees_with_brute_force():
    result = fit(asked(free("a0", 8.0, 0.4), free("k", 0.9, 0.7)), starts=2, workers=1)
    (one,) = profile(result, ["k"], workers=1)
    objective = Objective(result.problem)

    def lowest(log_k):
        found = optimize.minimize_scalar(
            lambda a: float(np.sum(objective.residuals(np.array([a, log_k])) ** 2)),
            bounds=(0, 5), method="bounded", options={"xatol": 1e-7})  # fmt: skip
        return found.fun

    values, costs = one.curve()
    for k in np.linspace(5, len(values) - 5, 12).astype(int):
        assert costs[k] == pytest.approx(lowest(math.log(values[k])) - result.cost, abs=0.02)


def test_limits_are_chi_square_quantiles():
    assert [limit(level) for level in Z] == pytest.approx([z * z for z in Z.values()])


# --- verdicts -------------------------------------------------------------------------------------


def test_a_parameter_that_the_data_do_not_tell():
    result = fit(
        asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3), observations=LEVELS[:2]),
        starts=1,
        workers=1,
    )
    a0, gain = profile(result, workers=1)
    assert a0.verdict == "determined"
    assert gain.verdict == "not identifiable from these data"
    assert gain.interval(own_prior=False) == (None, None)
    low, high = gain.interval()  # its prior's
    assert [math.log(low / 3), math.log(high / 3)] == pytest.approx([-0.588, 0.588], abs=1e-3)


@pytest.mark.parametrize(("kind", "words"), [("below", "above"), ("above", "below")])
def test_a_parameter_that_a_limit_bounds_on_one_side(kind, words):
    only = (seen("limit", "A", 0.0, 6.0, kind),)
    result = fit(asked(free("a0", 8.0, 1.5), observations=only), starts=1, workers=1)
    (one,) = profile(result, workers=1)
    assert one.verdict == f"only bounded {words}"
    low, high = one.interval(own_prior=False)
    end = low if kind == "above" else high
    assert (low is None) == (kind == "below")
    # -2 ln P(reading beyond 6) reaches 3.84 above its lowest, 0, at one point
    z = optimize.brentq(lambda u: -2 * math.log(0.5 * math.erfc(-u / 2**0.5)) - limit(0.95), -9, 9)
    sign = 1.0 if kind == "below" else -1.0
    assert math.log(end / 6.0) == pytest.approx(-sign * 0.2 * z, abs=1e-3)


def test_two_optima_are_told_with_their_costs():
    problem = two_dips()
    (one,) = profile(stuck(problem, m=1.1), workers=1)
    assert "two optima" in one.verdict
    assert "better" not in one.verdict
    (left, left_cost), (right, right_cost) = one.optima()
    # the prior pulls each a little towards 1.3
    assert (math.log(left), math.log(right)) == pytest.approx((-0.0894, 0.0894), abs=0.01)
    assert 0.2 < left_cost - right_cost < 0.5
    low, high = one.interval()
    assert low < left < right < high


def test_a_better_optimum_is_said_with_its_cost():
    problem = two_dips()
    (one,) = profile(stuck(problem, m=0.9), workers=1)
    best = stuck(problem, m=1.1)
    assert f"a better optimum was found (cost {best.cost:.4g}" in one.verdict
    assert one.better["m"] == pytest.approx(best.values["m"], rel=0.01)
    assert one.costs.min() == pytest.approx(best.cost, abs=0.01)


def test_an_optimum_beyond_a_wall_is_known_from_another_start():
    """The way is far over the limit: no step leads there, but a start of the fit ended there."""
    wall = (seen("s", "signal", 0.0, 30.0),)
    problem = asked(free("m", 1.05, 1.0, 8.0), observations=wall, model=TWO)
    one_sided = stuck(problem, m=1.3)
    (alone,) = profile(one_sided, workers=1)
    assert alone.verdict == "determined"
    other = stuck(problem, m=0.75).polish
    (both,) = profile(replace(one_sided, starts=(*one_sided.starts, other)), workers=1)
    assert both.verdict == "determined; two optima"
    assert [math.log(m) for m, _ in both.optima()] == pytest.approx([-0.283, 0.283], abs=0.01)


def test_an_estimate_at_its_bound():
    result = fit(asked(free("a0", 10.0, 5.0, factor=1.05)), starts=1, workers=1)
    (one,) = profile(result, workers=1)
    assert one.at_bound == "upper"
    assert "at its upper bound" in one.verdict
    assert one.interval().high is None


def test_a_curve_that_ends_where_runs_fail_says_so():
    fragile = small(
        "fragile",
        {"A": ("a0", "-k*A + tiny*ln(limit - a0)")},
        {"k": 0.5, "a0": 10.0, "tiny": 1e-12, "limit": 13.0},
    )
    result = fit(
        asked(
            free("a0", 10.0, 0.4),
            model=fragile,
            observations=LEVELS[:2],
            noise=Noise({"A": Spread(0.2)}),
        ),
        starts=1,
        workers=1,
    )
    (one,) = profile(result, workers=1)
    assert "runs fail above 1" in one.verdict
    assert one.interval().high is None
    assert one.values.max() == pytest.approx(13.0, rel=0.02)
    assert one.failed > 0


# --- how it is run --------------------------------------------------------------------------------


def test_the_numbers_are_the_same_on_any_number_of_workers(linear, straight):
    told = []
    two = profile(linear, workers=2, progress=lambda n, of, p: told.append((n, of, p.parameter)))
    for mine, theirs in zip(straight, two, strict=True):
        assert np.array_equal(mine.points, theirs.points)
        assert np.array_equal(mine.costs, theirs.costs)
    assert [t[:2] for t in told] == [(1, 2), (2, 2)]


def test_what_is_finished_is_not_made_again(linear, straight):
    told = []
    again = profile(
        linear,
        done=straight[:1],
        workers=1,
        progress=lambda n, of, p: told.append((n, of, p.parameter)),
    )
    assert again[0] is straight[0]
    assert told == [(2, 2, "gain")]


def test_bad_questions_are_refused(linear, straight):
    with pytest.raises(UnknownNameError, match=r"'a00': known are a0, gain"):
        profile(linear, ["a00"], workers=1)
    with pytest.raises(InputError, match="levels must lie between 0 and 1, not 95"):
        profile(linear, ["a0"], levels=[95], workers=1)
    with pytest.raises(InputError, match=r"0.99 was requested, but it was computed up to 0.95"):
        straight[0].interval(0.99)
    (far,) = profile(linear, ["a0"], levels=[0.99], workers=1)
    assert far.interval(0.99).low < far.interval(0.95).low


def test_points_hold_the_best_of_all_others(linear, straight):
    one = straight[0]
    objective = Objective(linear.problem)
    for x, cost in zip(one.points, one.costs, strict=True):
        assert float(np.sum(objective.residuals(x) ** 2)) == pytest.approx(cost, rel=1e-9)
    middle = int(np.argmin(one.costs))
    assert one.points[middle] == pytest.approx(point_of(linear.problem, linear.values), abs=1e-9)


# --- on disk --------------------------------------------------------------------------------------


def test_profiles_come_back_from_disk_and_a_cut_line_is_passed_over(linear, straight, tmp_path):
    path = tmp_path / "profiles.jsonl"
    for one in straight:
        append_profile(path, one)
    text = path.read_text()
    path.write_text(text[: len(text) - 40])  # killed while the second was written
    (back,) = read_profiles(path, linear)
    assert np.array_equal(back.points, straight[0].points)
    assert (back.verdict, back.interval()) == (straight[0].verdict, straight[0].interval())
    append_profile(path, straight[1])
    assert [p.parameter for p in read_profiles(path, linear)] == ["a0", "gain"]
    assert read_profiles(tmp_path / "none.jsonl", linear) == ()


def test_profiles_of_another_fit_are_refused(straight, tmp_path):
    other = fit(asked(free("a0", 7.0, 0.4), free("gain", 3.0, 0.3)), starts=1, workers=1)
    append_profile(tmp_path / "p.jsonl", straight[0])
    with pytest.raises(StorageError, match=r"p.jsonl  holds profiles of another fit \(cost"):
        read_profiles(tmp_path / "p.jsonl", other)


def test_a_line_that_is_no_profile_is_named(linear, straight, tmp_path):
    path = tmp_path / "p.jsonl"
    append_profile(path, straight[0])
    path.write_text('{"parameter": "a0"}\n' + path.read_text())
    with pytest.raises(StorageError, match=r"p.jsonl  is damaged \(line 1: KeyError: 'points'\)"):
        read_profiles(path, linear)


def test_the_table_has_every_interval(straight):
    table = profiles_table(straight)
    row = table.iloc[0]
    assert (row["low_95"], row["high_95"]) == straight[0].interval()
    assert row["data_low_80"] == straight[0].interval(0.8, own_prior=False).low
    assert list(table["verdict"]) == ["determined", "determined"]


def test_the_figure_has_a_panel_for_each_with_units_limits_and_verdict(straight):
    figure = plot_profiles(straight)
    assert len(figure.axes) == 2
    for ax, one in zip(figure.axes, straight, strict=True):
        assert ax.get_title(loc="left") == f"{one.parameter}\n{one.verdict}"
        assert ax.get_xlabel()
        heights = {round(line.get_ydata()[0], 2) for line in ax.lines}
        assert {0.45, 1.64, 3.84} <= heights
