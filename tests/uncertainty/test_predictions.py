"""Prediction bands against closed forms, draws and their worth, and the figure."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_fits import GRADED, LEVELS, asked, free, seen
from visible import outside, overlapping, texts

from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError, UnknownNameError
from crs_sim.figures.prediction_plots import plot_predictions
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.objective import point_of
from crs_sim.simulation.ensemble import Sampling
from crs_sim.uncertainty import sampler
from crs_sim.uncertainty.draws import costs, laplace_draws, weighted_draws
from crs_sim.uncertainty.predictions import predict
from crs_sim.uncertainty.sampler import posterior_draws

CORNER = (("a0", 10.0), ("gain", 3.0), ("k", 0.5))
DAYS = Sampling(days=(0.0, 1.0, 3.0, 6.0))


@pytest.fixture(scope="module")
def linear():
    grade = seen("g", "crs_grade", 3.0, 1.0, "grade")
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3), noise=GRADED,
                     observations=(*LEVELS, grade)), starts=1, workers=1)  # fmt: skip


@pytest.fixture(scope="module")
def bands(linear):
    return predict(linear, sampling=DAYS, draws=2000, workers=1)


def spread(result, *slope):
    return math.sqrt(np.array(slope) @ result.covariance @ np.array(slope))


# --- draws ----------------------------------------------------------------------------------------


def test_draws_have_the_fits_centre_and_spread_and_stay_inside_bounds(linear):
    drawn = np.log(laplace_draws(linear, 20000).to_numpy())
    assert drawn.mean(axis=0) == pytest.approx(point_of(linear.problem, linear.values), abs=0.005)
    assert np.cov(drawn.T) == pytest.approx(linear.covariance, rel=0.05, abs=2e-4)
    tight = fit(asked(free("a0", 10.0, 0.4, factor=1.1)), starts=1, workers=1)
    inside = laplace_draws(tight, 500)["a0"]
    assert inside.between(10 / 1.1, 11.0).all()
    assert len(inside) == 500


def test_the_same_seed_gives_the_same_draws_on_any_number_of_workers(linear):
    one, two = (weighted_draws(linear, 50, workers=n) for n in (1, 2))
    assert one.values.equals(two.values)
    assert not one.values.equals(weighted_draws(linear, 50, seed=9).values)


def test_near_a_normal_posterior_hardly_a_draw_is_lost(linear):
    """Only the grade keeps the posterior from being normal."""
    assert weighted_draws(linear, 400).effective > 0.9 * 5 * 400


@pytest.fixture(scope="module")
def skewed():
    """Read below a limit: the posterior of ln a0 is skewed; its mean by quadrature."""
    result = fit(asked(free("a0", 8.0, 0.5), starts=1, observations=(
        seen("low", "A", 0.0, 6.0, "below"),)), starts=1, workers=1)  # fmt: skip
    grid = math.log(8) + np.linspace(-1, 1, 4001) * math.log(100)
    weight = np.exp(-0.5 * ((grid - math.log(8)) / 0.5) ** 2) * stats.norm.cdf(
        (math.log(6) - grid) / 0.2)  # fmt: skip
    return result, np.sum(grid * weight) / np.sum(weight)


def test_where_the_normal_approximation_is_poor_the_posterior_is_sampled(skewed, monkeypatch):
    result, mean = skewed
    assert posterior_draws(result, 100, workers=1).source.startswith("100 weighted draws")
    monkeypatch.setattr(sampler, "FEW", math.inf)
    monkeypatch.setattr(sampler, "RUNS", 16_000)
    told = []
    drawn = posterior_draws(result, 400, workers=1, progress=lambda *state: told.append(state))
    assert drawn.source.startswith("400 draws of the posterior, since the normal approximation is")
    assert len(drawn.values) == 400 and told[-1][0] == told[-1][1]
    assert np.log(drawn.values["a0"]).mean() == pytest.approx(mean, abs=4 * 0.5 / math.sqrt(400))


def test_weights_correct_what_is_not_normal(skewed):
    result, mean = skewed
    bare = np.log(laplace_draws(result, 4000)["a0"]).mean()
    drawn = weighted_draws(result, 4000)
    assert np.log(drawn.values["a0"]).mean() == pytest.approx(mean, abs=0.02)
    assert abs(bare - mean) > 0.05
    assert f"effective sample size {drawn.effective:.0f} of" in drawn.source


def test_few_draws_are_said_to_be_few(linear):
    assert "too few for reliable 95 % limits" in weighted_draws(linear, 10).source


def test_costs_are_the_fits(linear):
    x = point_of(linear.problem, linear.values)
    assert costs(linear, x[None])[0] == pytest.approx(linear.cost, rel=1e-3)


def test_what_cannot_be_drawn_is_said(linear):
    with pytest.raises(InputError, match="0 draws were requested"):
        laplace_draws(linear, 0)
    corner = fit(asked(*(free(n, m, 9.0, factor=1.00001) for n, m in CORNER)), starts=1, workers=1)
    with pytest.raises(InputError, match="lie inside the bounds; estimates at their bounds"):
        laplace_draws(corner, 5)


# --- bands ----------------------------------------------------------------------------------------


def test_the_band_of_the_curve_is_what_the_parameters_leave_open(linear, bands):
    for name, slope in (("A", (1.0, 0.0)), ("signal", (1.0, 1.0))):
        band = bands.curve(name, 0.8)
        wide = 1.2815515655446004 * spread(linear, *slope)
        assert np.log(band.high / band.middle) == pytest.approx(wide, rel=0.1)
        assert np.log(band.middle / band.low) == pytest.approx(wide, rel=0.1)
    middle = linear.values["a0"] * np.exp(-0.5 * bands.days)
    assert bands.curve("A").middle == pytest.approx(middle, rel=0.02)


def test_the_band_of_a_reading_holds_its_noise_as_well(linear, bands):
    for name, slope, sd in (("A", (1.0, 0.0), 0.2), ("signal", (1.0, 1.0), 0.1)):
        band = bands.reading(name, 0.95)
        wide = 1.959963984540054 * math.hypot(spread(linear, *slope), sd)
        assert np.log(band.high / band.low) == pytest.approx(2 * wide, rel=0.05)


def test_chances_of_grades_add_up_and_are_those_of_the_scale(linear, bands):
    chances = bands.grade_chances()
    assert chances.shape == (4, 5)
    assert chances.sum(axis=1) == pytest.approx(1.0)
    level = linear.values["a0"] * math.exp(-1.5 - 0.0)
    cloud = level * np.exp(spread(linear, 1.0, 0.0) * stats.norm.ppf((np.arange(999) + 0.5) / 999))
    below = stats.norm.cdf((1.0 - cloud) / 0.5).mean()
    assert chances[2, 0] == pytest.approx(below, abs=0.01)


def test_other_scenarios_keep_the_patients_own_values(linear):
    faster = Scenario("faster", changes=(Change("k", first=1.0, factor=2.0),))
    found = predict(linear, [linear.problem.patient.scenario, faster], sampling=DAYS, draws=100,
                    workers=1)  # fmt: skip
    assert found.scenarios == ("untreated", "faster")
    ratio = (found.curve("A", scenario="faster").middle
             / found.curve("A", scenario="untreated").middle)  # fmt: skip
    assert ratio == pytest.approx(np.exp(-0.5 * np.maximum(found.days - 1.0, 0.0)), rel=1e-3)


def test_draws_of_a_posterior_are_taken_as_they_are(linear):
    given = pd.DataFrame({"gain": [2.0, 3.0, 4.0], "a0": [9.0, 10.0, 11.0]})
    found = predict(linear, draws=given, sampling=DAYS, workers=1)
    assert found.curve("A").middle[0] == pytest.approx(10.0)
    assert "3 draws given" in repr(found)
    with pytest.raises(InputError, match="no column a0, which is free in small"):
        predict(linear, draws=given[["gain"]], workers=1)
    with pytest.raises(UnknownNameError, match="did you mean 'gain'"):
        predict(linear, draws=given.rename(columns={"gain": "gian"}), workers=1)


def test_bad_questions_are_refused(linear, bands):
    with pytest.raises(InputError, match="between 0 and 1"):
        bands.curve("A", 95)
    with pytest.raises(UnknownNameError, match="noise entry"):
        bands.reading("crs_grade")
    with pytest.raises(UnknownNameError, match="output"):
        bands.curve("B")


def test_the_table_names_which_band_is_which(bands):
    table = bands.table([0.95])
    assert list(table.columns) == [
        "scenario", "observable", "unit", "day", "median", "curve_low_95", "curve_high_95",
        "reading_low_95", "reading_high_95"]  # fmt: skip
    rows = table[table["observable"] == "A"]
    assert (rows["reading_low_95"] < rows["curve_low_95"]).all()
    assert (rows["reading_high_95"] > rows["curve_high_95"]).all()


def test_the_figure_says_which_band_is_which_and_shows_every_observation(linear, bands):
    run = linear.simulation(bands.days)
    figure = plot_predictions(bands, run, observations=linear.problem.patient.observations)
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "95 % band of the curve: parameters" in words
    assert "95 % band of a reading: parameters and residual error" in words
    assert any("draws of the Laplace approximation" in text.get_text() for text in figure.texts)
    drawn = {artist.get_gid() for ax in figure.axes for artist in (*ax.lines, *ax.texts)}
    assert {f"observed-{o.id}" for o in linear.problem.patient.observations} <= drawn
    with pytest.raises(UnknownNameError, match="scenario"):
        plot_predictions(bands, predict_other(linear))


def test_a_long_note_lies_over_nothing_in_the_figure(linear):
    bands = predict(linear, draws=8, workers=1)
    note = "400 draws of the posterior, sampled with emcee (32 walkers, 2000 steps, every tenth)"
    bands = replace(bands, source=f"{note}; {note}; {note}; of another problem")
    figure = plot_predictions(bands, linear.simulation(bands.days), observations=LEVELS)
    assert overlapping(figure) == [] and outside(figure) == []
    said = " ".join(t.get_text() for t in texts(figure)).replace("\n", " ")
    assert "Research use only" in said and "of another problem." in said


def predict_other(result):
    from crs_sim.simulation.simulation import simulate

    return simulate(result.model, Scenario("another"), days=[0.0, 1.0])
