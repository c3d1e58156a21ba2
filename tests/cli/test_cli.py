"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from paths import child_environment
from tiny_case import write_case
from waiting import PATIENCE

from crs_sim.cli.command_line import cli
from crs_sim.fitting.storage import load_run
from crs_sim.model.model_file import load_model

HEAVY = ("numpy", "pandas", "sympy", "antimony", "libsbml", "lmfit", "matplotlib", "numba", "pint",
         "scipy", "pydantic", "rich")  # fmt: skip


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def fitted(tiny: Path) -> tuple[Result, Path]:
    result = run("fit", tiny / "fit", "--workers", 1, "--drop-one")
    return result, next((tiny / "fit" / "runs").iterdir())


# --- help -----------------------------------------------------------------------------------------


def test_help_names_the_commands_and_imports_nothing_heavy():
    code = ("import sys\nfrom crs_sim.cli.command_line import cli\n"
            "cli(['--help'], standalone_mode=False)\n"
            f"print([m for m in {HEAVY} if m in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=child_environment(), check=True)  # fmt: skip
    *_, imported = done.stdout.splitlines()
    assert imported == "[]"
    for word in ("check", "fit", "new", "show", "simulate", "Research use only"):
        assert word in done.stdout


@pytest.mark.parametrize("command", ["check", "show", "new", "simulate", "fit"])
def test_every_command_has_help(command):
    assert run(command, "--help").output.startswith("Usage")


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "crs_sim", "simulate", "nobody"], text=True,
                          capture_output=True, env=child_environment())  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


# --- models ---------------------------------------------------------------------------------------


def test_check_says_that_a_model_is_clean(tiny):
    result = run("check", tiny / "model")
    assert result.exit_code == 0
    assert "no issues" in result.output


def test_check_names_file_and_line(tiny, tmp_path):
    text = (tiny / "model" / "model.ant").read_text().replace("A' = -k*A", "A' = -k*A*1 - k")
    (tmp_path / "model.ant").write_text(text)
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert "model.ant:" in result.output
    assert "issues found: 1" in result.stderr


def test_show_lists_and_exports(tiny):
    assert "d A/dt = -k" in run("show", tiny / "model").output
    assert run("show", tiny / "model", "--sbml").output.startswith("<?xml")


def test_new_makes_a_patient_that_can_be_simulated(tmp_path):
    made = run("new", tmp_path / "p1")
    assert made.exit_code == 0
    for name in ("patient.toml", "doses.csv", "observations.csv"):
        assert name in made.output
    assert run("simulate", tmp_path / "p1", "--until", 3).exit_code == 0
    again = run("new", tmp_path / "p1")
    assert again.exit_code == 1
    assert "already" in again.stderr


# --- simulate -------------------------------------------------------------------------------------


def test_simulate_prints_a_row_a_day(tiny):
    result = run("simulate", tiny / "data", "--until", 4, "--every", "2h")
    assert result.exit_code == 0
    days = [line.split()[0] for line in result.output.splitlines() if line.strip()[:1].isdigit()]
    assert days == ["0", "1", "2", "3", "4"]
    assert "worst CRS grade 4" in result.output
    assert "Research use only" in result.output


