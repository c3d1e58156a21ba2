"""What people read: days, digits and units, wherever they are printed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st
from small_models import small
from tiny_case import write_case

from crs_sim.cli.command_line import cli
from crs_sim.dosing.scenario import Scenario
from crs_sim.reports.fit_report import when_words
from crs_sim.scenarios.comparison import _outside
from crs_sim.simulation.endpoints import endpoint
from crs_sim.simulation.simulation import simulate
from crs_sim.store.files import level_text


@given(st.floats(-1e12, 1e12))
def test_a_level_has_few_digits_and_no_small_exponent(value):
    text = level_text(value)
    assert len(re.sub(r"\D", "", text.partition("e")[0])) <= 7
    assert "e-" not in text and "e+" not in text and len(text) <= 9


@given(st.floats(1e-3, 1e12))
def test_a_level_is_right_to_three_digits(value):
    assert float(level_text(value)) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("when", "words"),
    [("day 1.395833", "day 1.4"), ("day 20", "day 20"), ("day 0.25", "day 0.25"),
     ("peak of days 1.395833 to 20.5", "peak of days 1.4 to 20.5"), ("day 27.999306", "day 28")],
)  # fmt: skip
def test_days_are_short(when, words):
    assert when_words(when) == words


def dated_case(folder, days):
    write_case(folder)
    rows = "".join(f"g{k},crs_grade,grade,{day},,,{k % 5},,,\n" for k, day in enumerate(days))
    head = "id,observable,kind,day,until,reference,value,unit,sd,note\n"
    level = "a1,amount,value,1,,,5.5,mg,,\na2,amount,value,39,,,1e-9,mg,,\n"
    (folder / "data" / "observations.csv").write_text(head + level + rows)
    text = (folder / "fit" / "problem.toml").read_text()
    text = re.sub(r"\n\[accept\](\n.+)+", "", text)
    (folder / "fit" / "problem.toml").write_text(text)
    return folder / "fit"


def test_grades_at_clock_times_stand_apart_and_long_tables_are_cut(tmp_path):
    problem = dated_case(tmp_path, [1 + k * 1.013889 for k in range(30)])
    result = CliRunner().invoke(cli, ["fit", str(problem), "--workers", "1", "--no-drop"])
    assert result.exit_code == 0, result.output
    table = result.stdout.partition("CRS grade by day\n")[2].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table] == ["day", "reported", "fitted"] * 2
    days = [word for line in table if line.startswith("day") for word in line.split()[1:]]
    assert len(days) == 30 and all(re.fullmatch(r"\d+(\.\d\d?)?", day) for day in days)
    assert max(map(len, table)) < 200
    (level,) = (line.split() for line in result.stdout.splitlines() if " 1e-9 mg " in line)
    assert level[-2] == "0"  # the fitted one


def test_what_is_far_out_of_range_is_said_in_few_digits():
    model = small("far", {"A": ("a0", "-A")}, {"a0": 1.0})
    given_run, far = (
        simulate(model.with_values(a0=a), Scenario("x"), until=1) for a in (1e-3, 4e6)
    )
    assert _outside(far, given_run) == " over 1000 x its range"
    far = simulate(model.with_values(a0=0.012345), Scenario("x"), until=1)
    assert _outside(far, given_run) == " 12.3 x its range"


@pytest.mark.parametrize("kind", ["peak_x", "auc_x", "x_d3"])
def test_endpoints_have_units_as_people_write_them(kind):
    model = small("units", {"A": ("1", "-A")}, {}, {"x": "A"})
    model = replace(model, quantities=(replace(model.quantities[0], unit="pg_per_mL"),))
    assert endpoint(model, kind).unit in ("pg/mL", "pg/mL * day")
