"""Shipped names are found whatever has the same name in the current directory."""

from __future__ import annotations

import shutil
import warnings

import pytest
from click.testing import CliRunner
from paths import ROOT
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, Notice, UnknownNameError
from crs_sim.fitting.problem import load_problem
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient, model_for_patient
from crs_sim.patients.patient_checks import patient_at
from crs_sim.store.files import locate


@pytest.fixture(params=["file", "folder"])
def hidden(request, tmp_path, monkeypatch):
    """A file or a folder named crs in the current directory, without a model."""
    monkeypatch.chdir(tmp_path)
    if request.param == "file":
        (tmp_path / "crs").write_text("my notes")
    else:
        (tmp_path / "crs").mkdir()
    return request.param


def test_the_shipped_name_wins_and_one_note_says_so(hidden):
    said = f"crs is the shipped model of that name, not the {hidden} crs here, which would be ./crs"
    with pytest.warns(Notice, match=said):
        assert load_model("crs").path.endswith("models/crs/model.ant")


def test_with_a_separator_it_is_the_path(hidden):
    with pytest.raises(CrsSimError) as raised:
        load_model("./crs")
    assert "crs" in str(raised.value) and not isinstance(raised.value, UnknownNameError)


def test_a_folder_that_holds_a_model_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "models" / "one_compartment", tmp_path / "crs")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert load_model("crs").name == "one_compartment"
        assert load_model("./crs").name == "one_compartment"


def test_a_command_says_it_once(hidden):
    done = CliRunner().invoke(cli, ["list", "drugs"])
    assert done.exit_code == 0, done.output
    assert "tocilizumab" in done.output and done.output.count("would be ./crs") <= 1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_beside_a_patient_or_a_problem_hides_nothing_either(tmp_path, kind):
    home = write_case(tmp_path)
    about = home / "data" / "patient.toml"
    about.write_text(about.read_text().replace("../model", "crs"))
    for folder in (home / "data", home / "fit"):
        (folder / "crs").write_text("notes") if kind == "file" else (folder / "crs").mkdir()
    assert model_for_patient(load_patient(home / "data")).name == "crs"
    problem = home / "fit" / "problem.toml"
    assert load_problem(home / "fit").model.name == "tiny"
    problem.write_text(problem.read_text().replace("../model", "crs"))
    with pytest.raises(CrsSimError, match="pill"):  # a drug that the shipped model has not
        load_problem(home / "fit")


def test_a_folder_named_like_a_shipped_problem_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ruemmele2025").mkdir()
    assert patient_at("ruemmele2025") is None
    with pytest.warns(Notice, match="shipped problem of that name"):
        assert locate("ruemmele2025", "fits", "problem.toml") == ROOT / "fits" / "ruemmele2025"
    with pytest.raises(CrsSimError, match=r"has neither problem\.toml"):
        patient_at("./ruemmele2025/")
