"""Sensitivity: indices against closed forms, failed runs said, a stopped job gone on with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner
from full_disk import fill_disk
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.errors import CrsSimError, InputError, StorageError
from crs_sim.figures.sensitivity_plots import plot_sensitivity, plot_tornado
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.problem import load_problem
from crs_sim.fitting.storage import save_run
from crs_sim.scenarios import sensitivities
from crs_sim.scenarios.indices import (
    ParameterInterval,
    block,
    design,
    fit_intervals,
    indices,
    prior_draws,
    prior_intervals,
)
from crs_sim.scenarios.sensitivities import LOG, SensitivityPlan, sensitivity
from crs_sim.simulation.batches import BATCH
from crs_sim.simulation.endpoints import endpoint
from crs_sim.store.records import append_rows, open_log

NAMES = ("shock_d1", "auc_amount", "worst_grade")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def best(folder):
    return fit(load_problem(folder / "fit"), workers=1)


def plan_of(best, names=NAMES, **options):
    ends = tuple(endpoint(best.model, name) for name in names)
    return SensitivityPlan(ends, **{"samples": 128, "until": 12.0, **options})


@pytest.fixture(scope="module")
def found(best):
    return sensitivity(best, plan_of(best))


def ishigami(points, a=7.0, b=0.1):
    x, y, z = (2.0 * math.pi * points.T) - math.pi
    return np.sin(x) + a * np.sin(y) ** 2 + b * z**4 * np.sin(x)


def test_sobol_indices_of_ishigamis_function_hold_the_closed_form():
    """Ishigami and Homma 1990, https://doi.org/10.1109/ISUMA.1990.151285."""
    a, b, pi = 7.0, 0.1, math.pi
    alone = np.array([0.5 * (1 + b * pi**4 / 5) ** 2, a**2 / 8, 0.0])
    shared = b**2 * pi**8 * (1 / 18 - 1 / 50)
    variance = alone.sum() + shared
    total = alone + np.array([shared, 0.0, shared])
    points = design("sobol", 3, samples=1024, seed=1)
    got = indices("sobol", points, ishigami(points), seed=1)
    for name, truth in (("S1", alone / variance), ("ST", total / variance)):
        assert (got[f"{name}_low"] < truth).all() and (truth < got[f"{name}_high"]).all()
        assert np.abs(got[name] - truth).max() < 0.03
    assert (got["ST_high"] - got["ST_low"]).max() < 0.25


def test_morris_of_a_straight_line_is_its_slopes():
    slopes = np.array([3.0, -1.0, 0.0])
    points = design("morris", 3, samples=16, seed=1)
    got = indices("morris", points, points @ slopes, seed=1)
    assert got["mu"] == pytest.approx(slopes, abs=1e-12)
    assert got["mu_star"] == pytest.approx(np.abs(slopes), abs=1e-12)
    assert got["sigma"] == pytest.approx(0.0, abs=1e-12)


def test_an_endpoint_with_a_closed_form(best, found):
    """ln shock on day 1 is ln dose - k - ln one_mg: variances add up."""
    k, one_mg = best.problem.free
    of_k = k.median**2 * math.exp(k.sd**2) * (math.exp(k.sd**2) - 1.0)
    share = of_k / (of_k + one_mg.sd**2)
    assert found.scale(0) == "log"
    got = found.indices(0)
    for name in ("S1", "ST"):
        assert np.abs(got[name] - [share, 1.0 - share]).max() < 0.06
        assert (got[f"{name}_low"] < [share, 1 - share]).all()
        assert ([share, 1 - share] < got[f"{name}_high"]).all()
    only_k = found.indices(1)
    assert only_k["ST"] == pytest.approx([1.0, 0.0], abs=0.05)


def test_the_verdict_says_whether_the_ranking_has_settled(best, found):
    assert found.verdict(1).startswith("auc_amount: the ranking has converged")
    few = sensitivity(best, plan_of(best, samples=8))
    assert any("not (from half" in few.verdict(k) or "has not converged" in few.verdict(k)
               for k in range(3))  # fmt: skip
    table = found.convergence()
    assert sorted(set(table["blocks"])) == [32, 64, 128]
    widths = table[(table["endpoint"] == "shock_d1") & (table["parameter"] == "k")]
    assert (np.diff(widths["ST_high"] - widths["ST_low"]) < 0).all()


