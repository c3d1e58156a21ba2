"""The benchmarks run on a tiny job and their committed table parses; nothing here is timed."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from benchmarks import results
from benchmarks.case import Reference
from benchmarks.chain import chain
from benchmarks.growth import chain_case
from benchmarks.precision import OURS, Point, chosen
from benchmarks.stops import exported, inflow_id, infused, stops
from benchmarks.targets import Row, met
from benchmarks.timing import Timing, timed
from crs_sim import check_model, load_model, load_patient, read_model, simulate
from crs_sim.dosing.timeline import input_tables

TIMING = Timing((0.2, 0.1, 0.4))


@pytest.fixture(scope="module")
def small():
    return chain_case(3)


def test_timed_keeps_every_repeat_but_the_warming_up():
    calls = []
    assert len(timed(lambda: calls.append(1), 4, warm=2).seconds) == 4
    assert len(calls) == 6
    assert (TIMING.minimum, TIMING.median) == (0.1, 0.2)


def test_error_is_measured_against_a_floor_of_the_largest():
    reference = Reference(np.array([[1.0, 0.0, 0.0]]), np.array([1.0, 100.0, 0.0]))
    errors = reference.errors(np.array([[1.5, 0.01, 0.0]]))
    assert errors.tolist() == pytest.approx([0.5, 0.1, 0.0])
    assert reference.error(np.array([[np.nan, 0.0, 0.0]])) == np.inf


def test_a_tolerance_that_is_good_by_luck_is_not_chosen():
    errors = {1e-3: 5e-5, 1e-4: 2e-4, 1e-5: 9e-5, 1e-6: 1e-6}
    points = [Point(OURS, rtol, "", error, TIMING) for rtol, error in errors.items()]
    assert chosen(points).rtol == 1e-5
    with pytest.raises(ValueError, match="no tolerance"):
        chosen(points, good=1e-9)


def test_chain_is_a_sound_model_of_any_length():
    assert check_model(read_model(chain(7))) == []
    assert len(read_model(chain(7)).states) == 7


def test_plain_and_compiled_agree_on_the_chain(small):
    ours, plain = small.run(1e-8), small.run(1e-8, "LSODA")
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-8)


def test_stops_bring_what_the_timeline_brings():
    from benchmarks.case import load

    case = load()
    ids, found = case.model.state_ids, stops(case)
    tables = input_tables(case.line, case.values, len(ids))
    for i, name in enumerate(ids):
        given = sum(stop.given.get(name, 0.0) for stop in found)
        assert given == pytest.approx(tables.bolus[:, i].sum(), rel=1e-12)
        flow = total = 0.0
        for stop in found:
            flow = stop.inflow.get(inflow_id(name), flow)
            total += flow * stop.longer
        assert total == pytest.approx(tables.inflow[:, i] @ np.diff(case.line.edges), rel=1e-12)
    assert infused(case)
    assert sorted(s.row for s in found if s.row >= 0) == list(range(len(case.days)))


def test_roadrunner_runs_the_same_case(small):
    from benchmarks.roadrunner import RoadRunner

    largest = np.abs(small.run(1e-8)).max(axis=0)
    peer = RoadRunner(small, largest)
    peer.tolerate(1e-9, 1e-2)
    np.testing.assert_allclose(peer.run(), small.run(1e-9), rtol=1e-5, atol=1e-7)
    assert "inflow" not in exported(small)  # no infusion, nothing added


def test_slopes_agree_with_differences():
    from benchmarks import slopes
    from crs_sim.solver.kernel import compile_kernel

    case = chain_case(3)
    kernel, free = compile_kernel(case.model), [0, 1]
    exact = slopes.extrapolated(kernel, case, free)
    found = slopes.run(kernel, case, free, 1e-8)
    assert slopes.errors(found, exact, case, np.abs(case.run(1e-8)).max(axis=0)).max() < 1e-4


def test_tables_are_written_with_the_machine_in_every_row(tmp_path):
    rows = [Row("a run", "under 1 s", "0.5 s", met(True), "1e-5")]
    results.write_targets(tmp_path, rows, {"processor": "some", "cores": "2"})
    with (tmp_path / "targets.csv").open(encoding="utf-8") as file:
        assert [row["processor"] for row in csv.DictReader(file)] == ["some"]
    text = (tmp_path / "targets.md").read_text(encoding="utf-8")
    assert "| a run | under 1 s | 0.5 s | met | 1e-5 |" in text


def test_the_committed_tables_parse():
    machine = json.loads((results.FOLDER / "machine.json").read_text(encoding="utf-8"))
    with (results.FOLDER / "targets.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["date"] == machine["date"] and row["processor"] for row in rows)
    assert all(row["measured"] and row["accuracy"] for row in rows)
    assert {row["met"] for row in rows if row["target"]} <= {"met", "NOT MET"}
    for name in ("work_precision", "growth"):
        with (results.FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
            assert all(float(row["minimum_s"]) > 0 for row in csv.DictReader(file))


def test_the_csv_of_a_run_is_that_of_its_table():
    from crs_sim.simulation.simulation import csv_text

    run = simulate(load_model("crs"), load_patient("ruemmele2025").scenario, until=2)
    assert csv_text(run) == run.table().to_csv(index=False, lineterminator="\n")
