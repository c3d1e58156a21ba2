"""Schedules searched: a front that is known, a search that is stopped, words for what is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from full_disk import fill_disk
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.errors import CrsSimError, InputError, IntegrationError, StorageError
from crs_sim.figures.sensitivity_plots import plot_front
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import save_run
from crs_sim.reports.summaries import files_of_search
from crs_sim.scenarios import searching
from crs_sim.scenarios.comparison import scenarios_text
from crs_sim.scenarios.scenario_file import load_scenarios
from crs_sim.scenarios.search_space import load_search
from crs_sim.scenarios.searching import LOG, compare_trials, front_of, search, thin_front

HEAD = """
until = 12
minimise = ["peak_amount"]
maximise = ["amount_d12"]
method = "{method}"
trials = 120
generation = 20
seed = 3
"""
BASE = """
[base]
remove = [{ drug = "pill" }]
add = [{ day = 1, drug = "pill", amount = 10, unit = "mg", hours = 0 }]
"""
VARY = """
[[vary]]
drug = "pill"
what = "factor"
between = [0.5, 2]
step = 0.5
[[vary]]
drug = "pill"
what = "day"
between = [1, 9]
step = 2
"""
FREE = "\n".join(line for line in VARY.splitlines() if not line.startswith("step"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def best(folder):
    return fit(load_problem(folder / "fit"), workers=1)


def asked(best, folder, text=BASE + VARY, method="grid", head=HEAD):
    path = folder / "search.toml"
    path.write_text(head.format(method=method) + text, encoding="utf-8")
    return load_search(path, best.problem.patient.scenario, best.model)


@pytest.fixture(scope="module")
def grid(best, tmp_path_factory):
    return search(best, asked(best, tmp_path_factory.mktemp("grid")))


def test_a_grid_finds_the_front_that_is_known(best, grid):
    """The later the dose the more is left, at the same peak: only the last day is on the front."""
    assert len(grid.points) == 4 * 5
    front = grid.points[list(grid.front)]
    assert front.tolist() == [[0.5, 9.0], [1.0, 9.0], [1.5, 9.0], [2.0, 9.0]]
    k = best.values["k"]
    for (factor, day), (peak, left) in zip(grid.points, grid.values, strict=True):
        assert peak == pytest.approx(10 * factor, rel=1e-9)  # just after the bolus
        assert left == pytest.approx(10 * factor * math.exp(-k * (12 - day)), rel=1e-5)


def test_the_optimiser_comes_close_to_it(best, tmp_path):
    head = HEAD.replace("trials = 120", "trials = 240")
    found = search(best, asked(best, tmp_path, BASE + FREE, "nsga2", head))
    assert len(found.points) == 240 and not found.failures
    assert (found.points.min(axis=0) >= [0.5, 1]).all()
    assert (found.points.max(axis=0) <= [2, 9]).all()
    peak, left = found.values[list(found.front)].T
    ideal = peak * math.exp(-best.values["k"] * 2.75)
    assert (left <= ideal * (1 + 1e-6)).all()
    days = found.points[list(found.front), 1]
    assert np.median(days) > 8.5  # of 1 to 9, the last being best
    random = found.points[list(front_of(found.values[:20] * [1, -1])), 1]
    assert np.median(days) > np.median(random)
    assert peak.min() < 5.5 and peak.max() > 0.8 * 20 * math.exp(-best.values["k"] / 4)


def test_what_was_done_is_judged_by_the_front(grid):
    assert grid.verdict().startswith("20 schedules evaluated, 0 failed; 4 on the front; ")
    worse = replace(grid, given=np.array([100.0, 0.0]))
    assert "4 of them dominate the treatment as given" in worse.verdict()
    better = replace(grid, given=np.array([0.0, 100.0]))
    assert "none dominates the treatment as given" in better.verdict()


def test_stopped_and_resumed_is_the_same_as_one_go_on_any_number_of_workers(best, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(done, total):
        assert total == 120
        if done == 47:
            raise StoppedError

    question = asked(best, tmp_path, BASE + FREE, "nsga2")
    whole = search(best, question, workers=1)
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        search(best, question, folder=out, workers=2, progress=stop)
    assert len((out / LOG).read_text().splitlines()) == 1 + 47
    again = search(best, question, folder=out, resume=True, workers=2)
    assert (again.points == whole.points).all() and (again.values == whole.values).all()
    with pytest.raises(StorageError, match="holds results already"):
        search(best, question, folder=out)
    other = asked(best, tmp_path, BASE + VARY, "nsga2")
    with pytest.raises(StorageError, match="cannot be resumed"):
        search(best, other, folder=out, resume=True)


def test_a_full_disk_is_one_message_and_what_was_finished_stays(
    best, folder, tmp_path, monkeypatch
):
    save_run(best, folder / "fit")
    question = asked(best, tmp_path, BASE + FREE, "nsga2")
    search(best, question, folder=tmp_path / "whole")
    whole = (tmp_path / "whole" / LOG).read_bytes()
    out = tmp_path / "out"
    fill_disk(monkeypatch, LOG, len(whole) // 2)
    stopped = CliRunner().invoke(cli, ["search", str(folder / "fit"), "--out", str(out),
                                       "--space", str(tmp_path / "search.toml")])  # fmt: skip
    assert stopped.exit_code == 1 and stopped.output.count("Error: ") == 1
    assert stopped.output.endswith(f"{out / LOG}  cannot be written: No space left on device; free "
                                   "some space, then --resume\n")  # fmt: skip
    assert (out / LOG).read_bytes() == whole[: len(whole) // 2]
    monkeypatch.undo()
    search(best, question, folder=out, resume=True)
    assert (out / LOG).read_bytes() == whole


def test_a_trial_that_was_stored_must_be_the_one_that_is_tried_again(best, tmp_path):
    question, log = asked(best, tmp_path), tmp_path / LOG
    search(best, question, folder=tmp_path)
    log.write_text(log.read_text().replace("[[0.5, 3.0]", "[[0.5, 4.0]"))
    with pytest.raises(StorageError, match="another version of optuna"):
        search(best, question, folder=tmp_path, resume=True)


def test_the_chosen_schedule_is_a_scenario_with_the_same_numbers(best, grid, tmp_path):
    chosen = grid.best
    assert chosen in grid.front
    files = files_of_search(grid, chosen, comparisons={}, folder=tmp_path)
    path = tmp_path / "chosen.toml"
    path.write_bytes(files[path])
    again = load_scenarios(path, best.problem.patient.scenario, best.model)
    assert [e.name for e in again.endpoints] == ["peak_amount", "amount_d12"]
    (scenario,) = again.scenarios
    assert scenario.doses.doses == grid.scenario(chosen).doses.doses
    seen = compare_trials(best, grid, grid.front, draws=60)
    row = seen.scenarios.index(f"trial {chosen}")
    assert seen.estimates[row] == pytest.approx(grid.values[chosen], rel=1e-6)
    assert (seen.difference(f"trial {chosen}", "amount_d12") != 0).all()
    with pytest.raises(InputError, match="there is no trial 20; choose 0 to 19"):
        grid.scenario(20)


TRIGGER = """
[base]
change = [{ parameter = "k", first = 3, last = 5, factor = 0.5 }]
hold = [{ drug = "pill", when = "amount > 3000" }]
values = { weight = 81.5 }
[[base.trigger]]
name = "rescue"
when = "crs_grade >= 2"
give = { drug = "pill", amount = 8, unit = "mg" }
at_most = 4
hours_apart = 8
every_hours = 12
first = 1
[[vary]]
drug = "pill"
what = "trigger level"
between = [1, 4]
step = 1
[[vary]]
drug = "pill"
what = "amount"
day = 0
between = [1, 20]
unit = "mg"
"""


def test_levels_of_triggers_and_amounts_and_a_scenario_written_and_read(best, tmp_path):
    question = asked(best, tmp_path, TRIGGER, "nsga2")
    level, amount = question.variables
    assert (level.name, level.usual, amount.usual) == ("rescue: level of crs_grade", 2.0, 10.0)
    scenario = question.scenario([3.0, 12.5], "one")
    assert str(scenario.triggers[0].when) == "crs_grade >= 3"
    assert scenario.doses.doses[0].amount == 12.5
    given = best.problem.patient.scenario
    text = scenarios_text([scenario], given, endpoints=["peak_amount"], until=12)
    path = tmp_path / "one.toml"
    path.write_text(text, encoding="utf-8")
    (again,) = load_scenarios(path, given, best.model).scenarios
    assert again == replace(scenario, doses=again.doses)
    assert sorted(again.doses, key=str) == sorted(scenario.doses, key=str)
    late = given.with_doses(given.doses + Dose(13, "pill", 1), "late")
    assert "day = 13" not in scenarios_text([late], given, endpoints=["peak_amount"], until=12)
    steady = Schedule((replace(given.doses.doses[0], steady="alone", every=24.0),))
    with pytest.raises(InputError, match="steady = alone, which a scenarios"):
        scenarios_text([given.with_doses(steady)], given, endpoints=["peak_amount"])


def test_failed_schedules_are_named_and_never_on_the_front(best, grid, tmp_path, monkeypatch):
    true = searching.simulate

    def some_fail(model, scenario, **options):
        if any(dose.day == 9 and dose.amount > 12 for dose in scenario.doses):
            raise IntegrationError("day 9: gave up")
        return true(model, scenario, **options)

    monkeypatch.setattr(searching, "simulate", some_fail)
    found = search(best, asked(best, tmp_path))
    assert sorted(found.failures) == [14, 19] and not {14, 19} & set(found.front)
    assert found.table().loc[14, "failed"] == "day 9: gave up"
    assert "2 failed" in found.verdict()
    nsga2 = search(best, asked(best, tmp_path, method="nsga2"))
    assert nsga2.failures and not set(nsga2.failures) & set(nsga2.front)

    def all_fail(model, scenario, **options):
        raise IntegrationError("day 0: gave up")

    monkeypatch.setattr(searching, "simulate", all_fail)
    with pytest.raises(InputError, match="20 schedules could be simulated; the first: day 0"):
        search(best, asked(best, tmp_path))


def test_the_front_of_equal_and_missing_rows():
    costs = np.array([[1, 1], [1, 1], [0, 2], [2, 0], [2, 2], [np.nan, 0]])
    assert front_of(costs) == (2, 0, 3)
    assert thin_front([4, 5, 6], 6) == [4, 5, 6]
    assert thin_front(range(0, 100, 2), 10, most=3) == [0, 10, 48, 98]


ONE = '[[vary]]\ndrug = "pill"\nwhat = "factor"\n'


@pytest.mark.parametrize(("text", "words"), [
    (ONE, ("vary 1", "a search needs bounds", "between = [lowest, highest]")),
    (ONE + "between = [2, 1]", ("vary 1", "between", "the lowest value, then a higher one")),
    (ONE + "between = [-1, 1]", ("starts at -1", "must be 0 or more")),
    (ONE + "between = [0, 1]\nfirst = 4\nlast = 2\nstep = 1",
     ("vary 1", "the window ends (day 2) before it begins (day 4)")),
    (ONE + "between = [0, 1]\nday = 1\nstep = 1", ("vary 1", "no dose of pill on day 1")),
    (ONE.replace("pill", "pil") + "between = [0, 1]\nstep = 1", ("vary 1", "did you mean 'pill'")),
    (ONE.replace("factor", "facto") + "between = [0, 1]", ("did you mean 'factor'",)),
    (ONE.replace("factor", "amount") + "between = [0, 1]\nstep = 1",
     ("mg and mg/kg; give a unit",)),
    (ONE + "between = [0, 1]", ("a grid needs a step",)),
    (ONE + "between = [0, 1]\nstep = 2", ("step", "wider than the bounds")),
    (ONE + "between = [0, 1]\nstep = 0.00001", ("100001 points", "nsga2")),
    (ONE + "between = [0, 1]\nstep = 1e-12", ("1000000000001 points",)),
    (ONE.replace("factor", "day") + "between = [3, 99]\nstep = 1",
     ("vary 1, between", "ends on day 99, after the last day of the runs (until = 12)")),
    (ONE + "between = [0, 1]\nstep = 1\n" + ONE + "between = [0, 1]\nstep = 1",
     ("two tables vary pill: factor",)),
    (ONE.replace("factor", "trigger level") + "between = [0, 1]\nstep = 1",
     ("0 triggers of [base] give pill",)),
    ("", ("0 tables [[vary]] of 0 drugs",)),
    (ONE + "betwene = [0, 1]", ("did you mean 'between'",)),
    ('[base]\nremove = [{ drug = "pill", day = 1 }]\n' + ONE + "between = [0, 1]\nstep = 1",
     ("scenario 'base', remove 1", "there is no dose of pill on day 1")),
])  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(best, tmp_path, text, words):
    with pytest.raises(CrsSimError) as caught:
        asked(best, tmp_path, text)
    said = str(caught.value)
    assert "search.toml" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(("old", "new", "words"), [
    ("peak_amount", "peek_amount", "did you mean 'peak_amount'"),
    ('maximise = ["amount_d12"]', "", "needs exactly two endpoints as objectives"),
    ("grid", "annealing", "unknown method 'annealing'"),
    ("trials = 120", "trials = 0", "trials"),
    ("amount_d12", "peak_amount", "both endpoints are the same"),
    ("until = 12", "until = 1e9", "search.toml, key until"),
    ("until = 12", "until = 11", "amount_d12 is after the end of the runs on day 11"),
    ("seed = 3", 'courses = ["amuont"]', "did you mean 'amount'"),
])  # fmt: skip
def test_what_is_wrong_with_the_rest(best, tmp_path, old, new, words):
    text = HEAD.format(method="grid").replace(old, new).replace("{", "{{").replace("}", "}}")
    with pytest.raises(CrsSimError, match=words):
        asked(best, tmp_path, head=text)


def test_the_shipped_search_can_be_asked():
    problem = load_problem("ruemmele2025")
    beside = Path(problem.path).parent
    question = load_search(beside, problem.patient.scenario, problem.model)
    assert [v.usual for v in question.variables] == [24.0, 1.0, 1.0, 1.0]
    again = question.scenario([v.usual for v in question.variables], "as given")
    assert again.doses == problem.patient.scenario.doses


def test_the_figure_marks_what_was_done_and_has_units(best, grid):
    figure = plot_front(grid, compare_trials(best, grid, grid.front, draws=60))
    main = figure.axes[0]
    assert main.get_xlabel() == "Amount in the body: peak, mg (lower is better)"
    assert main.get_ylabel() == "Amount in the body on day 12, mg (higher is better)"
    (star,) = [line for line in main.lines if line.get_marker() == "*"]
    assert [float(star.get_xdata()[0]), float(star.get_ydata()[0])] == grid.given.tolist()
    assert [ax.get_title("left") for ax in figure.axes[1:]] == [
        "pill: factor (x as given)", "pill: day"
    ]  # fmt: skip
    assert any("Research use only" in text.get_text() for text in figure.texts)


def test_the_command_writes_what_it_found(best, folder, tmp_path):
    save_run(best, folder / "fit")
    out = tmp_path / "out"
    command = ["search", str(folder / "fit"), "--out", str(out), "--draws", "40",
               "--patients", "40"]  # fmt: skip
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1 and "has no search.toml beside it" in refused.output
    asked(best, folder / "fit")
    for option in ("--draws", "--patients"):
        negative = CliRunner().invoke(cli, [*command, option, "-1"])
        assert f"{option} is -1; give 0 or more" in negative.output and not out.exists()
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "as given" in done.output and "4 on the front" in done.output
    assert "Research use only" in done.output
    assert {path.name for path in out.iterdir()} == {
        "trials.jsonl", "trials.csv", "front.csv", "front_draws.csv", "chosen.toml",
        "pareto.png", "pareto.svg", "verdict.txt",
    }  # fmt: skip
    said = (out / "verdict.txt").read_text(encoding="utf-8").splitlines()
    assert done.output.splitlines()[: len(said) - 1] == said[:-1]
    members = (out / "front_draws.csv").read_text(encoding="utf-8")
    assert "draws of the fit" in members and "virtual patients of the prior" in members
    again = CliRunner().invoke(cli, [*command, "--resume", "--choose", "4", "--draws", "0"])
    assert again.exit_code == 0, again.output
    assert "Trial 4 of a search" in (out / "chosen.toml").read_text(encoding="utf-8")
    shown = CliRunner().invoke(cli, ["compare", str(folder / "fit"), "--draws", "40",
                                     "--scenarios", str(out / "chosen.toml")])  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "trial 4" in shown.output