def test_nothing_drives_what_never_changes(best):
    still = sensitivity(best, plan_of(best, ("day_of_peak_amount", "A_d0"), samples=8))
    assert "constant, so no parameter" in still.verdict(1)
    assert not still.indices(1)["ST"].any()


def test_the_tornado_moves_one_parameter_at_a_time(best, found):
    tornado = found.tornado
    k = best.values["k"]
    for side in range(2):
        ratio = tornado.moved[side, 0, 0] / tornado.estimate[0]
        assert ratio == pytest.approx(math.exp(k - tornado.ends[side, 0]), rel=2e-3)
    first = found.tornado_table().iloc[0]
    assert first["at_low"] > first["at_estimate"] > first["at_high"]


def test_ranges_of_the_prior_and_of_the_fit(best):
    prior, own = prior_intervals(best), fit_intervals(best, 0.95)
    for free, range_ in zip(best.problem.free, prior, strict=True):
        ends = range_.at(np.array([0.0, 0.5, 1.0]))
        assert ends == pytest.approx([free.lower, free.median, free.upper], rel=1e-6)
    sd = math.sqrt(best.covariance[0, 0])
    assert own[0].high == pytest.approx(best.values["k"] * math.exp(1.959964 * sd), rel=1e-5)
    normal = ParameterInterval("x", 1e-9, 1e9, 2.0, 0.5).at(np.array([0.8413447]))
    assert normal == pytest.approx(2.0 * math.exp(0.5), rel=1e-5)
    with pytest.raises(InputError, match="within is 95"):
        fit_intervals(best, 95)
    assert len(prior_draws(best, 5, seed=1).values) == 5
    with pytest.raises(InputError, match="0 patients; give 1 or more"):
        prior_draws(best, 0, seed=1)


