"""A share: estimated on the logit scale, so that nothing of it ends above 1, nor is drawn there."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from small_fits import NOISE, asked, free, seen
from small_models import small

from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import CrsSimError, FileError, InputError
from crs_sim.exchange.petab_export import petab_files
from crs_sim.figures.fit_plots import _prior_ratios, plot_estimates, plot_profiles
from crs_sim.figures.posterior_plots import plot_corner, plot_trace
from crs_sim.fitting.diagnostics import verdict
from crs_sim.fitting.fitting import asked_share, drop_one, estimates_table, fit
from crs_sim.fitting.local_optimisation import check_reachable, start_points
from crs_sim.fitting.noise import Noise
from crs_sim.fitting.objective import (
    Objective,
    point_of,
    prior_vectors,
    values_by_name,
)
from crs_sim.fitting.priors import (
    Free,
    FreeTable,
    Population,
    _free,
    from_scale,
    load_population,
    to_scale,
)
from crs_sim.fitting.storage import load_run, restore_fit, save_run
from crs_sim.population.study_file import PopulationStudy
from crs_sim.population.virtual_patients import VirtualPopulation
from crs_sim.reports.fit_report import report_text
from crs_sim.scenarios.indices import ParameterInterval, fit_intervals, prior_draws, prior_intervals
from crs_sim.uncertainty.cross_validation import leave_out
from crs_sim.uncertainty.draws import costs, laplace_draws, weighted_draws
from crs_sim.uncertainty.posterior import Posterior, SamplePlan, problem_hash, read_draws
from crs_sim.uncertainty.predictive_check import influences, predictive
from crs_sim.uncertainty.profiles import Profile, append_profile, profiles_table, read_profiles
from crs_sim.uncertainty.profiling import profile
from crs_sim.uncertainty.sampler import sample

PLAIN = small("shares", {"A": ("a0*f", "-k*A")}, {"k": 0.5, "a0": 10.0, "f": 0.5},
              {"lost": "1 - f"})  # fmt: skip
MODEL = replace(PLAIN, parameters=tuple(
    replace(p, unit="dimensionless", label="Share absorbed") if p.id == "f" else p
    for p in PLAIN.parameters))  # fmt: skip
PRIOR = Path("patient", "prior.toml")
SOURCE = "a test"
ONLY_A = Noise({"A": NOISE.spreads["A"]})


def share_of(sd=2.0, **more):
    return _free(MODEL, PRIOR, "f", FreeTable(sd=sd, source=SOURCE, **more))


def readings(share, errors=(0.0,) * 4, rate=0.5):
    return tuple(seen(f"r{d}", "A", d, 10 * share * math.exp(error - rate * d))
                 for d, error in enumerate(errors))  # fmt: skip


def fitted(asked_for, sd=0.2, **more):
    """A fit to readings that a share of ``asked_for`` would give, synthetic, without scatter."""
    noise = Noise({"A": replace(NOISE.spreads["A"], sd=sd)})
    return fit(asked(share_of(**more), observations=readings(asked_for), model=MODEL, noise=noise),
               starts=2, workers=1)  # fmt: skip


def mixed(observations=(), noise=ONLY_A):
    """A problem of a rate, on the log scale, and a share, on the logit scale."""
    seen_ = observations or readings(0.9, (0.1, -0.2, 0.15, 0.0))
    return asked(free("k", 0.5, 0.4), share_of(1.5), observations=seen_, model=MODEL, noise=noise)


@pytest.fixture(scope="module")
def both():
    return fit(mixed(), starts=3, workers=1)


@pytest.fixture(scope="module")
def drawn(both) -> Posterior:
    return sample(both, SamplePlan(draws=60, thin=2, groups=2, walkers=16), workers=1)


# --- the scale itself -----------------------------------------------------------------------------


def test_one_pair_of_functions_knows_the_scales():
    values = np.array([[3.0, 0.2], [1e-9, 0.999]])
    points = to_scale(values, ("log", "logit"))
    np.testing.assert_allclose(points[:, 0], np.log(values[:, 0]), rtol=1e-15)
    np.testing.assert_allclose(points[:, 1], logit(values[:, 1]), rtol=1e-13)
    np.testing.assert_allclose(from_scale(points, ("log", "logit")), values, rtol=1e-12)
    assert 0 < from_scale(-700.0, "logit") < from_scale(700.0, "logit") < 1
    assert from_scale(np.log(7.0), "log") == np.exp(np.log(7.0))  # to the last bit


def test_points_and_values_of_a_problem_are_each_others_inverse():
    problem = mixed()
    values = {"k": 0.3, "f": 0.97}
    x = point_of(problem, values)
    assert x.tolist() == pytest.approx([math.log(0.3), float(logit(0.97))])
    assert values_by_name(problem, x) == pytest.approx(values)
    centre, sds, lower, upper = prior_vectors(problem)
    assert (centre[1], sds[1]) == (0.0, 1.5)
    assert (lower[1], upper[1]) == pytest.approx((-6.0, 6.0))


@pytest.mark.parametrize("sd", [0.1, 0.5, 2.0, 30.0])
def test_the_bounds_of_a_share_are_four_sds_from_its_median_and_within_one(sd):
    found = share_of(sd)
    assert found.scale == "logit"
    assert 0 < found.lower < 0.5 < found.upper < 1
    assert logit(found.lower) == pytest.approx(-4 * sd)
    assert logit(found.upper) == pytest.approx(min(4 * sd, 30), rel=1e-3)


def test_the_log_scale_can_be_asked_for_and_keeps_its_bounds():
    found = share_of(0.5, scale="log", prior=0.3)
    assert found.scale == "log"
    assert (found.lower, found.upper) == (0.3 * math.exp(-2.0), 1.0)
    rate = _free(MODEL, PRIOR, "k", FreeTable(sd=0.5, source=SOURCE))
    assert rate.scale == "log"


def test_a_models_value_of_one_leaves_room_for_a_prior_and_bounds_below():
    whole = MODEL.with_values(f=1.0)
    prior = _free(whole, PRIOR, "f", FreeTable(sd=1.0, prior=0.7, lower=0.1, source=SOURCE))
    problem = asked(prior, model=whole, observations=readings(0.8), noise=ONLY_A)
    assert fit(problem, starts=1, workers=1).values["f"] == pytest.approx(0.8, rel=0.05)
    with pytest.raises(InputError, match=r"the model has f = 0.5, allowed are 0.6 to"):
        asked(share_of(prior=0.7, lower=0.6), model=MODEL, observations=readings(0.8), noise=ONLY_A)


# --- estimates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked_for", [0.02, 0.3, 0.8, 0.95, 1.2, 1.5, 20.0])
def test_a_share_and_its_interval_are_inside_and_one_asked_above_is_named(asked_for):
    result = fitted(asked_for)
    (e,) = result.estimates
    assert 0 < e.low < e.estimate < e.high < 1
    assert logit([e.low, e.high]) == pytest.approx(
        logit(e.estimate) + np.array([-1, 1]) * 1.959964 * e.standard_error, rel=1e-5)  # fmt: skip
    assert e.shift == pytest.approx(float(logit(e.estimate)) / 2.0)
    assert e.scale == "logit" and estimates_table(result)["scale"].tolist() == ["logit"]
    said = [text for text in verdict(result).warnings if "at a bound" in text]
    assert bool(said) == (asked_for > 1) == e.at_bound
    if asked_for > 1:
        asks = f"the readings alone ask for {asked_for:.2g}"
        assert f"f (upper: 1 is the most it can be, {asks}" in said[0]
    if asked_for < 0.9:
        assert e.estimate == pytest.approx(asked_for, rel=0.05)
    asks = asked_share(result.problem.free[0], e.estimate, e.standard_error)
    assert asks == pytest.approx(asked_for, rel=0.02)


def test_an_estimate_at_a_stated_bound_is_named_as_such():
    result = fitted(0.8, upper=0.6)
    (e,) = result.estimates
    assert e.at_bound and e.estimate == pytest.approx(0.6, rel=1e-3)
    (said,) = [text for text in verdict(result).warnings if "at a bound" in text]
    assert "f (upper)" in said
    (low,) = fitted(0.02, lower=0.2).estimates
    assert low.at_bound


def test_on_the_log_scale_a_share_ends_at_its_bound():
    result = fitted(1.5, scale="log")
    (e,) = result.estimates
    assert e.estimate <= 1 and e.high <= 1 and e.at_bound
    (said,) = [text for text in verdict(result).warnings if "at a bound" in text]
    assert "f (upper: 1 is the most it can be)" in said


def test_the_jacobian_is_that_of_finite_differences():
    lost = tuple(seen(f"lost{d}", "lost", d, 0.05) for d in (1, 2))
    problem = mixed(readings(0.9) + lost, Noise(dict.fromkeys(("A", "lost"), NOISE.spreads["A"])))
    objective = Objective(problem)
    for share in (0.02, 0.5, 0.95, 0.9999):
        x = point_of(problem, {"k": 0.4, "f": share})
        step, jacobian = 1e-5, objective.jacobian(x)
        for k in range(2):
            ends = [objective.residuals(x + side * step * np.eye(2)[k]) for side in (1, -1)]
            expected = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(jacobian[:, k], expected, rtol=1e-4, atol=1e-6)
        # lost = 1 - f: d ln(1 - f)/d logit f = -f
        assert jacobian[4, 1] == pytest.approx(share / 0.2, rel=1e-5)


def test_the_cost_is_that_of_a_normal_prior_on_the_logit_scale(both):
    centre = logit(0.5)
    penalty = ((logit(both.values["f"]) - centre) / 1.5) ** 2 + (
        math.log(both.values["k"] / 0.5) / 0.4) ** 2  # fmt: skip
    assert both.prior_penalty == pytest.approx(penalty)
    assert both.cost == pytest.approx(both.deviance + penalty)
    residuals = Objective(both.problem).residuals(point_of(both.problem, both.values))
    assert float(residuals @ residuals) == pytest.approx(both.cost, rel=1e-6)
    grid = np.linspace(-4, 8, 2001)
    k = math.log(both.values["k"])
    heights = Objective(both.problem).log_posteriors(
        np.column_stack([np.full_like(grid, k), np.clip(grid, -5.9, 5.9)]))  # fmt: skip
    assert grid[np.argmax(heights)] == pytest.approx(logit(both.values["f"]), abs=0.01)


def test_a_fit_to_synthetic_data_recovers_the_share():
    rng = np.random.default_rng(4)
    off = []
    for share in (0.6, 0.8, 0.9, 0.95):
        observations = tuple(
            seen(f"r{d}", "A", d / 2, 10 * share * math.exp(0.05 * rng.standard_normal() - d / 4))
            for d in range(12))  # fmt: skip
        noise = Noise({"A": replace(NOISE.spreads["A"], sd=0.05)})
        result = fit(mixed(observations, noise), starts=1, workers=1)
        e = result.estimates[1]
        assert e.estimate == pytest.approx(share, abs=0.06)
        off.append((logit(e.estimate) - logit(share)) / e.standard_error)
    assert np.abs(off).max() < 2.5


def test_starts_prior_points_and_dropping_are_inside(both):
    points = start_points(both.problem, 200, 1)
    values = from_scale(points, both.problem.scales)[:, 1]
    assert values.min() < 0.05 and 0.95 < values.max() < 1
    check_reachable(both.problem)
    assert [d.parameter for d in drop_one(both, workers=1)] == ["k", "f"]
    assert both.problem.without("f").model.values["f"] == 0.5


# --- files ----------------------------------------------------------------------------------------


def people(*frees, name="people"):
    return Population(name, MODEL, frees, NOISE, 3.0)


@pytest.mark.parametrize("scale", ["log", "logit"])
def test_a_population_comes_back_from_its_file(tmp_path, scale):
    made = people(share_of(0.6, scale=scale, prior=0.7), free("k", 0.5, 0.4))
    text = made.toml()
    (tmp_path / "prior.toml").write_text(text)
    assert load_population(MODEL, tmp_path) == made
    assert ('scale = "log"' in text) == (scale == "log") and "logit" not in text


def test_a_sample_is_normal_on_the_logit_scale_and_so_is_the_table():
    made = people(share_of(0.8, prior=0.9))
    values = made.sample(4000, np.random.default_rng(1))["f"]
    assert values.min() > 0 and values.max() < 1
    assert np.median(values) == pytest.approx(0.9, rel=0.01)
    assert logit(values).std() == pytest.approx(0.8, rel=0.05)
    row = made.table().iloc[0]
    assert logit([row["low"], row["high"]]) == pytest.approx(
        logit(0.9) + np.array([-1, 1]) * 1.959964 * 0.8)  # fmt: skip
    virtual = VirtualPopulation(MODEL, made).draw(0, 600)["f"]
    assert virtual.min() > 0 and virtual.max() < 1 and np.median(virtual) > 0.85


def test_the_record_of_a_study_tells_the_logit_scale_only():
    def prior(**more):
        virtual = VirtualPopulation(MODEL, people(share_of(0.8, **more)))
        return PopulationStudy("s", virtual, (Scenario("x"),), ()).settings()["prior"]

    assert [len(row) for row in prior(scale="log")] == [5]
    assert prior()[0][5:] == ["logit"]


REFUSED = {
    "f.upper": ({"upper": 1.0}, r"free\.f\.upper: 1 is not between 0 and 1.*Share absorbed"),
    "f.lower": ({"lower": 1.5}, r"free\.f\.lower: 1.5 is not between 0 and 1"),
    "f.prior": ({"prior": 1.0}, r"free\.f\.prior: 1 is not between 0 and 1.*state one below 1"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_no_share_is_refused_with_file_and_key(mistake):
    more, words = REFUSED[mistake]
    with pytest.raises(FileError, match=rf"patient/prior\.toml, key {words}"):
        share_of(**more)


def test_a_rate_has_no_logit(tmp_path):
    text = '[free.k]\nsd = 1\nscale = "logit"\nsource = "x"\n'
    (tmp_path / "prior.toml").write_text(f'name = "x"\n{text}')
    with pytest.raises(InputError, match=r"prior\.toml, key free\.k\.scale: k is no share.*log"):
        load_population(MODEL, tmp_path)
    (tmp_path / "prior.toml").write_text(f'name = "x"\n{text.replace("logit", "probit")}')
    with pytest.raises(CrsSimError, match=r"free\.k\.scale.*'probit': known are log, logit"):
        load_population(MODEL, tmp_path)
    with pytest.raises(InputError, match=r"free\.k\.scale: k is no share"):
        asked(replace(free("k", 0.5, 0.4, 1.5), scale="logit"), observations=readings(0.5))


@pytest.mark.parametrize(
    "prior",
    [Free("f", 0.1, 1.2, 0.5, 0.4), Free("f", 0.1, 1.0, 1.0, 0.4), Free("f", 0.1, 4.0, 1.5, 0.4),
     Free("f", 0.1, 1.0, 0.5, 0.4, scale="logit"), Free("f", 0.1, 2.0, 0.5, 0.4, scale="logit")],
)  # fmt: skip
def test_a_prior_that_reaches_above_one_is_refused(prior):
    with pytest.raises(InputError, match=r"1 is the most that makes sense for f .Share absorbed."):
        asked(prior, model=MODEL, observations=(seen("r", "A", 1.0, 3.0),))


def test_a_run_keeps_the_scale_and_one_on_the_other_scale_is_another_problem(both, tmp_path):
    run = load_run(save_run(both, tmp_path))
    assert [f["scale"] for f in run.result["free"]] == ["log", "logit"]
    again = restore_fit(run, both.problem)
    assert again.cost == pytest.approx(both.cost, rel=1e-9)
    on_log = replace(both.problem, free=tuple(replace(f, scale="log") for f in both.problem.free))
    with pytest.raises(CrsSimError, match="free parameters or priors"):
        restore_fit(run, on_log)
    old = load_run(save_run(fit(on_log, starts=1, workers=1), tmp_path))
    for free_ in old.result["free"]:
        free_.pop("scale")  # as runs were before
    assert restore_fit(old, on_log).problem.scales == ("log", "log")
    assert problem_hash(on_log) != problem_hash(both.problem)


def test_petab_has_no_such_prior_and_says_so():
    with pytest.raises(InputError, match=r"free\.f\.scale: PEtab has no prior .*logit scale"):
        petab_files(mixed())


def test_the_report_says_which_scale(both):
    assert "on the log scale, and of f on the logit scale." in report_text(both)


# --- uncertainty ----------------------------------------------------------------------------------


def test_draws_of_the_normal_approximation_are_inside_and_normal(both):
    values = laplace_draws(both, 3000).to_numpy()
    assert values[:, 1].min() > 0 and values[:, 1].max() < 1
    spread = to_scale(values, both.problem.scales).std(axis=0)
    inside = np.sqrt(np.diag(both.covariance))
    assert spread[0] == pytest.approx(inside[0], rel=0.1)
    assert 0.6 * inside[1] < spread[1] < 1.1 * inside[1]  # cut at four sds of the prior
    centre = point_of(both.problem, both.values)
    assert costs(both, centre[None], workers=1)[0] == pytest.approx(both.cost, rel=1e-3)
    weighted = weighted_draws(both, 100, workers=1)
    assert weighted.effective > 50 and weighted.values["f"].max() < 1


def test_the_posterior_is_inside_and_its_quantiles_are_of_the_share(drawn, tmp_path):
    values = drawn.values()
    assert values["f"].min() > 0 and values["f"].max() < 1
    table = drawn.summary().set_index("parameter")
    assert table["scale"].tolist() == ["log", "logit"]
    for name in ("k", "f"):
        quantiles = table.loc[name, ["q05", "q50", "q95"]].to_list()
        assert quantiles == pytest.approx(values[name].quantile([0.05, 0.5, 0.95]), rel=5e-3)
    assert table.loc["f", "sd"] == pytest.approx(logit(values["f"]).std(), rel=1e-3)
    values.to_csv(tmp_path / "draws.csv", index=False)
    assert read_draws(tmp_path, drawn.problem).values["f"].max() < 1
    (tmp_path / "draws.csv").write_text("k,f\n0.5,1.5\n")
    with pytest.raises(FileError, match=r"column f: 1.5 is not a finite number above 0 and below"):
        read_draws(tmp_path, drawn.problem)
    assert [row.id for row in predictive(drawn, 40)] == ["r0", "r1", "r2", "r3"]


def test_a_profile_is_of_the_share_and_finds_the_interval(both, tmp_path):
    (found,) = profile(both, ["f"], workers=1)
    low, high = found.interval()
    assert 0 < low < both.values["f"] < high < 1
    e = both.estimates[1]
    assert logit([low, high]) == pytest.approx(logit([e.low, e.high]), abs=1.0)
    assert ((found.values > 0) & (found.values < 1)).all() and not found.at_bound
    assert found.prior_cost(np.array([0.5, expit(1.5)])) == pytest.approx([0.0, 1.0])
    assert [value for value, _ in found.optima()] == pytest.approx([both.values["f"]], rel=1e-2)
    append_profile(tmp_path / "profiles.jsonl", found)
    (again,) = read_profiles(tmp_path / "profiles.jsonl", both)
    assert again.scales == ("log", "logit") and again.interval() == found.interval()
    assert profiles_table([again])["high_95"][0] == high
    data = found.interval(own_prior=False)
    assert data.high is None or data.high < 1
    better = replace(found, fit_cost=found.costs.min() + 1.0).better
    assert better == pytest.approx(dict(both.values), rel=1e-2)
    plot_profiles([found])


def test_a_profile_of_before_is_on_the_log_scale():
    old = Profile("k", "", "", 1.0, 0.1, 10.0, 1.0, 0.5, 0.0, ("k",), np.array([[-1.0], [1.0]]),
                  np.array([4.0, 4.0]), np.array([-8.0, 8.0]))  # fmt: skip
    assert old.scale == "log" and old.values == pytest.approx(np.exp([-1.0, 1.0]))
    assert old.prior_cost(np.exp([0.5])) == pytest.approx([1.0])


def test_leaving_out_and_influence_are_on_the_scale(both):
    (omission,) = leave_out(both, [("r0",)], workers=1)
    moved = point_of(both.problem, omission.fit.values) - point_of(both.problem, both.values)
    shifts = moved / np.sqrt(np.diag(both.covariance))
    assert omission.shift == pytest.approx(shifts[np.argmax(np.abs(shifts))])
    assert all(math.isfinite(one.off_by) for one in omission.held_out)
    assert [one.id for one in influences(both)] == ["r0", "r1", "r2", "r3"]


# --- scenarios ------------------------------------------------------------------------------------


def test_intervals_of_a_sensitivity_are_on_the_scale(both):
    prior, own = prior_intervals(both)[1], fit_intervals(both, 0.95)[1]
    free_ = both.problem.free[1]
    assert prior.at(np.array([0.0, 0.5, 1.0])) == pytest.approx([free_.lower, 0.5, free_.upper])
    e = both.estimates[1]
    assert (own.low, own.high) == pytest.approx((e.low, min(e.high, free_.upper)), rel=1e-6)
    middle = own.at(np.array([0.5]))[0]
    assert logit(middle) == pytest.approx(logit([own.low, own.high]).mean())
    draws = prior_draws(both, 500, seed=1).values["f"]
    assert draws.min() > 0 and draws.max() < 1
    uniform = ParameterInterval("f", 0.1, 0.9, 0.5, math.inf, "logit")
    steps = logit(uniform.at(np.linspace(0, 1, 5)))
    assert [b - a for a, b in pairwise(steps)] == pytest.approx([steps[1] - steps[0]] * 4)


# --- figures --------------------------------------------------------------------------------------


def test_figures_show_the_prior_on_its_scale(both, drawn):
    table = estimates_table(both)
    low, high = _prior_ratios(table)
    assert high[0] == pytest.approx(math.exp(1.959964 * 0.4))
    assert 0.5 * high[1] == pytest.approx(expit(1.959964 * 1.5))
    assert 0.5 * low[1] == pytest.approx(expit(-1.959964 * 1.5))
    before = table[table["parameter"] == "k"].drop(columns="scale")
    assert _prior_ratios(before)[1] == pytest.approx(high[:1])
    plot_estimates(table)
    corner = plot_corner(drawn)
    assert [ax.get_xscale() for ax in corner.axes] == ["log", "log", "logit"]
    assert all(0 < end < 1 for end in corner.axes[-1].get_xlim())
    trace = plot_trace(drawn)
    assert [ax.get_yscale() for ax in trace.axes[:3]] == ["linear", "log", "logit"]
    for figure in (corner, trace):
        figure.canvas.draw()
