"""The commands that go on from a run: profile, leave-one-out, predict, compare-fits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from tiny_case import write_case

from crs_sim.cli import cli


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_case(tmp_path_factory.mktemp("tiny"))
    assert run("fit", folder / "fit", "--workers", 1, "--no-drop").exit_code == 0
    return folder


@pytest.fixture
def problem(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny")) / "fit"


def of(problem: Path) -> Path:
    return next((problem / "runs").iterdir())


@pytest.mark.parametrize("command", ["profile", "leave-one-out", "predict", "compare-fits"])
def test_every_command_has_help(command):
    assert run(command, "--help").output.startswith("Usage")


# --- profile --------------------------------------------------------------------------------------


def test_profiles_join_the_run_and_its_report(problem):
    result = run("profile", problem, "--workers", 1)
    assert result.exit_code == 0, result.output
    folder = of(problem)
    verdicts = set(pd.read_csv(folder / "profiles.csv")["verdict"])
    assert all(verdict in result.output for verdict in verdicts)
    assert "profiles: 2 of 2" in result.stderr
    report = (folder / "report.md").read_text()
    assert report.count("## What the data tell of each parameter") == 1
    assert report.startswith("# Fit of tiny")
    assert (folder / "profiles.png").is_file()
    again = run("profile", problem)
    assert (again.exit_code, again.output.count("--resume")) == (1, 1)
    resumed = run("profile", problem, "--resume")
    assert resumed.exit_code == 0
    assert "profiles:" not in resumed.stderr  # nothing was left to do
    assert (folder / "report.md").read_text() == report


def test_a_run_that_was_killed_goes_on(problem):
    assert run("profile", problem, "--parameter", "k", "--workers", 1).exit_code == 0
    path = of(problem) / "profiles.jsonl"
    first = path.read_text()
    path.write_text(first + first[:100])  # the next line was being written
    result = run("profile", problem, "--resume", "--workers", 1)
    assert result.exit_code == 0
    assert "profiles: 2 of 2" in result.stderr
    assert "k:" not in result.stderr
    assert set(pd.read_csv(of(problem) / "profiles.csv")["parameter"]) > {"k"}


def test_fit_profiles_and_reports_in_one(problem, tmp_path):
    result = run("fit", problem, "--starts", 2, "--no-drop", "--profiles", "--workers", 1,
                 "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert "## What the data tell of each parameter" in (folder / "report.md").read_text()


def test_what_cannot_be_profiled_is_said(problem, tmp_path):
    result = run("profile", problem, "--parameter", "kk")
    assert (result.exit_code, "did you mean 'k'" in result.stderr) == (1, True)
    moved = Path(shutil.copytree(of(problem), tmp_path / "elsewhere" / "runs" / "one"))
    result = run("profile", moved)
    assert result.exit_code == 1
    assert "say where it is (--problem FOLDER)" in result.stderr
    assert run("profile", moved, "--problem", problem, "--workers", 1).exit_code == 0


@pytest.mark.parametrize(("file", "old", "new", "words"), [
    ("fit/problem.toml", "sd = ", "sd = 1", "free parameters or priors of tiny have changed"),
    ("data/observations.csv", "5.5", "5.6", "doses or observations, or their noise, have changed"),
    ("fit/problem.toml", "[noise.amount]\nsd = 0.2", "[noise.amount]\nsd = 0.3", "or their noise"),
])  # fmt: skip
def test_a_run_whose_question_has_changed_is_refused(problem, file, old, new, words):
    path = problem.parent / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    result = run("profile", problem)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "fit again" in result.stderr


def test_words_and_spreads_that_the_fit_did_not_use_may_change(problem):
    path = problem / "problem.toml"
    text = path.read_text().replace("made up", "made up, as all of it")
    path.write_text(text + '[noise.A]\nsd = 0.4\nsource = "for what is not observed yet"\n')
    assert run("profile", problem, "--parameter", "k", "--workers", 1).exit_code == 0


# --- left out -------------------------------------------------------------------------------------


def test_each_observation_is_left_out(problem):
    result = run("leave-one-out", problem, "--workers", 2)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(of(problem) / "leave_one_out.csv")
    influence = pd.read_csv(of(problem) / "influence.csv")
    assert len(table) == 11
    assert list(table["id"]) == list(influence["id"])
    assert "left out: 11 of 11" in result.stderr
    assert (of(problem) / "leave_one_out.png").is_file()


def test_groups_are_left_out(problem, tmp_path):
    result = run("leave-one-out", problem, "--group", "a1,b1", "--after", 3, "--workers", 1,
                 "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 1  # b1 is not there
    assert "unknown observation 'b1'" in result.stderr
    result = run("leave-one-out", problem, "--after", 3, "--workers", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "left_out.csv").is_file()
    late = run("leave-one-out", problem, "--after", 300)
    assert "--after 300  nothing was observed after that day" in late.stderr


# --- predictions ----------------------------------------------------------------------------------


def test_predictions_are_written(problem, tmp_path):
    result = run("predict", problem, "--draws", 60, "--until", 6, "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "draws of the Laplace approximation" in result.output
    table = pd.read_csv(tmp_path / "p" / "predictions.csv")
    assert {"curve_low_95", "reading_high_95", "curve_low_50"} <= set(table.columns)
    assert table["day"].max() == 6.0


def test_draws_of_a_posterior_can_be_given(problem, tmp_path):
    values = pd.read_csv(of(problem) / "estimates.csv").set_index("parameter")["estimate"]
    pd.DataFrame([values, values * 1.1]).to_csv(tmp_path / "draws.csv", index=False)
    result = run("predict", problem, "--from", tmp_path / "draws.csv", "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "2 draws given" in result.output
    missing = run("predict", problem, "--from", tmp_path / "no.csv", "--out", tmp_path / "p")
    assert "no.csv  is no table of draws" in missing.stderr


# --- compared -------------------------------------------------------------------------------------


def test_fits_are_compared(problem, tmp_path):
    smaller = Path(shutil.copytree(problem.parent, tmp_path / "smaller")) / "fit"
    shutil.rmtree(smaller / "runs")
    assert run("fit", smaller, "--starts", 1, "--no-drop", "--workers", 1).exit_code == 0
    result = run("compare-fits", problem, smaller, "--out", tmp_path / "table.csv")
    assert result.exit_code == 0, result.output
    assert "delta_aic" in result.output
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2
    assert "two fits or more" in run("compare-fits", problem).stderr
