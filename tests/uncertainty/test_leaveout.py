"""Observations left out: closed forms of a linear problem, what is predicted, fits compared."""

import math
from dataclasses import replace

import numpy as np
import pytest
from paths import SHIPPED_RUN
from small_fits import DECAY, GRADED, LEVELS, asked, free, seen
from small_models import small

from crs_sim.errors import InputError, UnknownNameError
from crs_sim.figures.prediction_plots import plot_left_out
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.objective import Objective, point_of
from crs_sim.fitting.storage import load_run, problem_of, restore_fit
from crs_sim.uncertainty.cross_validation import (
    compare_fits,
    leave_out,
    leave_out_table,
    minus_2_ln_likelihood,
)
from crs_sim.uncertainty.predictive_check import influence_table, influences
from crs_sim.uncertainty.profiles import append_omission, read_omissions


@pytest.fixture(scope="module")
def linear():
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3)), starts=2, workers=1)


@pytest.fixture(scope="module")
def omitted(linear):
    return leave_out(linear, workers=1)


def without(result, row):
    """Estimates and covariance of the linear problem without one row, in closed form."""
    objective, x = Objective(result.problem), point_of(result.problem, result.values)
    jacobian, residuals = objective.jacobian(x), objective.residuals(x)
    kept = [k for k in range(len(residuals)) if k != row]
    covariance = np.linalg.inv(jacobian[kept].T @ jacobian[kept])
    step = -covariance @ jacobian[kept].T @ residuals[kept]
    left_out = residuals[row] + jacobian[row] @ step
    return x + step, left_out, 1.0 + float(jacobian[row] @ covariance @ jacobian[row])


# --- from the slopes ------------------------------------------------------------------------------


def test_of_a_linear_problem_one_step_is_the_fit_without_it(linear):
    for row, one in enumerate(influences(linear)):
        x, residual, variance = without(linear, row)
        assert one.residual_without == pytest.approx(residual, rel=1e-5)
        assert one.leverage == pytest.approx(1.0 - 1.0 / variance, rel=1e-5)
        moved = x - point_of(linear.problem, linear.values)
        far = moved @ np.linalg.inv(linear.covariance) @ moved / 2
        assert one.distance == pytest.approx(far, rel=1e-5)
        errors = np.sqrt(np.diag(linear.covariance))
        assert one.shift == pytest.approx(max(moved / errors, key=abs), rel=1e-5)
    assert list(influence_table(linear)["id"]) == ["first", "third", "amplified"]


def test_leverages_add_up_to_what_the_observations_determine(linear):
    total = sum(one.leverage for one in influences(linear))
    assert total == pytest.approx(linear.effective_parameters, rel=1e-6)


# --- fitted again ---------------------------------------------------------------------------------


def test_of_a_linear_problem_the_left_out_reading_is_predicted_in_closed_form(linear, omitted):
    for row, one in enumerate(omitted):
        x, residual, variance = without(linear, row)
        (held_out,) = one.held_out
        assert one.ids == (LEVELS[row].id,)
        assert point_of(one.fit.problem, one.fit.values) == pytest.approx(x, abs=1e-5)
        assert held_out.residual == pytest.approx(residual, rel=1e-4)
        assert held_out.off_by == pytest.approx(residual / math.sqrt(variance), rel=1e-4)
        sd = linear.problem.noise.spread(LEVELS[row]).sd
        density = math.log(2 * math.pi * sd**2 * variance) + residual**2 / variance
        assert held_out.deviance == pytest.approx(density, rel=1e-4)
        assert held_out.predicted == pytest.approx(
            LEVELS[row].value * math.exp(-residual * sd), rel=1e-4
        )
        assert one.agreeing == 3
        assert len(one.fit.residuals) == 2


