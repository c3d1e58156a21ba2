"""The commands that go on from a run: profile, leave-one-out, predict, compare-fits."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from paths import SHIPPED_RUN, child_environment
from tiny_case import write_case
from waiting import PATIENCE, wait_until

from crs_sim.cli.command_line import cli
from crs_sim.fitting.problem import load_problem
from crs_sim.uncertainty.posterior import read_draws


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


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory) -> Path:
    """Each observation left out, in one go."""
    out = tmp_path_factory.mktemp("whole")
    done = run("leave-one-out", tiny / "fit", "--workers", 1, "--out", out)
    assert done.exit_code == 0, done.stderr
    return out


def of(problem: Path) -> Path:
    return next((problem / "runs").iterdir())


@pytest.mark.parametrize("command", ["profile", "leave-one-out", "predict", "compare-fits"])
def test_every_command_has_help(command):
    assert run(command, "--help").output.startswith("Usage")


# --- profile --------------------------------------------------------------------------------------


def test_profiles_lie_beside_the_run_and_do_not_touch_it(problem):
    folder = of(problem)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    result = run("profile", problem, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert all(path.read_bytes() == content for path, content in before.items())
    verdicts = set(pd.read_csv(folder / "profiles.csv")["verdict"])
    assert all(verdict in result.output for verdict in verdicts)
    assert "profiles: 2 of 2" in result.stderr
    report = (folder / "profiles.md").read_text()
    assert report.startswith("# Profile likelihood of each parameter")
    assert "Research use only" in report and "![profiles](profiles.png)" in report
    assert all(verdict in report for verdict in verdicts)
    assert (folder / "profiles.png").is_file()
    again = run("profile", problem)
    assert (again.exit_code, again.output.count("--resume")) == (1, 1)
    resumed = run("profile", problem, "--resume")
    assert resumed.exit_code == 0
    assert "profiles:" not in resumed.stderr  # nothing was left to do
    assert (folder / "profiles.md").read_text() == report


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
    link = "Profile likelihood of each parameter: [profiles.md](profiles.md)."
    assert link in (folder / "report.md").read_text()
    assert (folder / "profiles.md").is_file()
    assert link not in (of(problem) / "report.md").read_text()  # a fit without --profiles


def test_the_report_of_the_case_leads_to_its_verdicts():
    report = (SHIPPED_RUN / "report.md").read_text()
    assert "each parameter: [profiles.md](profiles.md)." in report
    rows = (SHIPPED_RUN / "profiles.md").read_text().split("| --- |")[-1].strip().splitlines()
    assert len([row for row in rows if row.startswith("| ")]) == 20


def test_what_cannot_be_profiled_is_said(problem, tmp_path):
    result = run("profile", problem, "--parameter", "kk")
    assert (result.exit_code, "did you mean 'k'" in result.stderr) == (1, True)
    moved = Path(shutil.copytree(of(problem), tmp_path / "elsewhere" / "runs" / "one"))
    result = run("profile", moved)
    assert result.exit_code == 1
    assert "give its folder (--problem FOLDER)" in result.stderr
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


def test_each_observation_is_left_out(problem, whole):
    result = run("leave-one-out", problem, "--workers", 2)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(of(problem) / "leave_one_out.csv")
    influence = pd.read_csv(of(problem) / "influence.csv")
    assert len(table) == 11
    assert list(table["id"]) == list(influence["id"])
    assert "left out: 11 of 11" in result.stderr
    for name in ("leave_one_out.csv", "influence.csv"):  # whoever did the work
        assert (of(problem) / name).read_bytes() == (whole / name).read_bytes()
    assert (of(problem) / "leave_one_out.png").is_file()


HELD = """
# with two of them kept it waits to be killed
import sys, time
from crs_sim.cli import main
from crs_sim.uncertainty import profiles
plain = profiles.append_omission
def held(path, *rest):
    if path.exists() and path.read_bytes().count(b"\\n") == 2:
        time.sleep(1e4)
    plain(path, *rest)
