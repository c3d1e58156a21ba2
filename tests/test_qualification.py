"""The qualification: its reading, measures, intervals, forecasts and rows, on made-up patients."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from normal_posterior import exact, linear
from scipy.integrate import quad
from scipy.stats import norm
from small_fits import asked, free, seen
from small_models import small

from crs_sim import Dose, Noise, Population, Scenario, Schedule
from crs_sim.fitting import fit
from studies.qualification import design, measures, refit, rows
from studies.qualification.checks import changeable, moved_by, restless, with_starts
from studies.qualification.cohort import Cohort, observed, read_cohort, real_patient
from studies.qualification.draws import posterior, searched, tempered
from studies.qualification.figure import plot_rows
from studies.qualification.forecast import Foreseen, judged, summary, with_regression
from studies.qualification.published import (
    Target,
    binomial,
    bootstrap,
    expected_top,
    interval,
    statistic,
    targets,
)
from studies.qualification.regression import leave_one_out, line
from studies.qualification.report import page
from studies.qualification.virtual import NotInModelError, simulate_cohort

PATIENTS = """\
id,max_grade_asbmt,hlh,hlh_day,crs_onset_day,toci,steroids,anakinra,treated,marrow_blasts_percent,\
extramedullary,dose_level
s1,2,0,,7.0,0,0,0,no,50.0,0,2
s2,3,1,14.0,5.0,1,1,0,yes,90.0,0,1
s3,0,0,,,0,0,0,no,1.0,0,2
"""
CYTOKINES = """\
id,day,observable,value,censored
s1,0,ifng,10.0,
s1,8,ifng,400.0,
s1,12,ifng,2900.0,above?
s1,14,ifng,290.0,
s1,8,il6,30.0,
s2,3,ifng,20.0,
s2,9,ifng,900.0,
"""
MARKERS = """\
id,day,observable,value,unit
s1,-1.0,crp,5.0,mg/L
s1,-9.0,crp,6.0,mg/L
s1,7.0,car_cells,0.0,1/uL
s3,14.0,ferritin,900.0,ng/mL
"""


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    for name, text in (("patients", PATIENTS), ("cytokines", CYTOKINES), ("markers", MARKERS)):
        (tmp_path / f"{name}.csv").write_text(text)
    return read_cohort(tmp_path)


# --- reading --------------------------------------------------------------------------------------


def test_readings_keep_their_kinds_and_their_days(cohort):
    assert cohort.of("s1", "ifng")["kind"].tolist() == ["value", "value", "above", "value"]
    cells = cohort.of("s1", "car_cells")
    assert cells["kind"].tolist() == ["below"] and cells["value"].tolist() == [1.0]
    assert cohort.of("s1", "crp")["day"].tolist() == [0.0]  # of the day before; day -9 left out


def test_a_treated_patient_is_read_until_soon_after_onset(cohort):
    assert cohort.untreated() == ["s1", "s3"]
    assert cohort.last_day("s1") == design.LAST_FITTED and cohort.last_day("s2") == 6.0
    model = design.population(design.PRODUCTS["cd22"]).model
    graded = design.Variant("with its grade", None, grade=True)
    treated = observed(cohort, "s2", graded, model, cohort.last_day("s2"))
    assert [(o.observable, o.day) for o in treated] == [("ifng", 3.0)]
    untreated = observed(cohort, "s1", graded, model, cohort.last_day("s1"))
    (grade,) = (o for o in untreated if o.kind == "grade")
    assert (grade.value, grade.day, grade.until) == (2.0, 0.0, design.LAST_FITTED)


def test_a_patient_has_the_cells_of_their_dose_level_only(cohort):
    product = design.PRODUCTS["cd22"]
    model = design.population(product).model
    seen = observed(cohort, "s2", design.MAIN, model, 6.0)
    (dose,) = real_patient(cohort, "s2", product, seen).scenario.doses
    assert (dose.drug, dose.amount) == (design.CAR_T, product.levels[1])


# --- measures -------------------------------------------------------------------------------------


def test_a_fall_begins_at_the_last_highest_reading_and_ends_far_below():
    days = np.arange(10.0)
    plateau = np.array([1, 10, 100, 100, 60, 36, 21.6, 12.96, 7.776, 0.001])
    assert measures.fall(days, plateau) == pytest.approx(-math.log(0.6))
    assert math.isnan(measures.fall(days[:3], plateau[:3]))  # still rising


def test_onset_end_and_rest_of_courses():
    days = np.arange(6.0)
    grades = np.array([[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    first = measures.onset(days, grades)
    assert first[0] == 1.0 and measures.ended(days, grades)[0] == 4.0 and math.isnan(first[1])
    assert measures.at_rest_after(days, grades, first, 2.0).tolist()[0] == 1.0
    assert measures.at_rest_after(days, grades, first, 3.0).tolist()[0] == 0.0
    assert np.isnan(measures.at_rest_after(days, grades, first, 9.0)).all()


def test_kinetics_of_cells():
    days = np.arange(31.0)
    cells = np.exp(np.where(days <= 10, 0.5 * days, 5.0 - 0.2 * (days - 10)))[None]
    cells[0, 0] = 0.0  # before the dose
    assert measures.fold(cells)[0] == pytest.approx(math.exp(4.5))
    assert measures.contraction(days, cells)[0] == pytest.approx(0.2)


# --- published figures ----------------------------------------------------------------------------


def test_every_published_value_passes_its_own_rule():
    found = targets()
    assert len({t.id for t in found}) == len(found)
    for target in found:
        low, high = interval(target)
        assert low <= target.published <= high, target.id
        assert target.product in design.PRODUCTS and target.source


def target(**changes) -> Target:
    usual = {
        "id": "x", "product": "cd22", "arm": design.NO_DRUG, "panel": "ifng", "quantity": "made up",
        "measure": "peak", "among": "worst >= 1", "statistic": "median", "published": 100.0,
        "low": 50.0, "high": 200.0, "n": 100, "unit": "pg/mL", "rule": "IQR", "source": "made up",
    }  # fmt: skip
    return Target(**(usual | changes))


def test_an_interval_of_a_median_from_its_quartiles_is_that_of_samples():
    rng, sd = np.random.default_rng(1), math.log(2.0) / norm.ppf(0.75)
    medians = np.median(np.exp(rng.normal(math.log(100.0), sd, (4000, 100))), axis=1)
    assert interval(target()) == pytest.approx(np.quantile(medians, [0.025, 0.975]), rel=0.03)


def test_an_interval_of_a_median_from_a_range():
    rng = np.random.default_rng(2)
    tops = rng.standard_normal((4000, 108)).max(axis=1)
    assert expected_top(108) == pytest.approx(tops.mean(), abs=0.03)
    low, high = interval(target(rule="range", published=3.0, low=1.0, high=22.0, n=108, unit="day"))
    assert low == 2.5 and 3.4 < high < 3.8


def test_an_interval_of_a_share_is_exact():
    assert binomial(0.0, 20) == pytest.approx((0.0, 16.8), abs=0.05)
    assert binomial(100.0, 20)[1] == 100.0


def test_a_folder_widens_what_has_no_spread():
    inside = np.array([80.0, 90.0, 110.0, 120.0, 95.0])
    low, high = interval(target(rule="folder", published=130.0), inside)
    assert 80.0 <= low <= 95.0 and high == 130.0
    assert interval(target(rule="folder")) == (50.0, 200.0)


def test_statistics_leave_out_what_is_unknown():
    values = np.array([1.0, 0.0, np.nan, 1.0])
    assert statistic(values, "share") == pytest.approx(200.0 / 3.0)
    assert bootstrap(values, "share", 50)[1] <= 100.0
    assert math.isnan(statistic(np.array([np.nan]), "median"))


# --- rows -----------------------------------------------------------------------------------------


class Made:
    """A cohort of 40, half of them with CRS."""

    def column(self, name):
        columns = {"worst": np.repeat([0.0, 2.0], 20), "peak": np.repeat([1.0, 110.0], 20)}
        if name not in columns:
            raise NotInModelError(f"{name} is not in the model")
        return columns[name]


def test_a_row_passes_fails_or_is_not_in_the_model():
    passed = rows.row_of(target(), Made(), None)
    assert passed.passed and passed.model == 110.0 and passed.patients == 20 and not passed.reason
    far = rows.row_of(target(published=10.0, low=5.0, high=20.0), Made(), None)
    assert not far.passed and "too high" in far.reason
    absent = rows.row_of(target(measure="temperature"), Made(), None)
    assert not absent.passed and absent.reason.startswith("not in the model")
    few = rows.row_of(target(among="worst == 3"), Made(), None)
    assert not few.passed and "only 0" in few.reason
    share = rows.row_of(target(measure="worst == 2", among="", statistic="share", published=40.0,
                               rule="binomial"), Made(), None)  # fmt: skip
    assert share.model == 50.0


def test_the_folder_is_read_by_the_same_measures(cohort):
    peak = target(measure="peak_ifng", among="worst >= 1")
    assert rows.folder_values(cohort, peak).tolist() == [2900.0]  # arm: no drug
    both = target(measure="peak_ifng", among="worst >= 1", arm=design.TREATED)
    assert sorted(rows.folder_values(cohort, both)) == [900.0, 2900.0]
    on_day = target(measure="ifng_d13", among="", arm=design.TREATED)
    assert rows.folder_values(cohort, on_day).tolist() == [2900.0]  # the nearest within NEAR


def test_figure_and_report_of_rows():
    made = rows.table([
        rows.row_of(target(), Made(), None),
        rows.row_of(target(id="y", measure="temperature", panel="temperature"), Made(), None),
    ])  # fmt: skip
    figure = plot_rows(made)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Peak IFN-γ", "Highest temperature"]
    text = page(made, pd.DataFrame(), pd.DataFrame(), "make qualification", design.PRODUCTS)
    assert "1 of 2 rows pass; 1 are not in the model" in text and "| **fail** | y |" in text


def test_a_virtual_cohort_is_the_same_patients_in_every_arm():
    product = design.PRODUCTS["cd22"]
    alone, treated = (simulate_cohort(product, arm, 8) for arm in (design.NO_DRUG, design.TREATED))
    assert (alone.column("peak_ifng") <= product.ceilings["ifng"]).all()
    untouched = treated.column("given") == 0
    assert np.isnan(treated.column("cleared")[untouched]).all()
    assert (alone.column("worst")[untouched] == treated.column("worst")[untouched]).all()
    with pytest.raises(NotInModelError):
        alone.column("peak_unheard_of")


def test_a_model_with_free_starts_has_no_cells():
    model, starts = with_starts(design.population(design.PRODUCTS["cd22"]).model)
    assert "IFNG" in starts and "CAR" not in starts
    initial = {s.id: s.initial for s in model.states}
    assert initial["CAR"] == "0" and initial["IFNG"] == "start_of_IFNG"


def test_five_per_cent_that_flips_the_case_is_found():
    readings = (seen("first", "A", 0.0, 8.2),)  # grade 4 from 8 on
    best = fit(asked(free("a0", 8.2, 1e-3), observations=readings), starts=1, workers=1)
    assert "gain" in changeable(best)
    assert moved_by(best) == ["a0", "grade_4"]


@pytest.mark.parametrize(("loop", "lost"), [(0.0, 0), (8.0, 20)])
def test_a_loop_without_an_exit_does_not_return_to_rest(loop, lost):
    model = small(
        "loop",
        {"IFNG": ("1", "1 + loop*IFNG^2/(9 + IFNG^2) - IFNG"), "CAR": ("5", "-CAR")},
        {"loop": loop, "grade_1": 100.0},
        {"ifng": "IFNG", "il6": "IFNG", "crs_grade": "reached(IFNG, grade_1)"},
    )
    people = Population("small", model, (free("grade_1", 100.0, 0.1),), Noise())
    reached = SimpleNamespace(run=SimpleNamespace(scenarios=[
        Scenario("high", Schedule((Dose(0.0, "IFNG", 1e4),)))]))  # fmt: skip
    found, failed = restless(people, reached, 40)
    assert failed == 0 and found >= lost and (lost or found == 0)


# --- refits ---------------------------------------------------------------------------------------


def test_a_censored_reading_counts_on_the_wrong_side_only():
    readings = (
        seen("a", "A", 0.0, 10.0),
        seen("right", "A", 0.0, 2.0, "above"),
        seen("wrong", "A", 0.0, 40.0, "above"),
    )
    best = fit(asked(free("a0", 10.0, 1e-3), observations=readings), starts=1, workers=1)
    found = refit.errors(best)
    assert (found["readings"], found["censored"], found["wrong_side"]) == (1.0, 2.0, 1.0)
    assert found["rms"] == pytest.approx(math.log(4.0) / math.sqrt(2.0), rel=1e-2)


def test_limits_of_the_refits():
    table = pd.DataFrame({
        "variant": "v", "grade": [1.0, 2.0, 3.0, 0.0], "fitted_grade": [1.0, 2.0, 1.0, 1.0],
        "rms": [0.2, 0.4, 0.9, np.nan],
    })  # fmt: skip
    found = {r["quantity"]: r for r in refit.summary(table)}
    assert found["worst grade exact, with CRS"]["value"] == pytest.approx(200 / 3)
    assert found["worst grade exact, with CRS"]["passed"]
    assert not found["worst grade within one, with CRS"]["passed"]
    assert found["worst rms error"]["value"] == math.inf  # a failed fit is a miss
    assert found["worst grade within one, without CRS"]["value"] == 100.0


# --- forecasts ------------------------------------------------------------------------------------


def test_draws_have_the_mean_and_covariance_of_a_normal_posterior():
    problem = linear()
    drawn = posterior(fit(problem, starts=1, workers=1), seed=1)
    mean, covariance = exact(problem)
    logs = np.log(drawn.values.to_numpy())
    found = drawn.weights @ logs
    assert drawn.effective > 1000
    assert found == pytest.approx(mean, abs=0.02)
    spread = (logs - found).T @ ((logs - found) * drawn.weights[:, None])
    assert spread == pytest.approx(covariance, rel=0.15, abs=5e-4)


def test_a_search_beyond_an_optimum_that_is_the_only_one_keeps_it():
    problem = linear(starts=1)
    assert searched(problem).cost == pytest.approx(fit(problem, workers=1).cost, abs=1e-3)


def test_weights_are_moderated_until_enough_count():
    ratio = np.array([0.0, -50.0, -60.0, -np.inf])
    weights = tempered(ratio, 2.0)
    assert weights.sum() == pytest.approx(1.0) and weights[3] == 0.0
    assert 1.0 / np.sum(weights**2) == pytest.approx(2.0, rel=1e-3)
    assert tempered(np.zeros(5), 5.0).tolist() == [0.2] * 5


def highest() -> Foreseen:
    rng = np.random.default_rng(3)
    return Foreseen(rng.normal(3.0, 1.0, (20, 4)), np.full(20, 0.05), np.full((20, 4), 0.3))


def test_the_density_of_the_highest_is_the_slope_of_its_chance():
    found = highest()
    assert quad(lambda y: math.exp(found.log_density(y)), -2, 9)[0] == pytest.approx(1.0, abs=1e-6)
    step = 1e-5
    slope = (math.exp(found.log_below(4 + step)) - math.exp(found.log_below(4 - step))) / (2 * step)
    assert math.exp(found.log_density(4.0)) == pytest.approx(slope, rel=1e-6)
    low, high = found.interval(0.9)
    assert math.exp(found.log_below(high)) == pytest.approx(0.95)
    assert math.exp(found.log_below(low)) == pytest.approx(0.05)
    more = found.log_score(4.0, censored=True)
    assert math.exp(more) == pytest.approx(1 - math.exp(found.log_below(4.0)))


def test_one_reading_of_one_draw_is_normal():
    one = Foreseen(np.array([[2.0]]), np.ones(1), np.array([[0.5]]))
    assert one.log_score(2.3, censored=False) == pytest.approx(norm.logpdf(2.3, 2.0, 0.5))
    assert judged(one, 2.3, False)["covered"] and not judged(one, 9.0, True)["covered"]


def test_the_line_without_censoring_is_least_squares_and_with_it_steeper():
    rng = np.random.default_rng(4)
    x = rng.normal(4.0, 1.0, 200)
    y = 1.0 + 0.8 * x + 0.4 * rng.standard_normal(200)
    plain = line(x, y, np.zeros(200, bool))
    assert plain[:2] == pytest.approx(tuple(np.polyfit(x, y, 1)[::-1]), abs=1e-3)
    cut = y > 4.5
    censored, ignored = (line(x, np.minimum(y, 4.5), c) for c in (cut, np.zeros(200, bool)))
    assert censored == pytest.approx((1.0, 0.8, 0.4), abs=0.15)
    assert ignored[1] < censored[1]


def test_each_is_foreseen_by_the_others():
    x, y = np.arange(8.0), np.arange(8.0) + np.array([0, 0.1, -0.1, 0, 0.1, -0.1, 0, 50.0])
    found = leave_one_out(x, y, np.zeros(8, bool))
    assert found[-1].mean == pytest.approx(7.0, abs=0.2)
    assert abs(found[0].mean) > 5.0  # drawn off by the last


def test_forecasts_beside_the_line():
    rng, n = np.random.default_rng(5), 12
    so_far = np.exp(rng.normal(3.0, 1.0, n))
    table = pd.DataFrame({
        "id": [f"s{k}" for k in range(n)], "analyte": "ifng", "untreated": [True] * 8 + [False] * 4,
        "so_far": so_far, "peak": 2.0 * so_far * np.exp(0.3 * rng.standard_normal(n)),
        "past": False, "censored": False, "covered": True, "log_score": -0.5,
        "effective_draws": 100.0,
    })  # fmt: skip
    (own, every) = summary(with_regression(table))
    assert (own["n"], every["n"]) == (8, 12) and own["covered"] == 100.0
    assert own["beats the line"] == ("yes" if own["gain"] > 0 else "no")
    assert own["gain"] == pytest.approx(own["log score"] - own["line log score"])
