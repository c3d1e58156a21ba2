"""The study of dosing scenarios: closed form, published values, and its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.nmtests import __main__ as command
from studies.nmtests.design import SCALE, exact, suites, verdicts

SHARED = Path(__file__).parents[2] / "shared/data/nmtests"
HEAD = "id,time,evid,amt,cmt,ss,ii,addl,rate,lagt,dur2,rat2,bioav\n"
SCENARIOS = {
    "bolus with additional, absorbed": "0,1,100,1,0,12,3,0,0,2,10,1",
    "lag and share": "0,1,100,2,0,12,3,0,4,2,10,0.4",
    "infusion with share": "0,1,100,2,0,24,3,10,0,2,10,0.48",
    "infusion into the depot": "0,1,100,1,0,24,3,10,0,2,10,1",
    "modelled duration, lag": "0,1,100,2,0,24,3,-2,5,9,10,0.61",
    "modelled rate, share": "0,1,100,2,0,24,3,-1,0,9,8,0.61",
    "steady state with a lag": "0,1,100,2,1,24,3,0,4,2,10,0.4",
    "steady state with a lag beyond its interval": "0,1,100,2,1,12,0,0,16,2,10,1",
    "steady infusion longer than its interval": "0,1,100,2,1,6,2,10,2.5,2,10,0.9",
    "steady infusion as long as its interval": "0,1,82,2,1,10,0,8.2,0,2,10,1",
    "constant infusion": "0,1,0,2,1,0,0,50,0,2,10,1",
}
AFTER = {
    "": "",
    "a bolus and an infusion at one time": (
        "6,1,60,2,0,0,0,0,0,2,10,0.5\n6,1,80,2,0,0,0,20,3,2,10,0.25"),
    "reset": "7,3,0,2,0,0,0,0,1,2,10,1",
    "reset and dose": "7,4,50,2,0,6,2,0,4,2,10,0.8",
    "reset and steady state": "9,4,50,2,1,12,1,0,3,2,10,0.8",
    "steady state added": "10,1,50,2,2,12,1,10,2,2,10,0.8",
}  # fmt: skip


def suite_of(folder: Path, factor: float = 1.0) -> Path:
    """Every scenario followed by every other event, with samples; cp is the closed form."""
    rows, id = [], 0
    for first in SCENARIOS.values():
        for after in AFTER.values():
            id += 1
            events = [first, *after.splitlines()]
            times = np.unique([*range(0, 40, 2), 4, 16, 9, 13, 5])
            lines = [(float(line.split(",")[0]), 0, line) for line in events]
            lines += [(float(t), 1, f"{t},0,0,2,0,0,0,0,0,2,10,1") for t in times]
            rows += [f"{id},{line}" for _, _, line in sorted(lines, key=lambda each: each[:2])]
    path = folder / "own.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    table = pd.read_csv(path)
    table["cp"] = exact(path) * factor
    table.to_csv(path, index=False)
    return path


def test_every_scenario_is_the_closed_form(tmp_path):
    suite_of(tmp_path)
    (suite,) = suites(tmp_path)
    table = verdicts(suite)
    assert len(table) == len(SCENARIOS) * len(AFTER)
    wrong = table[table["verdict"] != "as published"]
    assert wrong.empty, wrong.to_string()


def test_the_closed_form_itself():
    """One bolus, and a steady state as a geometric series."""
    k, ka = 1.1 / 20, 1.5
    rows = pd.DataFrame({
        "id": 1, "time": [0.0, 3.0], "evid": [1, 0], "amt": [100.0, 0], "cmt": 1, "ss": [1, 0],
        "ii": [24.0, 0], "addl": 0, "rate": 0.0, "lagt": 9.0, "dur2": 0.0, "rat2": 0.0,
        "bioav": 0.5,
    })  # fmt: skip
    from studies.nmtests.closed_form import amounts

    expected = [np.exp(-r * 3) / (1 - np.exp(-r * 24)) for r in (k, ka)]
    assert amounts(rows)[1] == pytest.approx(100 * ka / (ka - k) * (expected[0] - expected[1]))


def test_a_suite_that_disagrees(tmp_path, capsys):
    suite_of(tmp_path, factor=1.001)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, tmp_path / "out")
    assert ended.value.code == 0  # the published values are off, not the program
    text = (tmp_path / "out/own.md").read_text()
    assert "as the closed form, not as published" in text and " wrong" not in text
    with pytest.raises(SystemExit):
        run(tmp_path / "out", tmp_path)
    assert "no NAME.csv with NAME.tab" in capsys.readouterr().err


def run(folder: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["nmtests", str(folder), "--out", str(out)])
        command.main()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the suite is not beside this checkout")
def test_nonmem_7_5_1():
    (suite,) = suites(SHARED)
    assert verdicts(suite)["verdict"].tolist() == ["as published"] * 29


@pytest.mark.parametrize(("name", "scenarios"), [("1001", 29), ("nmtest", 54)])
def test_the_stored_verdicts(name, scenarios):
    table = pd.read_csv(Path(command.__file__).parent / f"found/{name}.csv")
    assert len(table) == scenarios
    assert "wrong" not in set(table["verdict"])
    assert (table["from_closed_form"] <= 5e-5).all()
    assert SCALE == 1000.0
