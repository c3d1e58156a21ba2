"""Scenarios compared: paired, the same numbers as the fit's own, flagged where extrapolated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from tiny_case import write_case
from visible import outside, overlapping, texts

from crs_sim.cli.command_line import cli
from crs_sim.dosing.doses import Dose, DoseSelection
from crs_sim.dosing.scenario import Change, moved, scaled
from crs_sim.errors import InputError, UnknownNameError
from crs_sim.figures.comparison_plots import plot_comparison
from crs_sim.fitting.diagnostics import verdict
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import save_run
from crs_sim.scenarios.comparison import RESOLUTION, compare
from crs_sim.simulation import endpoints as ends
from crs_sim.simulation.ensemble import Sampling
from crs_sim.simulation.simulation import simulate

NAMES = ("peak_amount", "day_of_peak_amount", "auc_amount", "worst_grade", "vasopressor_days",
         "amount_d9")  # fmt: skip
SCENARIOS = """
endpoints = ["amount_d9", "worst_grade"]
until = 12
[[scenario]]
name = "half"
scale = [{ drug = "pill", factor = 0.5 }]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def best(folder):
    return fit(load_problem(folder / "fit"), workers=1)


@pytest.fixture(scope="module")
def found(best):
    given = best.problem.patient.scenario
    plan = given.doses
    others = [
        given.with_doses(scaled(plan, DoseSelection("pill"), 1.0), "times one"),
        given.with_doses(scaled(plan, DoseSelection("pill"), 0.5), "half"),
        given.with_doses(plan + Dose(6, "pill", 60, "mg"), "much more"),
        given.with_doses(moved(plan, DoseSelection("pill", day=0), to=1), "a day later"),
        given.with_changes(Change("k", 3, 5, factor=1.0), name="k times one"),
    ]
    asked = [ends.endpoint(best.model, name) for name in NAMES]
    return compare(best, others, asked, draws=200, sampling=Sampling(until=12, every_hours=6))


def test_as_given_is_the_fits_own_run_to_the_last_digit(best, found):
    run = best.simulation(found.predictions.days)
    assert found.scenarios[0] == "as given"
    for place, end in enumerate(found.endpoints):
        assert found.estimates[0, place] == float(end.of(run))


def test_times_one_is_no_change_at_all(found):
    for scenario in ("times one", "k times one"):
        for name in NAMES:
            assert (found.of(scenario, name) == found.of("as given", name)).all()
        place = found.scenarios.index(scenario)
        assert (found.estimates[place] == found.estimates[0]).all()


def test_what_the_solver_may_have_done_is_no_difference(found):
    given = found.of("as given", "auc_amount")
    for share, told in ((0.9 * RESOLUTION, False), (1.1 * RESOLUTION, True)):
        draws = found.draws.copy()
        draws[1, NAMES.index("auc_amount")] = given * (1 - share)
        less = replace(found, draws=draws)
        name = found.scenarios[1]
        row = less.table().set_index(["scenario", "endpoint"]).loc[(name, "auc_amount")]
        assert less.difference(name, "auc_amount").any() == told == less.sure(name, "auc_amount")
        assert row["chance_lower"] == told and (row["ratio"] < 1) == told


def test_endpoints_of_many_runs_are_those_of_each_alone(best, found):
    values = found.predictions.draws.iloc[7]
    given = best.problem.patient.scenario
    half = given.with_doses(scaled(given.doses, DoseSelection("pill"), 0.5))
    run = simulate(best.problem.model.with_values(**values), half, days=found.predictions.days)
    for end in found.endpoints:
        assert found.of("half", end.name)[7] == pytest.approx(float(end.of(run)), rel=1e-3)


def test_pairing_narrows_a_difference(found):
    mine, given = found.of("a day later", "auc_amount"), found.of("as given", "auc_amount")
    shuffled = np.random.default_rng(1).permutation(given)
    assert np.std(mine - given) < 0.5 * np.std(mine - shuffled)


def test_the_table_says_it_all(found):
    table = found.table(0.9).set_index(["scenario", "endpoint"])
    assert len(table) == 6 * len(NAMES)
    row = table.loc[("half", "auc_amount")]
    assert row["ratio"] == pytest.approx(0.5, rel=0.01)
    assert row["low"] < row["median"] < row["high"]
    assert row["difference"] == pytest.approx(np.median(found.difference("half", "auc_amount")))
    assert row["chance_lower"] == 1.0
    assert table.loc[("as given", "auc_amount"), "difference"] == 0.0
    assert np.isnan(table.loc[("half", "worst_grade"), "ratio"])


def test_what_leaves_the_range_of_the_data_is_flagged(found):
    flags = dict(zip(found.scenarios, found.outside, strict=True))
    assert flags["as given"] == flags["half"] == ""
    assert flags["much more"].startswith("Amount ") and "x its range" in flags["much more"]
    assert flags["k times one"] == "k changed"


def test_questions_without_an_answer(best, found):
    with pytest.raises(InputError, match="at least one other scenario"):
        compare(best, [], found.endpoints)
    with pytest.raises(UnknownNameError, match="did you mean 'half'"):
        found.of("halff", "peak_amount")
    with pytest.raises(UnknownNameError, match="did you mean 'peak_amount'"):
        found.of("half", "peak_amuont")
    with pytest.raises(InputError, match="level is 95"):
        found.table(95)


