"""A posterior as what others take: tables, words, figures, and the command that makes it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from normal_posterior import SHORT, around, linear
from tiny_case import write_case
from visible import texts

from crs_sim.cli.command_line import cli
from crs_sim.errors import InputError, StorageError, UnknownNameError
from crs_sim.figures.posterior_plots import (
    most_correlated,
    plot_corner,
    plot_predictive,
    plot_predictive_grades,
    plot_trace,
    share_levels,
)
from crs_sim.fitting.problem import load_problem
from crs_sim.reports.summaries import posterior_text, predicted_table
from crs_sim.uncertainty.posterior import Posterior, SamplePlan, load_posterior
from crs_sim.uncertainty.predictive_check import predictive
from crs_sim.uncertainty.sampler import sample


@pytest.fixture(scope="module")
def short() -> Posterior:
    return sample(around(linear()), SHORT)


@pytest.fixture(scope="module")
def settled() -> Posterior:
    """Independent draws around a point, as if sampled for very long."""
    problem = linear()
    chain = np.log([10.0, 3.0]) + 0.1 * np.random.default_rng(1).standard_normal((200, 4, 16, 2))
    chain[..., 1] += 0.8 * (chain[..., 0] - np.log(10.0))
    counts = np.tile([[3000, 32000, 2]], (4, 1))
    return Posterior(problem, SamplePlan(200, 10, 4, 16), chain, np.zeros(chain.shape[:3]), counts)


# --- numbers --------------------------------------------------------------------------------------


def test_values_are_draws_in_the_parameters_own_units(settled):
    table = settled.values()
    assert list(table.columns) == ["a0", "gain"]
    assert len(table) == settled.kept[..., 0].size == 140 * 4 * 16
    assert table["a0"].median() == pytest.approx(10.0, rel=0.01)


def test_fewer_values_are_spread_over_all_walkers_and_the_same_again(settled):
    table = settled.values(64)
    assert len(table) == 64
    pd.testing.assert_frame_equal(table, settled.values(64))
    places = [int(np.argmin(np.abs(settled.values()["a0"] - value))) for value in table["a0"]]
    assert len({place % 64 for place in places}) > 25  # of 64 walkers
    with pytest.raises(InputError, match="count is 0; give 1 or more"):
        settled.values(0)


def test_summary_has_quantiles_priors_and_what_is_told(settled):
    row = settled.summary().set_index("parameter").loc["a0"]
    assert row["q05"] == pytest.approx(10 * math.exp(-0.1645), rel=0.01)
    assert row["q95"] == pytest.approx(10 * math.exp(0.1645), rel=0.01)
    assert (row["prior_median"], row["prior_sd"]) == (10.0, 0.5)
    assert row["rhat"] < 1.01 and row["ess_bulk"] > 400 and row["converged"]


def test_counts(settled):
    assert (settled.runs, settled.failed_runs) == (128000, 8)
    assert settled.acceptance == pytest.approx(12000 / (200 * 4 * 16 * 10))


def test_a_posterior_is_found_again(tmp_path, short):
    made = sample(around(linear()), SHORT, folder=tmp_path)
    found = load_posterior(tmp_path, linear())
    np.testing.assert_array_equal(found.chain, made.chain)
    assert found.acceptance == made.acceptance
    assert found.warm_up == 4
    with pytest.raises(StorageError, match="cannot be resumed"):
        load_posterior(tmp_path, linear(model=linear().model.with_values(k=0.9)))


# --- words ----------------------------------------------------------------------------------------


def test_a_settled_posterior_says_so(settled):
    assert settled.converged and settled.more_draws == 0
    assert re.match(r"Converged: R-hat at most 1\.00\d, effective sample size at", settled.verdict)
    assert "NOT" not in repr(settled)


def test_a_short_run_never_converged_and_says_how_many_more(short):
    assert not short.converged
    assert "NOT converged" in repr(short)
    assert re.search(r"Not converged: .*--resume --draws \d+ \(about \d+ more", short.verdict)
    assert short.more_draws >= 50


def test_each_limit_is_named_when_it_is_broken(settled):
    shifted = settled.chain.copy()
    shifted[:, 1, :, 0] += 0.3
    assert "R-hat of the groups is 1." in replace(settled, chain=shifted).verdict
    stuck = settled.chain.copy()
    stuck[:, :, 0, 1] = stuck[0, :, 0, 1] + 1.0
    assert "R-hat of single walkers is 1." in replace(settled, chain=stuck).verdict
    few = replace(settled, chain=settled.chain[:12, :2, :8])
    assert re.search(r"effective sample size of \w+ is \d+ \(400 is needed\)", few.verdict)
    none = replace(settled, chain=settled.chain[:4])
    assert "too few draws for diagnostics" in none.verdict


def test_what_is_needed_grows_with_what_is_missing(settled):
    some = replace(settled, chain=settled.chain[:12, :2, :8])
    fewer = min(c.ess for c in some.convergence)
    wanted = 12 * 400 / fewer
    assert some.more_draws + 12 == pytest.approx(wanted, abs=60)


def test_the_report_says_first_whether_it_can_be_trusted(short):
    text = posterior_text(short, predictive(short))
    assert text.index("**Not converged") < text.index("## Parameters")
    assert "| a0 | " in text and "corner.png" in text


# --- figures --------------------------------------------------------------------------------------


def test_corner_shows_each_pair_once(settled):
    figure = plot_corner(settled)
    assert len(figure.axes) == 3
    figure = plot_corner(settled, ["gain"])
    assert len(figure.axes) == 1
    with pytest.raises(UnknownNameError, match=r"unknown sampled parameter 'gian': did you mean"):
        plot_corner(settled, ["gian"])


def test_corner_densities_of_draws_and_prior_are_on_one_scale(settled):
    ax = plot_corner(settled, ["a0"]).axes[0]
    (steps,) = ax.patches
    width = np.diff(np.log(steps.get_data().edges))
    assert np.sum(steps.get_data().values * width) == pytest.approx(1.0, abs=1e-6)
    (prior,) = ax.lines
    assert max(prior.get_ydata()) == pytest.approx(1 / (0.5 * math.sqrt(2 * math.pi)), rel=1e-3)


def test_the_strongest_pairs_are_chosen():
    rng = np.random.default_rng(1)
    chain = rng.standard_normal((100, 2, 10, 2))
    problem = linear()
    posterior = Posterior(problem, SHORT, chain, chain[..., 0], np.zeros((2, 3), dtype=np.int64))
    assert most_correlated(posterior) == ("a0", "gain")


def test_the_lines_of_a_corner_plot_hold_their_share():
    counts = np.random.default_rng(1).random((20, 20))
    low, high = share_levels(counts, (0.9, 0.5))
    total = counts.sum()
    assert counts[counts >= low].sum() / total == pytest.approx(0.9, abs=0.01)
    assert counts[counts >= high].sum() / total == pytest.approx(0.5, abs=0.01)


def test_trace_has_a_row_a_parameter_and_says_what_is_not_settled(short):
    figure = plot_trace(short)
    assert len(figure.axes) == 3
    said = " ".join(text.get_text() for text in texts(figure))
    assert "R-hat" in said and "warm-up" in said and "Research use only" in said


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("tiny"))


def test_the_check_draws_every_reading_and_arrows_for_limits(tiny):
    problem = load_problem(tiny / "fit")
    posterior = sample(problem, SamplePlan(draws=4, thin=2, groups=2, walkers=8), workers=1)
    table = predicted_table(predictive(posterior, 20))
    levels = plot_predictive(table)
    labels = [label.get_text() for label in levels.axes[0].get_yticklabels()]
    assert labels == [f"a{n}" for n in range(1, 9)]
    arrows = [a for a in levels.axes[0].texts if a.arrow_patch is not None]
    assert len(arrows) == 4  # two limits, two limits of ratios
    grades = plot_predictive_grades(table)
    assert [t.get_text() for t in grades.axes[0].get_yticklabels()] == ["g1", "g2", "g3"]


# --- the command ----------------------------------------------------------------------------------


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


SIZE = ("--walkers", 8, "--groups", 2, "--workers", 1)


def test_sample_writes_draws_figures_and_a_report_and_goes_on(tiny, tmp_path):
    out = tmp_path / "posterior"
    first = run("sample", tiny / "fit", "--draws", 10, "--out", out, *SIZE)
    assert first.exit_code == 0, first.stderr
    assert "No fit to start from, so one is made first" in first.stderr
    assert "Not converged" in first.output and "Research use only" in first.output
    names = {path.name for path in out.iterdir()}
    assert {"posterior.md", "posterior.csv", "predictive.csv", "draws.csv", "corner.png",
            "trace.svg", "predictive.png", "predictive_grades.png", "chain"} <= names  # fmt: skip
    columns = list(pd.read_csv(out / "draws.csv").columns)
    assert columns == list(load_problem(tiny / "fit").names)
    again = run("sample", tiny / "fit", "--draws", 10, "--out", out, *SIZE)
    assert again.exit_code == 1
    assert "already holds a run of the sampler" in again.stderr
    other = run("sample", tiny / "fit", "--draws", 12, "--out", out, "--resume", "--seed", 9, *SIZE)
    assert "seed 1, not 9" in other.stderr
    more = run("sample", tiny / "fit", "--draws", 12, "--out", out, "--resume", *SIZE)
    assert more.exit_code == 0, more.stderr
    assert load_posterior(out / "chain", load_problem(tiny / "fit")).chain.shape[0] == 12


def test_sample_starts_at_a_fit(tmp_path):
    tiny = write_case(tmp_path / "tiny")
    assert run("fit", tiny / "fit", "--workers", 1, "--no-drop").exit_code == 0
    (fitted,) = (tiny / "fit" / "runs").iterdir()
    for name in (fitted, tiny / "fit"):
        result = run("sample", name, "--draws", 3, "--out", tmp_path / name.name, *SIZE)
        assert result.exit_code == 0, result.stderr
        assert "No fit" not in result.stderr


def test_sample_refuses_bad_sizes(tiny, tmp_path):
    result = run("sample", tiny / "fit", "--draws", 0, "--out", tmp_path / "x", *SIZE)
    assert (result.exit_code, "draws is 0" in result.stderr) == (1, True)
    assert not (tmp_path / "x").exists()