def test_chances_of_numbers_and_grades():
    grades = (
        *LEVELS,
        seen("g", "crs_grade", 4.0, 1.0, "grade"),
        seen("low", "A", 5.0, 2.0, "below"),
    )
    result = fit(
        asked(free("a0", 8.0, 0.4), observations=grades, noise=GRADED), starts=1, workers=1
    )
    omitted = {o.ids[0]: o for o in leave_out(result, workers=1)}
    by_id = {name: omission.held_out[0] for name, omission in omitted.items()}
    low = by_id["low"]
    spread = math.sqrt(0.2**2 + omitted["low"].fit.covariance[0, 0])  # noise and parameters
    expected = 0.5 * math.erfc(-math.log(2.0 / low.predicted) / spread / math.sqrt(2))
    assert low.chance == pytest.approx(expected, rel=0.05)
    assert low.deviance == pytest.approx(-2 * math.log(low.chance))
    assert math.isnan(by_id["g"].off_by)
    assert 0 < by_id["g"].chance < 1
    z = by_id["first"].off_by
    assert by_id["first"].chance == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=1e-9)


def test_the_chance_of_a_grade_is_averaged_over_the_parameters():
    """Grade 3 ends at 8, the fit without it is at 10 with a sd of 0.2: not near impossible."""
    seen_once = (seen("first", "A", 0.0, 10.0), seen("g", "crs_grade", 0.0, 3.0, "grade"))
    sure = replace(GRADED, grade=replace(GRADED.grade, sd=0.04))
    result = fit(asked(free("a0", 10.0, 1.0), observations=seen_once, noise=sure), starts=1,
                 workers=1)  # fmt: skip
    (omission,) = leave_out(result, [("g",)], workers=1)
    held_out = omission.held_out[0]
    spread = math.sqrt(0.04**2 + omission.fit.covariance[0, 0])
    low, high = (0.5 * math.erfc(-math.log(cut / 10.0) / spread / math.sqrt(2)) for cut in (4, 8))
    assert held_out.chance == pytest.approx(high - low, rel=0.25)
    assert math.exp(-0.5 * held_out.residual**2) < 1e-6  # at the estimates alone


def test_a_group_is_left_out_together(linear):
    (one,) = leave_out(linear, [["first", "third"]], workers=1)
    assert [f.id for f in one.held_out] == ["first", "third"]
    assert one.fit.problem.patient.observations.ids == ("amplified",)
    table = leave_out_table(linear, [one])
    assert list(table["left_out"]) == ["first and third"] * 2


def test_the_numbers_are_the_same_on_any_number_of_workers(linear, omitted):
    told = []
    two = leave_out(linear, workers=2, progress=lambda n, of, o: told.append((n, of)))
    assert [o.held_out for o in two] == [o.held_out for o in omitted]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_comes_back_from_disk_is_what_was_written(linear, omitted, tmp_path):
    path = tmp_path / "deep" / "left.jsonl"
    for one in omitted[:2]:
        append_omission(path, one, linear)
    back = read_omissions(path, linear)
    told = []
    again = leave_out(linear, done=back, workers=1, progress=lambda n, of, o: told.append((n, of)))
    assert told == [(3, 3)]
    for one, other in zip(again, omitted, strict=True):
        assert (one.ids, one.held_out, one.parameter, one.shift, one.agreeing) == (
            other.ids, other.held_out, other.parameter, other.shift, other.agreeing)  # fmt: skip
        assert one.fit.values == other.fit.values and one.fit.cost == other.fit.cost
        assert one.fit.starts == other.fit.starts and one.fit.polish == other.fit.polish
        np.testing.assert_array_equal(one.fit.covariance, other.fit.covariance)
        assert one.fit.problem == other.fit.problem
    assert leave_out_table(linear, again).equals(leave_out_table(linear, omitted))
    assert read_omissions(tmp_path / "none.jsonl", linear) == ()


def test_what_cannot_be_left_out_is_said(linear):
    with pytest.raises(UnknownNameError, match="did you mean 'first'"):
        leave_out(linear, [["frist"]], workers=1)
    with pytest.raises(InputError, match="leave out at least one of the 3 observations, and keep"):
        leave_out(linear, [["first", "third", "amplified"]], workers=1)
    with pytest.raises(InputError, match="leave out at least one"):
        leave_out(linear, [[]], workers=1)


