"""A virtual population on disk: right, the same however it came about, and never half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from paths import child_environment
from tiny_population import POPULATION, write_population_case
from waiting import wait_until

from crs_sim.cli.command_line import cli
from crs_sim.errors import StorageError
from crs_sim.figures.prediction_plots import plot_population_bands, plot_population_grades
from crs_sim.population.results import Summary, load_results
from crs_sim.population.study_file import load_study, with_number
from crs_sim.population.virtual_run import run_population
from crs_sim.reports.summaries import write_population
from crs_sim.simulation.endpoints import peak, worst_grade
from crs_sim.simulation.simulation import simulate
from crs_sim.store.records import read_metadata, read_parquet


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_population_case(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def study(home):
    return load_study(home)


@pytest.fixture(scope="module")
def found(study, tmp_path_factory):
    return run_population(study, tmp_path_factory.mktemp("found") / "out", workers=1)


@pytest.fixture(scope="module")
def summary(found):
    return Summary(found)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def run(*words: object):
    return CliRunner().invoke(cli, ["population", *map(str, words)])


# --- right ----------------------------------------------------------------------------------------


def test_each_patient_is_the_model_run_with_what_was_drawn(study, found, summary):
    kept = summary.kept
    for member in (kept.index[0], kept.index[77]):
        drawn = {name: kept.loc[[member], name].to_numpy() for name in study.virtual.names}
        values = {k: float(v[0]) for k, v in study.virtual.parameters(drawn).items()}
        alone = simulate(study.model, study.scenarios[1].with_values(**values), until=12,
                         every_hours=6)  # fmt: skip
        told = summary.by_scenario["half"].loc[member]
        assert told["peak_amount"] == pytest.approx(peak(alone, "amount"), rel=1e-3)
        assert told["worst_grade"] == worst_grade(alone)
        days = found.courses("half")
        course = days[days["member"] == member]
        assert course["day"].tolist() == list(range(13))
        expected = pytest.approx(alone["amount"][::4], rel=2e-3, abs=1e-4)
        assert course["amount"].to_numpy() == expected


def test_a_scenario_of_factor_one_is_no_change_at_all(summary):
    table = summary.differences().set_index(["scenario", "endpoint"])
    assert (table.loc["times one", ["p05", "median", "p95", "mean"]] == 0).all(axis=None)
    assert table.loc[("half", "peak_amount"), "share_lower"] == 1.0


def test_filters_say_how_many_they_reject(study, summary):
    members, table = summary.members, summary.rejected().set_index("filter")
    assert len(members) == 300
    too_high = table.loc["peak_amount <= 10"]
    assert too_high["rejected"] == (members["pill"] > 10).sum() > 10  # just after the dose
    too_low = table.loc["worst_grade >= 3"]
    assert 0 < too_low["rejected"] < 100
    fails = ~members[["passes peak_amount <= 10", "passes worst_grade >= 3"]].to_numpy()
    assert members["kept"].tolist() == (~fails.any(axis=1)).tolist()
    assert too_low["rejected_by_it_alone"] == (fails[:, 1] & ~fails[:, 0]).sum()
    assert (summary.by_scenario["as given"]["peak_amount"] <= 10).all()
    assert (summary.by_scenario["as given"]["worst_grade"] >= 3).all()
    assert (summary.by_scenario["half"]["worst_grade"] < 3).any()  # of what is given alone


def test_tables_add_up(summary):
    grades = summary.grades().set_index("scenario")
    assert grades.filter(regex=r"grade_\d$").sum(axis=1).to_numpy() == pytest.approx(1.0)
    worst = summary.by_scenario["half"]["worst_grade"]
    assert grades.loc["half", "grade_3_or_more"] == np.mean(worst >= 3)
    ends = summary.endpoints().set_index(["scenario", "endpoint"])
    assert ends.loc[("half", "peak_amount"), "p95"] == pytest.approx(
        summary.by_scenario["half"]["peak_amount"].quantile(0.95)
    )
    assert ends.loc[("half", "peak_amount"), "unit"] == "mg"
    thirds = summary.subgroups()
    mine = thirds[(thirds["covariate"] == "pill") & (thirds["scenario"] == "as given")
                  & (thirds["endpoint"] == "peak_amount")]  # fmt: skip
    assert mine["patients"].sum() == len(summary.kept)
    assert mine["median"].is_monotonic_increasing and mine["to"].iloc[0] == mine["from"].iloc[1]
    band = summary.bands().set_index(["scenario", "course", "day"])
    amounts = summary.results.courses("half")
    day = amounts[amounts["day"] == 2]["amount"]
    assert band.loc[("half", "amount", 2.0), "p95"] == pytest.approx(day.quantile(0.95))


def test_a_failed_run_is_told_and_left_out(tmp_path):
    home = write_population_case(tmp_path)
    model = tmp_path / "model" / "model.ant"
    text = model.read_text().replace("A' = -k*A;", "A' = -k*A + explode*A*A*A;")
    line = ('  unit odd = 1 / (86400e-6 second * gram^2); explode = 1e-12 odd; explode is "Breaks '
            'it"; explode description "assumption: made up";\n')  # fmt: skip
    model.write_text(text.replace("  k = 0.5", f"{line}  k = 0.5"))
    prior = tmp_path / "model" / "prior.toml"
    prior.write_text(
        prior.read_text() + "[free.explode]\nsd = 16\nlower = 1e-30\nupper = 1e3\n"
        'source = "assumption: made up"\n'
    )
    out = run(home, "--out", tmp_path / "out", "--number", 40, "--workers", 1)
    assert out.exit_code == 0, out.output
    members = load_results(tmp_path / "out").members()
    failed = members[members["failed"] != ""]
    assert 0 < len(failed) < 40 and not failed["kept"].any()
    assert f"{len(failed)} failed" in out.output
    assert "Failed: member" in (tmp_path / "out" / "population.md").read_text()


# --- the same however it came about ---------------------------------------------------------------


def test_the_same_bytes_on_any_number_of_workers(study, found, tmp_path):
    run_population(study, tmp_path / "out", workers=3)
    assert files(tmp_path / "out") == files(found.folder)


def test_a_patient_comes_out_the_same_whatever_the_number(study, found, tmp_path):
    few = run_population(with_number(study, 131, None), tmp_path / "out")
    table, more = (r.endpoints().set_index(["scenario", "member"]).sort_index()
                   for r in (few, found))  # fmt: skip
    assert table.equals(more[more.index.get_level_values("member") < 131])


def test_a_larger_number_goes_on_from_a_smaller(study, found, tmp_path):
    out = tmp_path / "out"
    run_population(with_number(study, 200, None), out)
    run_population(study, out, resume=True)
    assert files(out) == files(found.folder)
    with pytest.raises(StorageError, match="holds 300 patients, more than 5; request as many"):
        run_population(with_number(study, 5, None), out, resume=True)


RULE = """
[[scenario]]
name = "by rule"
hold = [{ drug = "pill", when = "amount > 6" }]
[[scenario.trigger]]
name = "low"
when = "amount <= 2"
give = { drug = "pill", amount = 4, unit = "mg" }
at_most = 2
hours_apart = 48
every_hours = 12
"""


def test_doses_by_rule_are_kept_and_the_same_after_a_stop(tmp_path):
    home = write_population_case(tmp_path)
    with (home / "scenarios.toml").open("a") as file:
        file.write(RULE)
    study = load_study(home)
    whole = run_population(study, tmp_path / "whole", workers=2)
    run_population(with_number(study, 128, None), tmp_path / "parts")
    assert files(run_population(study, tmp_path / "parts", resume=True).folder) == files(
        whole.folder)  # fmt: skip
    doses = whole.doses()
    assert set(doses["why"]) == {"trigger low"} and doses["given"].all()
    assert (2 * doses["day"] % 1 == 0).all()
    kept = whole.members().query("kept")["member"]
    given = doses.groupby("member").size()
    assert set(given.index) == set(kept) and given.max() == 2
    apart = doses.groupby("member")["day"].diff().dropna()
    assert (apart >= 2).all()


def test_a_killed_run_goes_on(study, found, home, tmp_path):
    out = tmp_path / "out"
    script = (
        "import time\nfrom crs_sim.population import virtual_run as p\n"
        "from crs_sim.population.study_file import load_study\n"
        f"p.run_population(load_study({str(home)!r}), {str(out)!r}, workers=1,\n"
        "    progress=lambda done, total: time.sleep(60))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], env=child_environment())
    first = out / "parts" / "endpoints-000000.parquet"
    wait_until(first.is_file, alive=lambda: child.poll() is None)
    child.send_signal(signal.SIGKILL)
    child.wait()
    was = first.stat().st_mtime_ns
    with pytest.raises(StorageError, match="is not finished: patients 128 to 255 are missing"):
        load_results(out)
    done = run(home, "--out", out, "--resume")
    assert done.exit_code == 0, done.output
    assert first.stat().st_mtime_ns == was
    parts = files(found.folder)
    assert {name: files(out)[name] for name in parts} == parts


# --- nothing half-written, nothing mixed up -------------------------------------------------------


def test_a_full_disk_is_one_message(study, found, tmp_path, monkeypatch):
    out, plain = tmp_path / "out", Path.write_bytes
    written = []

    def full(self, data):
        if "courses" in self.name and written:
            plain(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.extend([self] * ("courses" in self.name))
        return plain(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError) as refused:
        run_population(study, out, workers=1)
    assert "No space left on device" in str(refused.value)
    assert f"128 of 300 patients are stored in {out}: free some space, then resume" in str(
        refused.value
    )
    left = files(out)
    assert [n for n in left if "000001" in n or ".part" in n] == []
    monkeypatch.undo()
    run_population(study, out, resume=True)
    assert files(out) == files(found.folder)


def test_a_folder_of_something_else_is_refused(study, found, home, tmp_path):
    assert "already holds a population; add --resume" in run(home, "--out", found.folder).output
    assert "holds nothing to resume" in run(home, "--out", tmp_path / "x", "--resume").output
    with pytest.raises(StorageError, match=r"holds another population: seed differ; give a new"):
        run_population(with_number(study, None, 9), found.folder, resume=True)
    other = write_population_case(tmp_path)
    model = tmp_path / "model" / "model.ant"
    model.write_text(model.read_text().replace("A' = -k*A;", "A' = -2*k*A;"))
    refused = run(other, "--out", found.folder, "--resume")
    assert refused.exit_code == 1
    assert "holds a population of another model: tiny " in refused.output
    assert "give a new folder" in refused.output


def test_parts_of_another_run_are_refused(study, found, tmp_path):
    out = tmp_path / "out"
    run_population(with_number(study, None, 9), out)
    part = out / "parts" / "members-000001.parquet"
    part.write_bytes((found.folder / "parts" / part.name).read_bytes())
    with pytest.raises(StorageError, match=r"members-000001.parquet  belongs to another pop"):
        load_results(out)
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(StorageError, match=r"members-000001.parquet  is not a complete part"):
        load_results(out)
    (out / "run.json").write_text("{")
    with pytest.raises(StorageError, match=r"run\.json  cannot be read"):
        load_results(out)
    with pytest.raises(StorageError, match="holds no population"):
        load_results(tmp_path)


def test_headers_say_what_a_part_belongs_to(study, found):
    parts = sorted((found.folder / "parts").glob("endpoints-*"))
    assert [read_metadata(p)["members"] for p in parts] == [128, 128, 44]
    assert {read_metadata(p)["model"] for p in parts} == {study.model.hash}
    header = json.loads((found.folder / "run.json").read_text())
    assert header["settings"]["seed"] == 3 and header["endpoints"]["peak_amount"]["unit"] == "mg"
    table = read_parquet(parts, ["member"], where="scenario", value="half")
    assert len(table) == len(found.endpoints()) / 3


def test_all_rejected_is_no_error(home, tmp_path):
    text = POPULATION.replace("peak_amount <= 10", "peak_amount <= 0")
    (home / "none.toml").write_text(text)
    out = run(home / "none.toml", "--out", tmp_path / "out", "--number", 20)
    assert out.exit_code == 1
    assert "none of 20 patients was kept" in out.output
    assert (tmp_path / "out" / "rejected.csv").is_file()


# --- what is reported -----------------------------------------------------------------------------


def test_the_command_reports(home, tmp_path):
    done = run(home, "--out", tmp_path / "out", "--number", 150, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "150 patients drawn" in done.output and "peak_amount <= 10: rejects" in done.output
    assert "patients: 150 of 150, 100 %" in done.output and "Research use only" in done.output
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"run.json", "parts", "population.md", "grades.csv", "rejected.csv",
                     "endpoints.csv", "differences.csv", "subgroups.csv", "bands.csv", "bands.png",
                     "bands.svg", "grades.png", "grades.svg"}  # fmt: skip
    text = (tmp_path / "out" / "population.md").read_text()
    for words in (
        "Research use only",
        "assumption: made up",
        "rejected as implausible",
        "| half |",
        "weight, kg",
        "uniform from 5 to 15; mg",
        "seed 3",
    ):
        assert words in text


def test_figures_have_units_on_every_axis(summary):
    bands = plot_population_bands(summary.bands(), summary.results.header["courses"])
    texts = {t.get_text() for t in bands.texts}
    assert {"as given", "half", "times one"} <= texts
    assert any("Research use only" in t for t in texts)
    titles = {ax.get_title().replace("\n", " ") for ax in bands.axes} - {""}
    assert titles == {"Amount in the body, mg", "Shock, (no unit)"}
    assert {ax.get_xlabel() for ax in bands.axes} == {"", "day after infusion"}
    grades = plot_population_grades(summary.grades())
    assert grades.axes[0].get_xlabel() == "share of the virtual patients, %"
    assert any("Research use only" in t.get_text() for t in grades.texts)


def test_without_grades_or_courses(home, tmp_path):
    text = (home / "scenarios.toml").read_text()
    (home / "plain.toml").write_text(text.replace('"worst_grade", "vasopressor_days", ', ""))
    plain = POPULATION.replace("seed = 3", 'keep_courses = false\nscenarios = "plain.toml"')
    (home / "plain_people.toml").write_text(plain.split("[[filter]]")[0])
    results = run_population(load_study(home / "plain_people.toml"), tmp_path / "out")
    written = {p.name for p in write_population(results)}
    assert not any("grades" in name or name.startswith("bands.p") for name in written)
    assert len(results.endpoints()) == 900
