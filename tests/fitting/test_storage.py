"""Runs on disk: everything back as it was, nothing half-written, no other model."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from small_fits import DECAY, asked, free
from small_models import small

import crs_sim.fitting.storage
from crs_sim.errors import StorageError, UnknownNameError
from crs_sim.fitting.fitting import drop_one, fit
from crs_sim.fitting.storage import load_run, save_run
from crs_sim.store.files import results_folder

OTHER = small("decay", {"A": ("a0", "-k*A*A")}, {"k": 0.5, "a0": 10.0, "gain": 3.0})


@pytest.fixture(scope="module")
def answer():
    return fit(asked(free("a0", 8.0, 0.4), free("gain", 3.0, 0.3)), starts=2, seed=4, workers=1)


@pytest.fixture
def problem(tmp_path):
    return tmp_path / "small"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_comes_back_as_it_was(answer, problem):
    path = save_run(answer, problem, dropped=drop_one(answer, workers=1))
    assert path.parent == problem / "runs"
    run = load_run(path, DECAY)
    assert run.values == answer.values
    assert np.array_equal(run.covariance, answer.covariance)
    assert run.applied_to(DECAY).values == answer.model.values
    assert (run.problem, run.model_hash) == ("small", DECAY.hash)
    assert files(path) == ["estimates.csv", "observations.csv", "result.json", "starts.csv"]
    assert list(run.observations["id"]) == ["first", "third", "amplified"]
    assert list(run.starts["start"]) == ["0", "1", "polish"]
    estimates = run.estimates.set_index("parameter")
    assert estimates.loc["a0", "estimate"] == pytest.approx(answer.values["a0"], rel=1e-12)
    assert (estimates["delta_aic_dropped"] > -2).all()
    assert {
        "shift",
        "standard_error",
        "low",
        "high",
        "at_bound",
        "carried_by_prior",
        "unit",
        "label",
        "prior_median",
        "prior_sd",
    } <= set(estimates.columns)


def test_the_result_says_how_it_came_about(answer, problem):
    stored = load_run(save_run(answer, problem)).result
    assert stored["seed"] == 4
    assert stored["options"]["method"] == answer.options["method"]
    assert {"python", "numpy", "scipy", "lmfit", "crs_sim"} <= set(stored["versions"])
    assert [start["cost"] for start in stored["starts"]] == [
        start.cost for start in (*answer.starts, answer.polish)
    ]
    assert stored["runs"] == answer.runs
    assert stored["failed_runs"] == 0
    assert stored["fixed"]["k"] == 0.5
    assert stored["free"][0]["source"] == "a test"
    assert str(problem) not in json.dumps(stored)


def test_a_run_of_other_equations_is_refused(answer, problem):
    path = save_run(answer, problem)
    words = f"{DECAY.hash}.*{OTHER.hash}.*fit again"
    with pytest.raises(StorageError, match=words):
        load_run(path, OTHER)
    with pytest.raises(StorageError, match=words):
        load_run(path).applied_to(OTHER)


def test_other_values_of_fixed_parameters_are_named(answer, problem):
    run = load_run(save_run(answer, problem))
    assert run.changed(DECAY) == {}
    assert run.changed(DECAY.with_values(k=0.6, a0=3.0)) == {"k": (0.5, 0.6)}


def test_the_problem_stands_for_its_latest_run(answer, problem):
    save_run(answer, problem)
    last = save_run(answer, problem)
    assert len(list((problem / "runs").iterdir())) == 2
    assert load_run(problem).path == last


def test_a_shipped_run_is_found_by_name(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(crs_sim.fitting.storage, "root", lambda: tmp_path)
    path = save_run(answer, tmp_path / "fits" / "small")
    assert load_run("small").path == path
    assert load_run(f"small/{path.name}").path == path
    with pytest.raises(UnknownNameError, match=r"'smal'.*did you mean 'small'"):
        load_run("smal")


def test_figures_join_the_run_before_it_is_final(answer, problem):
    def draw(folder):
        assert (folder / "result.json").is_file()
        assert folder.name.startswith(".")
        (folder / "case.svg").write_text("<svg/>")

    assert (save_run(answer, problem, also=draw) / "case.svg").is_file()


def test_nothing_is_left_of_a_run_that_could_not_be_written(answer, problem):
    def interrupted(folder):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_run(answer, problem, also=interrupted)
    assert files(problem / "runs") == []


def test_a_folder_that_cannot_be_written_is_said(answer, tmp_path):
    (tmp_path / "small").write_text("a file is in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        save_run(answer, tmp_path / "small")


def test_what_is_no_run_is_said(answer, problem, tmp_path):
    with pytest.raises(StorageError, match=r"no run \(result.json is missing\); fit first"):
        load_run(tmp_path)
    (problem / "runs").mkdir(parents=True)
    with pytest.raises(StorageError, match="has no run yet; fit first"):
        load_run(problem)
    path = save_run(answer, problem)
    stored = json.loads((path / "result.json").read_text())
    del stored["values"]
    os.chmod(path / "result.json", 0o644)
    (path / "result.json").write_text(json.dumps(stored))
    with pytest.raises(StorageError, match="is not a complete result"):
        load_run(path)


def test_nothing_is_written_into_a_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr("crs_sim.store.files.PACKAGE", tmp_path)
    inside = tmp_path / "_shipped" / "fits" / "ruemmele2025" / "runs" / "one"
    assert results_folder(inside) == Path("fits/ruemmele2025/runs/one")
    assert results_folder(tmp_path / "p7") == tmp_path / "p7"
