"""A data set fitted: one subject as a problem of its own, several with their population."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from petab_referee import minus_two_log_likelihood

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, FileError, InputError, StorageError, UnknownNameError
from crs_sim.exchange.petab_export import export_petab
from crs_sim.fitting.datasets import subject_problem, subjects_with_observations
from crs_sim.fitting.fitting import fit as fit_problem
from crs_sim.fitting.local_optimisation import check_reachable
from crs_sim.fitting.priors import Free, load_population
from crs_sim.fitting.problem import load_problem, patient_problem
from crs_sim.fitting.storage import load_run
from crs_sim.model.model_file import load_model
from crs_sim.patients.nonmem import read_nonmem, subject_of
from crs_sim.population.population_fit import fit_all
from crs_sim.simulation.ensemble import Sampling
from crs_sim.uncertainty.predictions import predict_prior

ONE = load_model("one_compartment")
HOURS = (0.5, 1, 2, 4, 8, 12, 24.5, 25, 26, 28, 32, 36)
SD = 0.2
"""Of the readings: what the shipped prior assumes."""
HEAD = "ID,TIME,AMT,CMT,DV\n"


def level(hour: float, cl: float, v: float, ka: float) -> float:
    """100 mg into the depot at 0 h (lag 0.48 h, 80 % arrives), then 100 mg into a vein at 24 h."""
    k, after = cl / v, (hour / 24 - 0.02)
    oral = 80 * ka / (ka - k) * (math.exp(-k * after) - math.exp(-ka * after)) if after > 0 else 0
    iv = 100 * math.exp(-k * (hour / 24 - 1)) if hour >= 24 else 0
    return (oral + iv) / v


def rows(id: int, truth: dict[str, float], seed: int) -> str:
    """A synthetic subject: closed form and log-normal readings; it describes nobody."""
    rng = np.random.default_rng(seed)
    read = [f"{id},{h},.,2,{level(h, **truth) * math.exp(SD * rng.standard_normal()):.4g}"
            for h in HOURS]  # fmt: skip
    later = sum(h < 24 for h in HOURS)
    doses = f"{id},0,100,1,.", f"{id},24,100,2,."
    return "\n".join([doses[0], *read[:later], doses[1], *read[later:], ""])


TRUTHS = (
    {"cl": 50.0, "v": 40.0, "ka": 12.0},
    {"cl": 75.0, "v": 25.0, "ka": 30.0},
    {"cl": 110.0, "v": 33.0, "ka": 20.0},
)


@pytest.fixture
def study(tmp_path):
    """Three synthetic subjects, and one of whom nothing was measured."""
    path = tmp_path / "study.csv"
    text = "".join(rows(k, truth, seed=k) for k, truth in enumerate(TRUTHS, start=1))
    path.write_text(HEAD + text + "4,0,100,2,.\n")
    return path


def fit(*words: str | Path) -> Result:
    few = ("--starts", 2, "--workers", 1)
    return CliRunner().invoke(cli, ["fit", *map(str, words), *map(str, few)])


def z_scores(table: pd.DataFrame, truth: dict[str, float], error: str) -> pd.Series:
    """How many standard errors each estimate is off, on the log scale."""
    logs = np.log(table["estimate"]) - np.log(table["parameter"].map(truth))
    return logs / table[error]


# --- one subject ----------------------------------------------------------------------------------


def test_one_subject_is_fitted_like_a_patient_and_the_truth_is_found(tmp_path, study):
    study.write_text(HEAD + rows(1, TRUTHS[0], seed=1))
    result = fit("--data", study, "--model", "one_compartment", "--no-drop")
    assert result.exit_code == 0, result.stderr
    home = tmp_path / "study"  # beside the data, where no --out is given
    run = load_run(home, ONE)
    errors = dict(zip(run.values, np.sqrt(np.diag(run.covariance)), strict=True))
    for name, true in TRUTHS[0].items():
        assert abs(math.log(run.values[name] / true)) < 2 * errors[name], name
        assert errors[name] < 0.35, f"{name} is not told by these data"
    assert f"are in {run.path}" in result.output


def test_its_runs_go_on_like_those_of_any_problem(tmp_path, study):
    made = fit("--data", study, "--model", "one_compartment", "--no-drop", "--subject", 2,
               "--out", tmp_path / "two")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    again = fit(tmp_path / "two", "--no-drop")
    assert again.exit_code == 0, again.stderr
    costs = [load_run(run).result["cost"] for run in (tmp_path / "two" / "runs").iterdir()]
    assert len(costs) == 2 and costs[0] == costs[1]
    bands = CliRunner().invoke(
        cli, ["predict", str(tmp_path / "two"), "--out", str(tmp_path / "bands"), "--draws", "20",
              "--until", "3"])  # fmt: skip
    assert bands.exit_code == 0, bands.stderr


def test_a_problem_file_names_data_map_model_and_prior(tmp_path, study):
    (tmp_path / "map.toml").write_text('[columns]\nDV = "CONC"\n')
    study.write_text(study.read_text().replace("DV", "CONC"))
    found = read_nonmem(study, ONE, columns=tmp_path / "map.toml")
    asked = subject_problem(found, found.patients[2], ONE, tmp_path / "deep" / "three")
    text = (tmp_path / "deep" / "three" / "problem.toml").read_text()
    for line in ('name = "study, subject 3"', 'model = "one_compartment"', 'subject = "3"',
                 'data = "../../study.csv"', 'columns = "../../map.toml"',
                 'prior = "one_compartment"'):  # fmt: skip
        assert line in text.splitlines()
    assert asked.patient.observations == found.patients[2].observations
    assert load_problem(tmp_path / "deep" / "three") == asked


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # petab 0.8
def test_a_subject_can_be_taken_to_other_tools(tmp_path, study):
    """A dose lags, and a share of it is lost: PEtab and libRoadRunner find our number."""
    found = read_nonmem(study, ONE)
    asked = subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    made = export_petab(asked, tmp_path / "petab", values=TRUTHS[0])
    assert made.left_out == () and len(made.stated) == len(HOURS)
    total = minus_two_log_likelihood(tmp_path / "petab", TRUTHS[0])
    assert total == pytest.approx(made.deviance + made.constant, abs=1e-4)
    readme = (tmp_path / "petab" / "README.md").read_text()
    assert "## Not exported\n\n- nothing\n\n## Comparing likelihoods" in readme


def test_a_steady_state_cannot_be_taken_there(tmp_path, study):
    study.write_text("ID,TIME,AMT,CMT,DV,SS,II\n1,0,100,2,.,1,12\n1,2,.,2,2.6,.,.\n")
    found = read_nonmem(study, ONE)
    asked = subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    with pytest.raises(InputError, match=r"a steady state .* cannot be expressed in PEtab"):
        export_petab(asked, tmp_path / "petab")
    assert not (tmp_path / "petab").exists()


def test_what_a_covariate_states_is_not_fitted(tmp_path):
    path = tmp_path / "study.csv"
    path.write_text("ID,TIME,AMT,CMT,DV,ka\n1,0,100,1,.,30\n1,2,.,2,2.6,30\n")
    found = read_nonmem(path, ONE)
    asked = subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    assert asked.names == ("cl", "v")
    assert asked.patient.scenario.values == {"ka": 30}


def test_another_problem_is_not_overwritten(tmp_path, study):
    found = read_nonmem(study, ONE)
    subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    with pytest.raises(StorageError, match="already defines another problem"):
        subject_problem(found, found.patients[1], ONE, tmp_path / "one")


def test_nothing_is_written_of_what_cannot_be_fitted(tmp_path):
    path = tmp_path / "study.csv"
    path.write_text("ID,TIME,AMT,CMT,DV,DVID\n1,0,100,1,.,\n1,2,.,2,2.6,DEPOT\n")
    found = read_nonmem(path, ONE)
    with pytest.raises(InputError, match=r"add \[noise.DEPOT\] with sd and source"):
        subject_problem(found, found.patients[0], ONE, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_a_model_without_a_prior_says_how_to_write_one(tmp_path, study):
    model = tmp_path / "mine"
    model.mkdir()
    text = Path(ONE.path).read_text().replace("model one_compartment", "model mine")
    (model / "model.ant").write_text(text)
    (model / "drugs.toml").write_text(Path(ONE.path).with_name("drugs.toml").read_text())
    result = fit("--data", study, "--model", model, "--subject", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: mine/prior.toml: not found, so it is unknown which param")
    assert "[free.NAME] with sd and source" in error and "--prior" in error
    given = fit("--data", study, "--model", model, "--subject", 1, "--prior", "one_compartment",
                "--no-drop")  # fmt: skip
    assert given.exit_code == 0, given.stderr


@pytest.mark.parametrize("name", ["one_compartment", "two_compartment"])
def test_the_shipped_priors_of_the_textbook_models_say_that_they_are_assumptions(name):
    known = load_population(load_model(name))
    assert {"cl", "ka"} <= set(known.medians)
    assert all(f.source.startswith("assumption:") for f in known.free)
    assert all(s.source.startswith("assumption:") for s in known.noise.spreads.values())


def test_of_a_subject_without_observations_the_prior_predicts(study):
    (unmeasured,) = subjects_with_observations(read_nonmem(study, ONE), "4")
    bands = predict_prior(load_population(ONE), unmeasured, count=2000,
                          sampling=Sampling(days=(0.001,)), workers=1)  # fmt: skip
    # just after a bolus the level is 100 mg / v: as spread as the prior of v, then as a reading
    curve, reading = bands.curve("c_central", 0.95), bands.reading("c_central", 0.95)
    assert math.log(curve.high[0] / curve.low[0]) == pytest.approx(2 * 1.96 * 0.5, rel=0.1)
    assert math.log(reading.high[0] / reading.low[0]) == pytest.approx(
        2 * 1.96 * math.hypot(0.5, SD), rel=0.1)  # fmt: skip
    assert bands.source.endswith("without any observation of 4")


def test_the_command_that_shows_what_the_prior_predicts_is_said(study, tmp_path):
    """Of a subject of a data set as of a patient's folder: the words on the screen are run."""
    told = fit("--data", study, "--model", "one_compartment", "--subject", "4")
    assert told.exit_code == 0, told.stderr
    words = shlex.split(told.output.split("with bands: crs-sim ")[1].splitlines()[0])
    assert words[-2:] == ["--out", "bands/"]
    run = [*words[:-1], str(tmp_path / "bands"), "--until", "1", "--draws", "50"]
    shown = CliRunner().invoke(cli, run)
    assert shown.exit_code == 0, shown.stderr
    assert "without any observation of 4" in shown.output
    assert len(pd.read_csv(tmp_path / "bands" / "predictions.csv")) == 5  # every six hours
    both = CliRunner().invoke(cli, [*run, "ruemmele2025"])
    assert "takes a PATIENT, or --data" in both.stderr
    which = CliRunner().invoke(cli, [w for w in run if w not in ("--subject", "4")])
    assert "holds 4 subjects; name one" in which.stderr


