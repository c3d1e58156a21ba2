"""A new patient and several patients, from the command line."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from tiny_case import FILES, write_case

from crs_sim.cli.command_line import cli
from crs_sim.fitting.priors import load_population
from crs_sim.model.model_file import load_model
from crs_sim.store.workbook import workbook_bytes

PRIOR = """\
name = "tiny"
[free.k]
prior = 0.5
sd = 0.4
source = "assumption: made up"
[free.one_mg]
sd = 0.3
source = "assumption: made up"
[noise.amount]
sd = 0.2
source = "assumption: made up"
[grade]
latent = "shock"
cuts = ["grade_1", "grade_2", "grade_3", "grade_4"]
sd = 0.5
source = "assumption: made up"
"""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def study(tmp_path):
    """Three tiny patients in a folder, and the prior of their model."""
    folder = write_case(tmp_path)
    (folder / "model" / "prior.toml").write_text(PRIOR)
    for k, factor in enumerate((0.8, 1.0, 1.25), start=1):
        home = folder / "study" / f"p{k}"
        shutil.copytree(folder / "data", home)
        (home / "patient.toml").write_text(
            FILES["data/patient.toml"].replace('"tiny"', f'"p{k}"').replace("../", "../../")
        )
        text = (home / "observations.csv").read_text()
        (home / "observations.csv").write_text(text.replace("5.5", f"{5.5 * factor}"))
    return folder / "study"


def test_fit_of_a_patient_without_problem(study):
    result = run("fit", study / "p1", "--starts", 1, "--no-drop", "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert "one_mg" in result.output
    assert "example data" not in result.stderr
    (made,) = (study / "p1" / "runs").iterdir()
    assert (made / "report.md").is_file()
    assert run("simulate", study / "p1", "--from", study / "p1", "--until", 1).exit_code == 0


def test_rows_of_the_template_are_said_before_the_fit(study):
    home = study / "p1"
    head, first, *rest = (home / "doses.csv").read_text().splitlines()
    (home / "doses.csv").write_text("\n".join([head, f"{first}EXAMPLE: a pill", *rest]))
    result = run("fit", home, "--starts", 1, "--no-drop", "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert "Warning: p1/doses.csv, row 2: still example data" in result.stderr


@pytest.mark.parametrize("asked", [".", "run"])
def test_the_fit_of_a_patient_is_gone_on_with_from_anywhere(study, monkeypatch, tmp_path, asked):
    """No problem.toml says what was asked: the run itself tells its priors and noise."""
    (study / "other.toml").write_text(PRIOR.replace("sd = 0.4", "sd = 0.6"))
    fitted = run("fit", study / "p1", "--starts", 1, "--no-drop", "--workers", 1, "--prior",
                 study / "other.toml")  # fmt: skip
    assert fitted.exit_code == 0, fitted.stderr
    (study / "other.toml").unlink()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    (made,) = (study / "p1" / "runs").iterdir()
    what = made if asked == "run" else study / "p1"
    result = run("predict", what, "--draws", 20, "--until", 3, "--out", "bands")
    assert result.exit_code == 0, result.stderr
    assert run("profile", what, "--parameter", "k", "--workers", 1).exit_code == 0
    drawn = run("sample", what, "--draws", 2, "--walkers", 8, "--workers", 1, "--out", "posterior")
    assert drawn.exit_code == 0 and "No fit" not in drawn.stderr
    assert set(pd.read_csv("posterior/posterior.csv")["prior_sd"]) == {0.6, 0.3}
    assert run("export", study / "p1", "--from", what, "--out", "petab").exit_code == 0
    told = pd.read_csv("petab/parameters.tsv", sep="\t").set_index("parameterId")
    assert told.loc["k", "priorParameters"].split(";")[1] == "0.6"
    moved = Path(shutil.move(made, elsewhere / "made"))
    lost = run("predict", moved, "--draws", 20, "--until", 3, "--out", "bands")
    assert (lost.exit_code, "--problem FOLDER" in lost.stderr) == (1, True)
    told = run("predict", moved, "--problem", study / "p1", "--draws", 20, "--until", 3, "--out",
               "bands")  # fmt: skip
    assert told.exit_code == 0, told.stderr


def test_the_fit_of_a_workbook_is_gone_on_with(study, monkeypatch, tmp_path):
    book = study.parent / "p9.xlsx"
    sheets = {part: list(csv.reader((study / "p1" / f"{part}.csv").read_text().splitlines()))
              for part in ("doses", "observations")}  # fmt: skip
    about = [["id", "p9"], ["model", str(study.parent / "model")], ["weight", "70"]]
    book.write_bytes(workbook_bytes({"patient": [["key", "value"], *about], **sheets}))
    fitted = run("fit", book, "--starts", 1, "--no-drop", "--workers", 1)
    assert fitted.exit_code == 0, fitted.stderr
    monkeypatch.chdir(tmp_path)
    for what in (study.parent / "p9", book):
        result = run("predict", what, "--draws", 20, "--until", 3, "--out", "bands")
        assert result.exit_code == 0, result.stderr


def test_a_patient_who_was_not_fitted_is_sampled_with_the_prior_of_the_model(study, tmp_path):
    drawn = run("sample", study / "p1", "--draws", 2, "--walkers", 8, "--workers", 1, "--out",
                tmp_path)  # fmt: skip
    assert drawn.exit_code == 0, drawn.stderr
    assert "so one is made first, with the model's own prior" in drawn.stderr
    assert set(pd.read_csv(tmp_path / "posterior.csv")["prior_sd"]) == {0.4, 0.3}


def test_fit_of_one_observation(study):
    path = study / "p1" / "observations.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    result = run("fit", study / "p1", "--starts", 1, "--no-drop", "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert "1 of 1 acceptance criteria met" in result.output


def test_fit_without_observation_is_the_prior(study):
    (study / "p1" / "observations.csv").unlink()
    result = run("fit", study / "p1")
    assert result.exit_code == 0, result.stderr
    assert result.output.startswith("p1: no observation; nothing to fit. The estimate is")
    assert "one_mg" in result.output
    assert not (study / "p1" / "runs").exists()


def test_new_workbook_to_fit(tmp_path, study):
    book = study.parent / "p9.xlsx"
    made = run("new", book)
    assert made.exit_code == 0 and f"crs-sim fit {book}" in made.output
    assert run("simulate", book, "--until", 1).exit_code == 0
    assert "already" in run("new", book).stderr


def test_fit_all_writes_a_prior_for_the_next_patient(study):
    out = study.parent / "out"
    result = run("fit-all", study, "--out", out, "--starts", 1, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    assert "3 patients" in result.output and "Research use only" in result.output
    assert "iteration 1: 3 of 3, p3 cost" in result.stderr
    table = pd.read_csv(out / "population.csv").set_index("parameter")
    assert list(table.index) == ["k", "one_mg"]
    known = load_population(load_model(study.parent / "model"), out / "prior.toml")
    assert known.patients == 4
    assert known.medians["k"] == pytest.approx(table.loc["k", "median"])
    again = run("fit", study / "p2", "--prior", out / "prior.toml", "--starts", 1, "--no-drop",
                "--workers", 1)  # fmt: skip
    assert again.exit_code == 0, again.stderr
    before = {p: p.read_bytes() for p in out.rglob("*.csv")}
    assert "add --resume" in run("fit-all", study, "--out", out).stderr
    resumed = run("fit-all", study, "--out", out, "--starts", 1, "--workers", 1, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert before == {p: p.read_bytes() for p in out.rglob("*.csv")}


def test_fit_all_leads_with_those_whose_fitted_course_is_severe_unseen(study):
    """p2 has a tablet more on day 30, when nothing was measured; p3 one that lasts to the end."""
    for name, day in (("p2", 30), ("p3", 39.5)):
        with (study / name / "doses.csv").open("a") as file:
            file.write(f"{day},pill,10,mg,,,,\n")
    out = study.parent / "out"
    result = run("fit-all", study, "--out", out, "--starts", 1, "--workers", 1, "--draws", 0)
    assert result.exit_code == 0, result.stderr
    report = (out / "report.md").read_text()
    head = "The fitted course does not resolve, or is severe unobserved, in 2 of 3 patients:"
    for text in (report, result.stdout):
        words = (head, "- p2: the fitted course is grade 3 or more on days 30 to 3", "- p3: fitted "
                 "course to day 40: worst grade 4, ", "Two-stage method")  # fmt: skip
        assert -1 not in (places := [text.find(each) for each in words])
        assert places == sorted(places)
        assert "- p1: fitted course" not in text and "- p1: the fitted" not in text
    assert report.splitlines()[4] == f"**{head}**"


def test_fit_all_names_every_bad_file_before_it_begins(study):
    (study / "p1" / "doses.csv").write_text("day,drug\n")
    (study / "p3" / "observations.csv").write_text("id\n")
    result = run("fit-all", study, "--out", study.parent / "out")
    assert result.exit_code == 1
    assert "2 patients cannot be read:" in result.stderr
    assert "p1/doses.csv" in result.stderr and "p3/observations.csv" in result.stderr
    assert not (study.parent / "out").exists()


def test_fit_all_refuses_those_of_whom_nothing_was_measured(study):
    (study / "p2" / "observations.csv").unlink()
    result = run("fit-all", study, "--out", study.parent / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no observation, so nothing to fit: p2; leave them out" in result.stderr


BAD = {
    ("--shared", "kk"): "did you mean 'k'",
    ("--shared", "k", "--own", "k"): "shared and own",
    ("--prior", "csr"): "did you mean 'crs'",
    ("--resume",): "nothing to resume",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_options(study, words):
    result = run("fit-all", study, "--out", study.parent / "out", *words)
    assert result.exit_code == 1
    assert BAD[words] in result.stderr


def test_a_folder_without_patients(tmp_path):
    result = run("fit-all", tmp_path, "--out", tmp_path / "out")
    assert "has no patient" in result.stderr