def test_out_is_a_plain_table_with_units_beside_it(tiny, tmp_path):
    out = tmp_path / "deep" / "table.csv"
    result = run("simulate", tiny / "data", "--until", 2, "--every", "0.25d", "--set", "k=0",
                 "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    with out.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["day", "A", "amount", "shock", "crs_grade"]
    assert [float(row[0]) for row in rows[1:]] == [0.25 * k for k in range(9)]
    assert float(rows[-1][1]) == 10
    meta = json.loads(out.with_name("table.csv.meta.json").read_text())
    assert list(meta["units"]) == rows[0]
    assert meta["units"]["A"] == "mg"
    assert meta["model"]["hash"] == load_model(tiny / "model").hash
    assert meta["parameters"]["k"] == 0
    assert meta["options"]["changes"] == ["k=0"]
    assert meta["options"]["until"] == 2
    assert "numpy" in meta["versions"]
    assert sorted(p.name for p in out.parent.iterdir()) == ["table.csv", "table.csv.meta.json"]


@pytest.mark.parametrize("name", ["figure.png", "figure.svg", "figure.pdf"])
def test_plot(tiny, tmp_path, name):
    result = run("simulate", tiny / "data", "--plot", tmp_path / name)
    assert result.exit_code == 0
    assert (tmp_path / name).stat().st_size > 1000


BAD = {
    "--set weight": "has no value",
    "--set wieght=60": "did you mean 'weight'",
    "--set k=fast": "'fast' is no number",
    "--set k=0,5": "'0,5' is no number",
    "--set k=1_000": "'1_000' is no number",
    "--set k=1 --set k=2": "second time",
    "--set k=nan": "not finite",
    "--every 6x": "write 6h, 30min or 0.25d",
    "--every 0h": "positive number of hours",
    "--until -1": "0 or later",
    "--method Euler": "Euler",
    "--from nowhere": "nowhere",
    "--plot figure.bmp": "name it figure.png",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_options_are_one_message(tiny, tmp_path, words):
    result = run("simulate", tiny / "data", "--out", tmp_path / "x.csv", *words.split())
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert BAD[words] in result.stderr
    assert not list(tmp_path.iterdir())


def test_every_is_hours_minutes_or_days(tiny):
    tables = [run("simulate", tiny / "data", "--until", 1, "--every", e).output
              for e in ("6", "6h", "360min", "0.25d", "0.25 days")]  # fmt: skip
    assert len(set(tables)) == 1


def test_unknown_patient_names_the_shipped_one():
    result = run("simulate", "ruemmel2025")
    assert result.exit_code == 1
    assert "did you mean 'ruemmele2025'" in result.stderr


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_unwritable_place_leaves_nothing(tiny, tmp_path, option):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    bad = tmp_path / ("file/x.csv" if option == "--out" else "folder.png")
    other = ("--plot", tmp_path / "f.svg") if option == "--out" else ("--out", tmp_path / "x.csv")
    result = run("simulate", tiny / "data", option, bad, *other)
    assert result.exit_code == 1
    assert f"{bad}  cannot be written" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]
    assert (tmp_path / "file").read_text() == "mine"


# --- fit ------------------------------------------------------------------------------------------


def test_fit_prints_one_screen(fitted):
    result, folder = fitted
    assert result.exit_code == 0, result.stderr
    for words in ("a1", "5.5 mg", "< 0.9 mg", "× 0.6", "CRS grade by day", "one_mg", "criteria met",
                  str(folder), "Research use only"):  # fmt: skip
        assert words in result.output
    assert len(result.output.splitlines()) < 40
    assert "starts: 2 of 2" in result.stderr and "with one parameter fixed: 2 of 2" in result.stderr
    assert "the fit misses" in result.stdout.splitlines()[0]


def test_fit_writes_tables_figures_and_report(fitted):
    _, folder = fitted
    names = {path.name for path in folder.iterdir()}
    figures = {f"{n}.{s}" for n in ("case", "estimates", "starts", "residuals")
               for s in ("png", "svg")}  # fmt: skip
    assert names == figures | {"result.json", "estimates.csv", "observations.csv", "starts.csv",
                               "report.md"}  # fmt: skip
    report = (folder / "report.md").read_text()
    for words in ("## Reported and fitted", "## CRS grade by day", "## Estimates", "AIC",
                  "Dominated by their prior", "runs of the fit failed", "free.k",
                  "Research use only"):  # fmt: skip
        assert words in report


def test_simulate_from_a_run_uses_its_values(fitted, tiny, tmp_path):
    _, folder = fitted
    for k, name in enumerate((folder, tiny / "fit")):
        out = tmp_path / f"{k}.csv"
        assert run("simulate", tiny / "data", "--from", name, "--out", out).exit_code == 0
        meta = json.loads(out.with_name(f"{k}.csv.meta.json").read_text())
        assert meta["parameters"]["k"] == load_run(folder).values["k"]
        assert meta["options"]["run"] == str(folder)
        assert meta["options"]["values"] == f"fit of tiny ({folder.name})"


def test_simulate_says_whose_values_it_uses(fitted, tiny, tmp_path):
    _, folder = fitted
    (tmp_path / "other").mkdir()
    for name in ("doses.csv", "observations.csv"):
        (tmp_path / "other" / name).write_text((tiny / "data" / name).read_text())
    text = (tiny / "data" / "patient.toml").read_text()
    text = text.replace('id = "tiny"', 'id = "next"').replace("../model", str(tiny / "model"))
    (tmp_path / "other" / "patient.toml").write_text(text)
    for who, words, said in (
        (tiny / "data", (), "the model's own, not fitted"),
        (tiny / "data", ("--set", "k=0.4"), "the model's own, not fitted, but k = 0.4"),
        (tiny / "data", ("--from", folder), f"fit of tiny ({folder.name})"),
        (tmp_path / "other", ("--from", folder), f"fit of another patient, tiny ({folder.name})"),
    ):
        figure = tmp_path / "x.svg"
        result = run("simulate", who, "--until", 2, "--plot", figure, *words)
        assert result.exit_code == 0, result.output
        assert f"values: {said}\n" in result.stdout
        assert f"values: {said}" in figure.read_text().replace("&apos;", "'")
        told = "Warning: the fit says: the fit misses 0 of 8 readings" in result.stderr
        assert told == ("--from" in words)  # its grades are missed


def test_fit_refits_without_each_parameter_only_when_asked(tiny, tmp_path):
    for k, words in enumerate(((), ("--no-drop",))):
        out = tmp_path / str(k)
        result = run("fit", tiny / "fit", "--starts", 1, "--workers", 1, "--out", out, *words)
        assert result.exit_code == 0
        assert "one parameter fixed" not in result.stderr
        (report,) = out.glob("runs/*/report.md")
        assert "AIC without it" not in report.read_text()
    assert "no-drop" not in run("fit", "--help").output


def test_fit_refuses_an_unwritable_folder_before_it_runs(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("fit", tiny / "fit", "--out", tmp_path / "file" / "x")
    assert result.exit_code == 1
    assert "is a file" in result.stderr
    assert "starts" not in result.stderr


@pytest.mark.parametrize("given", ["there", "there/runs"])
def test_out_of_a_fit_is_the_folder_that_gets_runs(tiny, tmp_path, given):
    result = run("fit", tiny / "fit", "--starts", 1, "--no-drop", "--workers", 1,
                 "--out", tmp_path / given)  # fmt: skip
    assert result.exit_code == 0
    (made,) = (tmp_path / "there" / "runs").iterdir()
    assert (made / "result.json").is_file()


def test_interrupt_is_short_and_leaves_nothing(tiny, tmp_path):
    words = ["fit", tiny / "fit", "--starts", "5000", "--workers", "1", "--out", tmp_path / "f"]
    with subprocess.Popen([sys.executable, "-m", "crs_sim", *map(str, words)], text=True,
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=child_environment()) as process:  # fmt: skip
        assert process.stderr is not None
        assert "starts: 1 of 5000" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert (out, err.splitlines()[-1]) == ("", "Stopped; no file is incomplete.")
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_version():
    assert run("--version").output.startswith("crs-sim ")