def test_the_figure_has_a_row_for_each_scenario_and_a_unit_on_every_axis(found):
    figure = plot_comparison(found, courses=["amount"], endpoints=["peak_amount", "worst_grade"])
    texts = [text.get_text() for text in figure.texts]
    for name in found.scenarios:
        assert any(text.startswith(name) for text in texts)
    assert any("Research use only" in text for text in texts)
    labels = {ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()}
    assert labels == {"day after infusion", "mg", "(no unit)"}
    with pytest.raises(UnknownNameError):
        plot_comparison(found, courses=["amuont"])


NOTE = (
    "400 draws of the posterior, sampled with emcee (32 walkers, 2000 steps, every tenth), "
    "worth 213 independent ones; of another problem, whose doses differ from those of this one"
)
LONG = "half the pill on day 0, none from day 3 on, slower elimination from day 18 to 25, planned"


@pytest.mark.parametrize(("count", "n_ends", "name"), [
    (1, 1, "half"), (1, 1, LONG), (2, 1, LONG), (2, 6, "half"), (10, 3, LONG),
])  # fmt: skip
def test_nothing_lies_over_anything_in_the_figure(best, count, n_ends, name):
    given = best.problem.patient.scenario
    rest = given.with_doses(scaled(given.doses, DoseSelection("pill", day=0), 0.5), name)
    several = [replace(rest, name=f"{name} {k}") for k in range(count)]
    endpoints = [ends.endpoint(best.model, end) for end in NAMES[:n_ends]]
    made = compare(best, several, endpoints, draws=8, sampling=Sampling(until=12), workers=1)
    made = replace(made, predictions=replace(made.predictions, source=NOTE))
    figure = plot_comparison(made, courses=["amount"], title=LONG)
    assert overlapping(figure) == [] and outside(figure) == []
    said = " ".join(t.get_text() for t in texts(figure))
    assert "Research use only" in said and "213 independent" in said.replace("\n", " ")


def test_drugs_that_no_scenario_changes_are_drawn_once(best, found):
    titles = {ax.get_title(): ax for ax in plot_comparison(found).axes}
    assert "drugs that differ (see legend)" in titles and "drugs as given in all" not in titles
    given = best.problem.patient.scenario
    slower = given.with_changes(Change("k", 2, 5, factor=0.5), name="slower")
    made = compare(best, [slower], found.endpoints, draws=8, sampling=Sampling(until=12), workers=1)
    figure = plot_comparison(made)
    titles = {ax.get_title(): ax for ax in figure.axes}
    assert "no drug differs" in titles
    same = titles["drugs as given in all"]
    assert [label.get_text() for label in same.get_yticklabels()] == ["pill"]
    (doses,) = same.collections
    assert len(doses.get_segments()) == len(given.doses)
    assert overlapping(figure) == [] and outside(figure) == []


def test_the_command_prints_and_writes(best, folder, tmp_path):
    save_run(best, folder / "fit")
    command = ["compare", str(folder / "fit"), "--draws", "50", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1 and "scenarios.toml" in refused.output
    (folder / "fit" / "scenarios.toml").write_text(SCENARIOS, encoding="utf-8")
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("half ")]
    assert len(rows) == 2 and rows[0][-4:] == ["100", "%", "of", "draws"]
    median, low, high = (float(rows[0][k]) for k in (1, 2, 4))
    assert low < median < high
    assert float(rows[0][5]) == pytest.approx(-median, rel=0.02)  # half of it less all of it
    assert [float(rows[0][k]) for k in (6, 8)] == pytest.approx([-high, -low], rel=0.02)
    assert "Amount in the body on day 9 (amount_d9), mg" in done.output
    assert "Research use only" in done.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["comparison.csv", "comparison.png", "comparison.svg", "ledger.csv",
                       "verdict.txt"]  # fmt: skip
    said = (tmp_path / "out" / "verdict.txt").read_text(encoding="utf-8").splitlines()
    assert done.output.splitlines()[: len(said) - 1] == said[:-1]  # the fit speaks first
    assert said == verdict(best).text.splitlines() and "the fit misses" in said[0]
    ledger = pd.read_csv(tmp_path / "out" / "ledger.csv")
    assert set(ledger["scenario"]) == {"as given", "half"} and (ledger["why"] == "planned").all()
    given, half = (ledger[ledger["scenario"] == name] for name in ("as given", "half"))
    assert half["amount"].tolist() == (given["amount"] / 2).tolist()
    refused = CliRunner().invoke(cli, [*command, "--level", "95"])
    assert refused.exit_code == 1
    assert "--level is 95; give a value between 0 and 1" in refused.output


def test_a_difference_of_no_size_is_not_marked_as_sure(found):
    """A change that surely raises the peak, but by a ten-thousandth: an open circle."""
    place = [e.name for e in found.endpoints].index("peak_amount")
    draws = found.draws.copy()
    draws[1, place] = draws[0, place] * 1.0001
    draws[2, place] = draws[0, place] * 1.02
    figure = plot_comparison(replace(found, draws=draws), endpoints=["peak_amount"])
    dots = [line for line in figure.axes[-1].lines if line.get_marker() == "o"]
    faces = [line.get_markerfacecolor() for line in dots]
    assert faces[1] == "white" and faces[2] != "white"