def test_stopped_and_resumed_is_the_same_as_one_go_on_any_number_of_workers(best, found, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(done, total):
        assert total == 512
        raise StoppedError

    with pytest.raises(StoppedError):
        sensitivity(best, plan_of(best), folder=tmp_path, workers=1, progress=stop)
    log = tmp_path / LOG
    assert len(log.read_text().splitlines()) == 1 + BATCH
    with log.open("a") as file:
        file.write("[1.0, 2.0, ")  # as a killed process leaves it
    again = sensitivity(best, plan_of(best), folder=tmp_path, workers=2, resume=True)
    assert (again.values == found.values).all()
    assert (again.tornado.moved == found.tornado.moved).all()
    with pytest.raises(StorageError, match="holds results already"):
        sensitivity(best, plan_of(best), folder=tmp_path)
    with pytest.raises(StorageError, match="it was made with seed 1, not 2; design "):
        sensitivity(best, plan_of(best, seed=2), folder=tmp_path, resume=True)


def test_a_full_disk_is_one_message_and_what_was_finished_stays(
    best, folder, tmp_path, monkeypatch
):
    save_run(best, folder / "fit")
    sensitivity(best, plan_of(best), folder=tmp_path / "whole")
    whole = (tmp_path / "whole" / LOG).read_bytes()
    lines, out = whole.splitlines(keepends=True), tmp_path / "out"
    room = len(b"".join(lines[: 1 + 50])) + 7  # in the second batch, between those side by side
    fill_disk(monkeypatch, LOG, room)
    ends = [word for name in NAMES for word in ("--endpoint", name)]
    stopped = CliRunner().invoke(cli, ["sensitivity", str(folder / "fit"), *ends, "--samples",
                                       "128", "--until", "12", "--out", str(out)])  # fmt: skip
    assert stopped.exit_code == 1 and stopped.output.count("Error: ") == 1
    assert stopped.output.endswith(f"{out / LOG}  cannot be written: No space left on device; free "
                                   "some space, then --resume\n")  # fmt: skip
    assert (out / LOG).read_bytes() == whole[:room]
    monkeypatch.undo()
    sensitivity(best, plan_of(best), folder=out, resume=True)
    assert (out / LOG).read_bytes() == whole


def test_rows_of_another_model_are_refused(tmp_path):
    log = tmp_path / "rows.jsonl"
    open_log(log, {"model": "abc"}, resume=False)
    append_rows(log, [[1, None, "why"]])
    assert open_log(log, {"model": "abc"}, resume=True) == [[1, None, "why"]]
    with pytest.raises(StorageError, match='made with model "abc", not "def"'):
        open_log(log, {"model": "def"}, resume=True)
    log.write_text(log.read_text() + "[2, 0.")  # cut off, then gone on with
    append_rows(log, [[3, None, ""]])
    assert open_log(log, {"model": "abc"}, resume=True) == [[1, None, "why"], [3, None, ""]]
    log.write_text("[1, 2]\n")
    with pytest.raises(StorageError, match=r"is damaged \(not written by this package\)"):
        open_log(log, {"model": "abc"}, resume=True)
    log.write_text("nonsense\n")
    with pytest.raises(StorageError, match="is damaged"):
        open_log(log, {"model": "abc"}, resume=True)
    with pytest.raises(StorageError, match="cannot be written"):
        append_rows(tmp_path, [[1]])


def fail_in(rows, monkeypatch):
    """Runs of these rows fail."""
    true = sensitivities.run_rows

    def some_fail(ends, batch):
        done = true(ends, batch)
        return [[None] * 3 + [f"member {m}: gave up"] if m in rows and len(done) > 9 else row
                for m, row in zip(batch.members, done, strict=True)]  # fmt: skip

    monkeypatch.setattr(sensitivities, "run_rows", some_fail)


def test_failed_runs_take_their_block_with_them_and_are_named(best, found, monkeypatch):
    fail_in({5, 6, 40}, monkeypatch)
    some = sensitivity(best, plan_of(best))
    size = block("sobol", 2)
    assert len(some.values) == 512 - 2 * size and some.runs == 512
    assert some.failures == tuple(f"member {m}: gave up" for m in (5, 6, 40))
    spoilt = [*range(4, 8), *range(40, 44)]
    assert (some.values == np.delete(found.values, spoilt, axis=0)).all()
    assert np.abs(some.indices(0)["ST"] - found.indices(0)["ST"]).max() < 0.05


def test_too_many_failed_runs_are_refused(best, monkeypatch):
    fail_in(set(range(0, 512, 30)), monkeypatch)
    with pytest.raises(InputError, match=r"18 of 512 runs failed, in 18 of 128 blocks"):
        sensitivity(best, plan_of(best))


@pytest.mark.parametrize(("options", "words"), [
    ({"samples": 100}, "a Sobol design needs a power of two: 64 or 128"),
    ({"samples": 4}, "samples is 4; give 8 or more"),
    ({"method": "sobl"}, "unknown method 'sobl': did you mean 'sobol'"),
    ({"within": 2.0}, "give a level between 0 and 1"),
    ({"names": ()}, "at least one endpoint"),
])  # fmt: skip
def test_what_cannot_be_asked(best, options, words):
    with pytest.raises(CrsSimError, match=words):
        sensitivity(best, plan_of(best, **options))


def test_figures_have_units_and_name_the_parameters(found):
    for figure in (plot_sensitivity(found), plot_tornado(found)):
        labels = [ax.get_xlabel() for ax in figure.axes]
        assert all(labels)
        assert any("Research use only" in text.get_text() for text in figure.texts)
        ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
        assert sorted(ticks) == ["k", "one_mg"]
    assert "mg · day" in {ax.get_xlabel() for ax in plot_tornado(found).axes}
    with pytest.raises(CrsSimError, match="did you mean 'shock_d1'"):
        plot_tornado(found, endpoints=["shok_d1"])


def test_the_command_writes_tables_figures_and_a_verdict(best, folder, tmp_path):
    save_run(best, folder / "fit")
    out = tmp_path / "out"
    command = ["sensitivity", str(folder / "fit"), "--endpoint", "shock_d1", "--method", "morris",
               "--samples", "16", "--until", "12", "--out", str(out)]  # fmt: skip
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "mu_star" in done.output and "48 runs, 0 failed" in done.output
    assert "Research use only" in done.output
    assert {path.name for path in out.iterdir()} == {
        "runs.jsonl", "sensitivity.csv", "convergence.csv", "tornado.csv", "verdict.txt",
        "sensitivity.png", "sensitivity.svg", "tornado.png", "tornado.svg",
    }  # fmt: skip
    assert "ranking has" in (out / "verdict.txt").read_text(encoding="utf-8")
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1 and "--resume" in refused.output
    assert CliRunner().invoke(cli, [*command, "--resume"]).exit_code == 0
    wrong = CliRunner().invoke(cli, [*command[:3], "peek_amount", "--out", str(out)])
    assert wrong.exit_code == 1 and "did you mean 'peak_amount'" in wrong.output
    late = CliRunner().invoke(cli, [*command[:3], "shock_d13", "--until", "12", "--out", str(out)])
    assert late.exit_code == 1
    assert "shock_d13 is after the end of the runs on day 12" in late.output