profiles.append_omission = held
main()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_was_left_out_before_a_kill_is_not_made_again(problem, whole, tmp_path, how):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", HELD, "leave-one-out", str(problem), "--workers", "1", "--out",
         str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=child_environment(),
    )  # fmt: skip
    lines = out / "leave_one_out.jsonl"
    wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 2,
               alive=lambda: child.poll() is None)  # fmt: skip
    child.send_signal(how)
    assert child.wait(timeout=PATIENCE) != 0
    kept = lines.read_text()
    made = kept.count("\n")
    assert 2 <= made < 11 and not (out / "leave_one_out.csv").exists()
    lines.write_text(kept + kept[:200])  # and the next one was cut off
    refused = run("leave-one-out", problem, "--out", out)
    assert (refused.exit_code, "--resume" in refused.stderr) == (1, True)
    result = run("leave-one-out", problem, "--workers", 1, "--out", out, "--resume")
    assert result.exit_code == 0, result.stderr
    assert f"left out: {made + 1} of 11" in result.stderr
    assert f"left out: {made} of 11" not in result.stderr
    assert lines.read_text().startswith(kept)
    for name in ("leave_one_out.csv", "influence.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_what_was_left_out_of_another_fit_is_refused(problem, tmp_path):
    out = tmp_path / "out"
    assert run("leave-one-out", problem, "--group", "a1", "--workers", 1, "--out",
               out).exit_code == 0  # fmt: skip
    path = problem / "problem.toml"
    path.write_text(path.read_text().replace("sd = 0.25", "sd = 0.35"))
    assert run("fit", problem, "--starts", 1, "--no-drop", "--workers", 1).exit_code == 0
    result = run("leave-one-out", problem, "--group", "a2", "--out", out, "--resume")
    assert result.exit_code == 1
    assert "holds leave-one-out results of another fit" in result.stderr


def test_groups_are_left_out(problem, tmp_path):
    result = run("leave-one-out", problem, "--group", "a1,b1", "--after", 3, "--workers", 1,
                 "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 1  # b1 is not there
    assert not (tmp_path / "left_out.jsonl").exists()
    assert "unknown observation 'b1'" in result.stderr
    result = run("leave-one-out", problem, "--after", 3, "--workers", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "left_out.csv").is_file()
    late = run("leave-one-out", problem, "--after", 300)
    assert "--after 300  there is no observation after that day" in late.stderr


# --- predictions ----------------------------------------------------------------------------------


def test_predictions_are_written(problem, tmp_path):
    result = run("predict", problem, "--draws", 60, "--until", 6, "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "draws of the Laplace approximation" in result.output
    table = pd.read_csv(tmp_path / "p" / "predictions.csv")
    assert {"curve_low_95", "reading_high_95", "curve_low_50"} <= set(table.columns)
    assert table["day"].max() == 6.0
    said = (tmp_path / "p" / "verdict.txt").read_text(encoding="utf-8").splitlines()
    assert result.output.splitlines()[: len(said) - 1] == said[:-1]
    assert any("the fit misses" in line for line in said)


def test_draws_of_a_posterior_can_be_given(problem, tmp_path):
    values = pd.read_csv(of(problem) / "estimates.csv").set_index("parameter")["estimate"]
    pd.DataFrame([values, values * 1.1]).to_csv(tmp_path / "draws.csv", index=False)
    result = run("predict", problem, "--from", tmp_path / "draws.csv", "--out", tmp_path / "p")
    assert result.exit_code == 0, result.output
    assert "2 draws given" in result.output


def test_what_the_sampler_wrote_is_predicted_from(problem, tmp_path):
    """`sample`, then `predict --from`: each from the command line, with the other's files."""
    out = tmp_path / "posterior"
    size = ("--draws", 10, "--walkers", 8, "--groups", 2, "--workers", 1)
    sampled = run("sample", problem, "--out", out, *size)
    assert sampled.exit_code == 0, sampled.stderr
    table = pd.read_csv(out / "draws.csv")
    shutil.rmtree(out / "chain")  # large, and not needed any more
    for k, given in enumerate((out / "draws.csv", out)):
        to = tmp_path / f"bands{k}"
        result = run("predict", problem, "--from", given, "--until", 4, "--out", to)
        assert result.exit_code == 0, result.stderr
        said = f"{len(table)} draws of the posterior. Not converged: too few draws for diagnostics"
        assert said in result.output and "0 could not be run" in result.output
        bands = pd.read_csv(to / "predictions.csv").set_index(["observable", "day"])
        # at day 1, before the second course of doses, A = 10 exp(-k)
        expected = np.quantile(10 * np.exp(-table["k"]), [0.025, 0.5, 0.975])
        row = bands.loc[("amount", 1.0)]
        assert [row["curve_low_95"], row["median"], row["curve_high_95"]] == pytest.approx(
            expected, rel=1e-3)  # fmt: skip
    moved = Path(shutil.copy(out / "draws.csv", tmp_path / "moved.csv"))
    alone = run("predict", problem, "--from", moved, "--until", 4, "--out", tmp_path / "bands2")
    assert f"{len(table)} draws given in moved.csv" in alone.output
    about = out / "posterior.json"
    for text, words in (
        (about.read_text().replace('"problem_hash": "', '"problem_hash": "0'),
         "draws.csv  was sampled from another version of tiny: its model, priors, noise, data or"),
        (about.read_text()[:40], "posterior.json  is damaged"),
    ):  # fmt: skip
        about.write_text(text)
        other = run("predict", problem, "--from", out, "--until", 4, "--out", tmp_path / "bands3")
        assert (other.exit_code, other.stdout) == (1, "") and words in other.stderr
        assert len(other.stderr.splitlines()) == 1 and not (tmp_path / "bands3").exists()


def test_the_posterior_beside_a_problem_is_taken_if_it_answers_its_question(problem, tmp_path):
    size = ("--draws", 10, "--walkers", 8, "--groups", 2, "--workers", 1)
    assert run("sample", problem, "--out", problem / "posterior", *size).exit_code == 0
    until = ("--until", 4, "--out", tmp_path / "bands")
    for what in (problem, of(problem)):
        assert "draws of the posterior. Not converged" in run("predict", what, *until).output
    assert "Laplace" in run("predict", problem, "--draws", 20, *until).output
    refused = run("predict", problem, "--draws", 0, *until)
    assert refused.exit_code == 1 and "--draws is 0; give 1 or more" in refused.stderr
    about = problem / "posterior" / "posterior.json"
    about.write_text(about.read_text().replace('"problem_hash": "', '"problem_hash": "0'))
    draws = problem / "posterior" / "draws.csv"
    draws.write_text(draws.read_text().replace("one_mg", "freed_then"))
    other = run("predict", problem, *until)
    assert other.exit_code == 0 and "Laplace" in other.output
    assert "draws.csv  was sampled from another version of tiny" in other.stderr


def test_the_posterior_of_the_case_answers_its_question():
    problem = load_problem("ruemmele2025")
    assert "Converged" in read_draws(Path(problem.path).parent / "posterior", problem).source


BAD_DRAWS = {
    "k,one_mg\n": "has a header but no rows",
    "k,one_mg\n0.5,1\n0.5,a\n": "draws.csv, row 3, column one_mg: ",
    "k,one_mg\n0.5,-1\n": "row 2, column one_mg: -1 is not a finite number above 0",
    "k,one_mg\n0.5,\n": "row 2, column one_mg: ",
    "k\n0.5\n": "no column one_mg, which is free in tiny",
    "k,one_mh\n0.5,1\n": "did you mean 'one_mg'",
    None: "draws.csv: cannot be read",
}


@pytest.mark.parametrize("text", BAD_DRAWS)
def test_bad_draws_are_refused(problem, tmp_path, text):
    if text is not None:
        (tmp_path / "draws.csv").write_text(text)
    result = run("predict", problem, "--from", tmp_path / "draws.csv", "--out", tmp_path / "p")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1 and BAD_DRAWS[text] in result.stderr
    assert not (tmp_path / "p").exists()


# --- before anything is measured ------------------------------------------------------------------

PRIOR = """\
name = "tiny prior"
[free.k]
prior = 0.5
sd = 0.4
source = "assumption: made up"
[noise.amount]
sd = 0.2
source = "assumption: made up"
"""


@pytest.fixture
def unmeasured(tmp_path) -> Path:
    folder = write_case(tmp_path)
    (folder / "model" / "prior.toml").write_text(PRIOR)
    (folder / "data" / "observations.csv").unlink()
    return folder / "data"


def test_a_patient_without_observations_gets_the_bands_of_the_prior(unmeasured, tmp_path):
    told = run("fit", unmeasured)
    assert f"with bands: crs-sim predict {unmeasured} --out bands/" in told.output
    result = run("predict", unmeasured, "--until", 2, "--draws", 4000, "--out", tmp_path / "p")
    assert result.exit_code == 0, result.stderr
    assert ("4000 patients drawn from the prior tiny prior, without any observation of tiny; "
            "0 could not be run") in result.output  # fmt: skip
    bands = pd.read_csv(tmp_path / "p" / "predictions.csv").set_index(["observable", "day"])
    row = bands.loc[("amount", 1.0)]
    ends = [10 * math.exp(-0.5 * math.exp(0.4 * z)) for z in (1.96, 0.0, -1.96)]  # closed form
    assert [row["curve_low_95"], row["median"], row["curve_high_95"]] == pytest.approx(
        ends, rel=0.05)  # fmt: skip
    assert row["reading_low_95"] < row["curve_low_95"]
    assert (tmp_path / "p" / "predictions.png").is_file()


def test_a_prior_may_be_asked_for_where_something_was_measured(problem, tmp_path):
    (tmp_path / "other.toml").write_text(PRIOR)
    result = run("predict", problem.parent / "data", "--prior", tmp_path / "other.toml", "--until",
                 2, "--draws", 20, "--out", tmp_path / "p")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "20 patients drawn from the prior tiny prior" in result.output


@pytest.mark.parametrize("option", ["--from", "--problem"])
def test_a_prior_has_neither_draws_nor_a_problem(unmeasured, tmp_path, option):
    result = run("predict", unmeasured, option, tmp_path, "--out", tmp_path / "p")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{option}  applies to a fit, not to bands of a prior" in result.stderr


# --- compared -------------------------------------------------------------------------------------


def test_fits_are_compared(problem, tmp_path):
    smaller = Path(shutil.copytree(problem.parent, tmp_path / "smaller")) / "fit"
    shutil.rmtree(smaller / "runs")
    assert run("fit", smaller, "--starts", 1, "--no-drop", "--workers", 1).exit_code == 0
    result = run("compare-fits", problem, smaller, "--out", tmp_path / "table.csv")
    assert result.exit_code == 0, result.output
    assert "delta_aic" in result.output
    assert len(pd.read_csv(tmp_path / "table.csv")) == 2
    assert f"held_out of {smaller}: crs-sim leave-one-out {smaller} first" in result.output
    assert run("leave-one-out", smaller, "--workers", 1).exit_code == 0
    result = run("compare-fits", problem, smaller, "--out", tmp_path / "table.csv")
    assert f"held_out of {smaller}" not in result.output
    table = pd.read_csv(tmp_path / "table.csv").set_index("fit")
    omitted = pd.read_csv(of(smaller) / "leave_one_out.csv")
    assert table.loc[str(smaller), "held_out"] == pytest.approx(omitted["deviance"].sum())
    assert "two fits or more" in run("compare-fits", problem).stderr


def test_a_stored_fit_replays_to_the_same_cost(problem):
    done = run("replay", problem, "--refit", "--workers", 1)
    assert done.exit_code == 0, done.output
    stored, anew = (float(line.split()[2].rstrip(",")) for line in done.output.splitlines()[:2])
    assert anew == pytest.approx(stored, rel=1e-6)
    assert "The same." in done.output


def test_a_fit_whose_data_changed_is_not_replayed(problem):
    path = problem.parent / "data" / "observations.csv"
    path.write_text(path.read_text().replace("a1,amount,value,1,,,5.5", "a1,amount,value,1,,,9.5"))
    refused = run("replay", problem)
    assert refused.exit_code == 1
    assert "have changed; fit again" in refused.output
