"""`crs-sim list`: what there is to choose from, with units."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.model.model_file import load_model
from crs_sim.model.units import read_unit
from crs_sim.simulation.endpoints import endpoint

MODEL = load_model("crs")


def listed(*words: object) -> list[list[str]]:
    result = CliRunner().invoke(cli, ["list", *map(str, words)])
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_every_drug_has_its_unit():
    rows = {row[0]: row[1] for row in listed("drugs")[1:]}
    assert list(rows) == [drug.name for drug in MODEL.drugs]
    assert all(read_unit(unit) for unit in rows.values())


def test_observables_begin_with_those_that_are_measured():
    rows = listed("observables")[1:]
    assert [row[0] for row in rows][:4] == ["vcn", "ifng", "ifng_total", "il6"]
    assert {row[0] for row in rows} == set(MODEL.quantity_ids)
    assert not any("_per_" in word for row in rows for word in row)


@pytest.mark.parametrize("model", ["crs", "one_compartment"])
def test_every_endpoint_that_is_listed_is_one(model):
    rows = listed("endpoints", model)
    assert len(rows) > 4
    for name, *_ in rows[1:]:
        assert endpoint(load_model(model), name).name == name
    assert not any("_per_" in word for row in rows for word in row)


def test_every_unit_that_is_listed_can_be_read():
    for unit, *_ in listed("units")[1:]:
        read_unit(unit)


def test_runs_and_scenarios_of_the_case():
    (head, run) = listed("runs")
    assert head[0] == "run" and "2026-11-22_095fd9c6" in run[0]
    rows = listed("scenarios", "ruemmele2025")
    assert rows[1][:2] == ["as", "given"] and len(rows) > 5


def test_another_model(tmp_path):
    folder = write_case(tmp_path)
    assert listed("drugs", folder / "model")[1][:2] == ["pill", "mg"]
    assert listed("observables", folder / "model")[1][0] == "amount"
    assert listed("parameters", folder / "model")[1][:3] == ["weight", "70", "kg"]


@pytest.mark.parametrize("words", [["drugs", "crz"], ["runs", "nobody"], ["drug"]])
def test_what_is_not_there(words):
    result = CliRunner().invoke(cli, ["list", *words])
    assert result.exit_code and "Traceback" not in result.output and "Error" in result.stderr