# --- several --------------------------------------------------------------------------------------


def test_several_subjects_are_fitted_with_their_population(tmp_path, study):
    out = tmp_path / "out"
    result = fit("--data", study, "--model", "one_compartment", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "subject 4: no observation" in result.stderr
    assert "3 patients" in result.output
    table = pd.read_csv(out / "estimates.csv", dtype={"patient": str})
    for id, truth in zip("123", TRUTHS, strict=True):
        own = table[table["patient"] == id]
        assert len(own) == 3
        assert z_scores(own, truth, "standard_error").abs().max() < 2
    medians = pd.read_csv(out / "population.csv").set_index("parameter")
    assert 50 < medians.loc["cl", "median"] < 110
    assert " L/day | " in (out / "report.md").read_text()
    before = (out / "estimates.csv").read_bytes()
    assert "add --resume" in fit("--data", study, "--model", "one_compartment", "--out", out).stderr
    resumed = fit("--data", study, "--model", "one_compartment", "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert (out / "estimates.csv").read_bytes() == before


def test_fit_all_takes_a_data_set_and_roles(tmp_path, study):
    words = ["fit-all", "--data", study, "--model", "one_compartment", "--shared", "ka", "--starts",
             1, "--workers", 1, "--out", tmp_path / "out"]  # fmt: skip
    result = CliRunner().invoke(cli, [*map(str, words)])
    assert result.exit_code == 0, result.stderr
    roles = pd.read_csv(tmp_path / "out" / "population.csv").set_index("parameter")["role"]
    assert dict(roles) == {"cl": "tied", "v": "tied", "ka": "shared"}


# --- what is refused ------------------------------------------------------------------------------


def test_occasions_are_refused_and_named_until_they_are_ignored(tmp_path, study):
    table = pd.read_csv(study, dtype=str)
    table["OCC"] = "1"
    table.to_csv(tmp_path / "occ.csv", index=False)
    words = ["fit-all", "--data", tmp_path / "occ.csv", "--model", "one_compartment", "--starts", 1,
             "--draws", 0, "--workers", 1]  # fmt: skip
    refused = CliRunner().invoke(cli, [*map(str, words), "--out", str(tmp_path / "out")])
    assert refused.exit_code == 1 and not (tmp_path / "out").exists()
    assert "column OCC: inter-occasion variability is not estimated" in refused.stderr
    (tmp_path / "map.toml").write_text('ignore = ["OCC"]\n')
    fitted = CliRunner().invoke(
        cli, [*map(str, words), "--columns", str(tmp_path / "map.toml"), "--out",
              str(tmp_path / "out")]
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.stderr
    simulated = CliRunner().invoke(cli, ["simulate", *map(str, words[1:5])])
    assert simulated.exit_code == 0 and "column OCC is not used" in simulated.stderr


BAD = {
    (): "fit  takes a PATIENT, or --data STUDY.csv with --model MODEL",
    ("--data", "study.csv"): "fit  takes a PATIENT, or --data",
    ("ruemmele2025", "--data", "study.csv", "--model", "one_compartment"): "fit  takes a PATIENT",
    ("ruemmele2025", "--subject", "1"): "--subject  requires a data set",
    ("ruemmele2025", "--resume"): "applies to a fit of several subjects",
    ("--data", "study.csv", "--model", "one_compartmnt"): "did you mean 'one_compartment'?",
    ("--data", "stud.csv", "--model", "one_compartment"): "stud.csv: cannot be read",
    ("--data", "study.csv", "--model", "one_compartment", "--subject", "9"): "unknown subject '9'",
    ("--data", "study.csv", "--model", "one_compartment", "--profiles"): "add --subject ID",
    ("--data", "study.csv", "--model", "one_compartment", "--prior", "csr"): "did you mean 'crs'",
    ("--data", "study.csv", "--model", "one_compartment", "--prior", "crs"): "unknown parameter",
    ("--data", "study.csv", "--model", "one_compartment", "--subject", "1", "--resume"):
        "applies to a fit of several subjects",
}  # fmt: skip


@pytest.mark.parametrize("words", BAD)
def test_what_fit_refuses_is_one_line(study, monkeypatch, words):
    monkeypatch.chdir(study.parent)
    result = fit(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    *notes, error = result.stderr.splitlines()
    assert BAD[words] in error
    assert all(note.startswith("Note: ") for note in notes)
    assert sorted(p.name for p in study.parent.iterdir()) == ["study.csv"]


def test_a_bad_cell_is_named(study):
    study.write_text(study.read_text().replace("4,0,100,2,.", "4,0,100,7,."))
    result = fit("--data", study, "--model", "one_compartment")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"Error: .*study.csv, row 44, column CMT: 7, but .* 2 compartments\n",
                        result.stderr)  # fmt: skip


PROBLEM = 'name = "x"\nmodel = "one_compartment"\nprior = "one_compartment"\n'
REFUSED = {
    'data = "study.csv"\n': (InputError, r"holds 4 subjects; name one: subject = \"1\""),
    'data = "study.csv"\nsubject = "7"\n': (UnknownNameError, "unknown subject '7'"),
    'data = "study"\nsubject = "1"\n': (FileError, "belongs to a data set, but data = 'study'"),
    'data = "none.csv"\n': (CrsSimError, "none.csv: cannot be read"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_problem_file_is_refused(study, words):
    home = study.parent
    (home / "problem.toml").write_text(PROBLEM + words)
    kind, said = REFUSED[words]
    with pytest.raises(kind, match=said):
        load_problem(home)


def test_subjects_by_id(study):
    assert subject_of(study, ONE, "3").id == "3"
    found = read_nonmem(study, ONE)
    assert [p.id for p in subjects_with_observations(found)] == ["1", "2", "3"]
    assert [p.id for p in subjects_with_observations(found, "4")] == ["4"]


# --- readings where the model has nothing ---------------------------------------------------------

ORAL = "ID,TIME,EVID,AMT,CMT,f_oral,DV\n"
LATER = "{0},1,0,.,2,1,7\n{0},4,0,.,2,1,6\n{0},12,0,.,2,1,3\n"


def subject_rows(id, first):
    return f"{id},0,1,320,1,1,.\n{first}" + LATER.format(id)


@pytest.mark.parametrize(
    "first",
    ["1,0,0,.,2,1,0.74\n", "1,0,0,.,2,0.9,0.74\n", "1,0,0,.,2,1,0.001\n"],
    ids=["at the dose", "with another covariate", "tiny"],
)
def test_a_reading_at_the_moment_of_an_oral_dose_is_refused(tmp_path, first):
    """Nothing has been absorbed; absorption would become instantaneous for it."""
    path = tmp_path / "study.csv"
    path.write_text(ORAL + subject_rows(1, first) + subject_rows(2, first.replace("1,", "2,", 1))
                    + subject_rows(3, ""))  # fmt: skip
    model = load_model("one_compartment").with_values(lag_oral=0.0)
    people = subjects_with_observations(read_nonmem(path, model))
    problems = [patient_problem(one, model=model) for one in people]
    with pytest.raises(InputError, match=r"c_central_3 \(day 0\): 0.*MDV = 1"):
        fit_problem(problems[0], starts=1, workers=1)
    with pytest.raises(InputError) as raised:
        fit_all(problems, load_population(model, None), workers=1)
    said = str(raised.value)
    assert "c_central_3 (day 0)" in said and "c_central_8 (day 0)" in said and "_13" not in said
    check_reachable(problems[2])


def test_readings_that_some_values_of_the_prior_reach_are_fitted(tmp_path):
    """Before the lag of the prior's centre, just after a bolus, and far below the centre."""
    path = tmp_path / "study.csv"
    model = load_model("one_compartment")
    lagged = Free("lag_oral", 0.001, 1.0, 0.05, 0.1, "a test")
    path.write_text(ORAL + "1,0,1,320,1,1,.\n1,0.5,0,.,2,1,0.74\n" + LATER.format(1))
    (patient,) = read_nonmem(path, model)
    problem = patient_problem(patient, model=model)
    check_reachable(replace(problem, free=(*problem.free, lagged)))
    with pytest.raises(InputError, match="c_central_3"):
        check_reachable(replace(problem, model=model.with_values(lag_oral=0.05)))
    path.write_text(ORAL + "1,0,1,320,2,1,.\n1,0,0,.,2,1,9\n" + LATER.format(1))
    (patient,) = read_nonmem(path, model)
    check_reachable(patient_problem(patient, model=model))
