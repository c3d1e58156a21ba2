"""Every command that a message, a report or a document prints is one that can be typed."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from paths import ROOT
from tiny_case import write_case

import crs_sim
from crs_sim.cli.command_line import cli
from crs_sim.errors import StorageError, command
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import load_run, restore_fit

PACKAGE = Path(crs_sim.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = "|".join(cli.commands)
ONLY_NAMED = ("crs-sim show lists", "by crs-sim fit-all, with", "as crs-sim fit --data asked",
              "written by crs-sim sample", "(crs-sim sample): the file")  # fmt: skip
"""Texts that say which command wrote something, and not what to type."""


def parsed(text: str) -> click.Context:
    """The command of a text, parsed by the command line's own parser."""
    program, name, *words = shlex.split(text)
    assert program == "crs-sim"
    return cli.commands[name].make_context(name, words)


def calls() -> list[tuple[str, ast.Call]]:
    return [(f"{path.relative_to(PACKAGE)}:{node.lineno}", node) for path in SOURCES
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command"
            and node.args]  # fmt: skip


def strings(tree: ast.AST) -> list[str]:
    """The texts of a file, but for docstrings."""
    documented = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
                  and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
            and isinstance(node.value, str) and id(node) not in documented | bare]  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_text_spells_a_command_by_itself(path):
    for text in strings(ast.parse(path.read_text(encoding="utf-8"))):
        if re.search(rf"crs-sim ({NAMES})\b", text) or text.endswith("(crs-sim "):
            assert any(words in text for words in ONLY_NAMED), text


@pytest.mark.parametrize(("place", "call"), calls(), ids=[place for place, _ in calls()])
def test_every_command_of_a_message_is_taken_by_the_parser(place, call):
    name, *given = call.args
    assert isinstance(name, ast.Constant) and name.value in cli.commands, place
    words = [w.value if isinstance(w, ast.Constant) else "a b, c" for w in given
             if not isinstance(w, ast.Starred)]  # fmt: skip
    if not (name.value == "predict" and len(words) == 2):
        parsed(command(name.value, *words))


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "fits/ruemmele2025/README.md"])
def test_every_command_of_a_document_is_taken_by_the_parser(file):
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^    (crs-sim [^#\n]+)|`(crs-sim [^`]+ [^`]+)`", text, re.MULTILINE)
    for line in (first or second for first, second in found):
        if "..." not in line:
            parsed(line.strip())


def test_words_are_quoted_where_they_must_be():
    line = command("fit", "study one/it's", "--subject", "7; rm", "--data", "$HOME/x.csv")
    assert shlex.split(line)[2:] == [
        "study one/it's",
        "--subject",
        "7; rm",
        "--data",
        "$HOME/x.csv",
    ]


def commands_in(text: str) -> list[str]:
    """What a message tells to type: to the bracket or the end of the line that is not quoted."""
    found = []
    for start in (match.start() for match in re.finditer(rf"crs-sim ({NAMES})\b", text)):
        end = start
        while end < len(text) and text[end] not in ")\n":
            end = text.index("'", end + 1) + 1 if text[end] == "'" else end + 1
        found.append(text[start:end].removesuffix(" first"))
    return found


@pytest.fixture
def spaced(tmp_path: Path) -> Path:
    return write_case(tmp_path / "my study")


def output(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.stdout + result.stderr


def test_new_prints_commands_that_run_as_they_are(tmp_path):
    text = output("new", tmp_path / "patient seven")
    found = commands_in(text)
    assert len(found) == 2
    for line in found:
        assert parsed(line)
    assert "worst CRS grade" in output(*shlex.split(found[0])[1:], "--until", "1")


def test_a_fit_that_no_longer_holds_names_the_folder_to_fit_again(spaced):
    output("fit", spaced / "fit", "--workers", 1, "--no-drop")
    run = load_run(spaced / "fit")
    problem = load_problem(spaced / "fit")
    (spaced / "data" / "doses.csv").write_text("day,drug,amount,unit\n0,pill,20,mg\n")
    with pytest.raises(StorageError) as caught:
        restore_fit(run, load_problem(spaced / "fit"))
    (line,) = commands_in(str(caught.value))
    assert shlex.split(line) == ["crs-sim", "fit", str(spaced / "fit")]
    from dataclasses import replace

    with pytest.raises(StorageError) as caught:
        run.refuse_other(replace(problem.model, states=problem.model.states * 2))
    assert shlex.split(commands_in(str(caught.value))[0])[2] == str((spaced / "fit").resolve())
    runs = spaced / "fit" / "runs"
    runs.rename(spaced / "elsewhere")
    (spaced / "fit" / "runs").mkdir()
    assert f"fit first ({command('fit', spaced / 'fit')})" in output("profile", spaced / "fit")


def test_a_subject_of_a_data_set_is_fitted_again_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.csv").write_text("ID,TIME,AMT,CMT,DV\n1,0,100,2,.\n1,2,.,2,2.6\n1,9,.,2,1.6\n")
    words = "--model one_compartment --out fit --workers 1 --no-drop --starts 1"
    assert "report.md" in output("fit", "--data", "study.csv", *words.split())
    Path("study.csv").write_text("ID,TIME,AMT,CMT,DV\n1,0,100,2,.\n1,2,.,2,8.6\n1,9,.,2,1.6\n")
    text = output("replay", "fit")
    assert commands_in(text), text
    (line,) = commands_in(text)
    assert shlex.split(line) == ["crs-sim", "fit", str(tmp_path / "fit")] and parsed(line)
    assert "report.md" in output(*shlex.split(line)[1:], "--workers", 1, "--no-drop")


def test_a_patient_or_subject_without_observations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output("new", "no one")
    (tmp_path / "no one" / "observations.csv").unlink()
    for words in (["fit", "no one"], ["fit", "no one", "--prior", "crs"]):
        (line,) = commands_in(output(*words))
        assert parsed(line)
    Path("my study.csv").write_text("ID,TIME,AMT,CMT,DV\na b,0,100,2,.\n")
    text = output("fit", "--data", "my study.csv", "--model", "one_compartment")
    (line,) = commands_in(text)
    assert parsed(line).params["subject"] == "a b"