def test_the_other_optimum_is_found_when_the_reading_that_excluded_it_goes():
    """Without `late` both signs of ln m fit equally; the prior prefers the other one."""
    two = small(
        "two",
        {"A": ("a0", "0")},
        {"a0": 10.0, "m": 1.3},
        {"signal": "A*(1 + 25*ln(m)^2)", "side": "A*m"},
    )
    noise = Noise({"signal": Spread(0.1), "side": Spread(0.02)})
    rows = (seen("s", "signal", 0.0, 12.0), seen("late", "side", 1.0, 9.15))
    problem = asked(free("m", 1.3, 0.3, 4.0), observations=rows, model=two, noise=noise)
    result = fit(problem, starts=4, workers=1)
    assert result.values["m"] == pytest.approx(0.915, rel=0.01)
    (one,) = leave_out(result, [["late"]], workers=1)
    assert one.fit.values["m"] == pytest.approx(1.093, rel=0.02)
    assert one.held_out[0].off_by < -3


def test_the_figure_has_a_row_for_each(linear, omitted):
    figure = plot_left_out(leave_out_table(linear, omitted))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["first", "third", "amplified"]
    assert "standard deviations" in figure.axes[0].get_xlabel()


# --- compared -------------------------------------------------------------------------------------


def test_fits_are_compared_in_closed_form(linear, omitted):
    smaller = fit(linear.problem.without("gain"), starts=1, workers=1)
    table = compare_fits({"both": linear, "one": smaller}).set_index("fit")
    constant = sum(math.log(2 * math.pi * linear.problem.noise.spread(o).sd ** 2) for o in LEVELS)
    assert minus_2_ln_likelihood(linear) == pytest.approx(linear.deviance + constant)
    difference = table.loc["both", "aic"] - table.loc["one", "aic"]
    assert difference == pytest.approx(linear.aic - smaller.aic)
    assert table.loc["both", "bic"] == pytest.approx(linear.cost + constant + 2 * math.log(3))
    assert table["delta_aic"].min() == 0.0
    assert math.isnan(table.loc["one", "held_out"])
    assert table.loc["both", "effective"] == pytest.approx(linear.effective_parameters)
    held = {"both": omitted, "one": leave_out(smaller, workers=1)}
    told = compare_fits({"both": linear, "one": smaller}, held).set_index("fit")
    assert told.loc["both", "held_out"] == pytest.approx(
        sum(o.held_out[0].deviance for o in omitted)
    )


def test_fits_of_other_observations_are_refused(linear, omitted):
    fewer = fit(asked(free("a0", 8.0, 0.4), observations=LEVELS[:2]), starts=1, workers=1)
    with pytest.raises(InputError, match=r"fits of different observations \(amplified\)"):
        compare_fits({"a": linear, "b": fewer})
    with pytest.raises(InputError, match="two fits or more"):
        compare_fits({"a": linear})
    with pytest.raises(InputError, match="a: amplified was not left out"):
        compare_fits({"a": linear, "b": linear}, {"a": omitted[:2]})


def test_other_spreads_are_compared_with_their_constants(linear):
    """The same curve under a tighter spread: -2 ln likelihood follows the normal density."""
    noise = Noise({"A": Spread(0.1), "signal": Spread(0.1)})
    tight = fit(
        asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3), noise=noise, model=DECAY),
        starts=1,
        workers=1,
    )
    by_hand = 0.0
    for o in LEVELS:
        level = tight.values["a0"] * math.exp(-0.5 * o.day)
        level *= tight.values["gain"] if o.observable == "signal" else 1.0
        by_hand += (math.log(o.value / level) / 0.1) ** 2 + math.log(2 * math.pi * 0.01)
    assert minus_2_ln_likelihood(tight) == pytest.approx(by_hand, rel=1e-5)


# --- the case -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_emapalumabs_effect_on_ifng_is_predicted_from_what_was_seen_before_it():
    """All that was observed after the first dose is left out; day 27 had 6.0 pg/mL."""
    run = load_run(SHIPPED_RUN)
    whole = restore_fit(run, problem_of(run))
    late = [o.id for o in whole.problem.patient.observations if o.until > 24.0]
    (one,) = leave_out(whole, [late], workers=1)
    held_out = {f.id: f for f in one.held_out}
    assert {"ifng_d27", "cxcl10_fall", "grade_d27"} <= held_out.keys()
    assert max(o.until for o in one.fit.problem.patient.observations) == 24.0
    assert abs(held_out["ifng_d27"].off_by) < 1.96
    peak = whole.problem.patient.observations["ifng_peak"].value
    assert held_out["ifng_d27"].predicted < peak / 100
