"""Random NONMEM event tables of two compartments against a twin that steps from event to event.

Doses, repeated and lagged, infusions, resets and samples, many at one time, in the file's order;
the twin knows matrix exponentials and nothing of the package.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from crs_sim.fitting.datasets import run_study
from crs_sim.model.model_file import load_model
from crs_sim.patients.nonmem import read_nonmem

TWO = load_model("two_compartment")
COLUMNS = ("ID", "TIME", "EVID", "AMT", "RATE", "CMT", "II", "ADDL", "DV")
SAME = 1e-9
LAGS = {1: 0.7137, 2: 1.3713}
"""Hours; such that no lagged dose arrives at the time of a record."""


class Twin:
    """What is in the compartments, what runs in, and what is still to come."""

    def __init__(self, values, lags):
        k10, k12, k21 = (values["cl"] / values["v1"], values["q"] / values["v1"],
                         values["q"] / values["v2"])  # fmt: skip
        ka = values["ka"]
        self.matrix = np.array([[-ka, 0, 0], [ka, -k10 - k12, k21], [0, k12, -k21]]) / 24
        self.share, self.lags = {1: values["f_oral"], 2: values["f_iv"]}, lags
        self.clear(0.0)

    def clear(self, time):
        self.time, self.amounts, self.running, self.coming = time, np.zeros(3), [], []

    def advance(self, until):
        while True:
            stops = [end for end, _, _ in self.running] + [start for start, _, _ in self.coming]
            now = min([stop for stop in stops if stop <= until + SAME], default=until)
            step = np.zeros((4, 4))
            step[:3, :3] = self.matrix
            for _, into, rate in self.running:
                step[into - 1, 3] += rate
            moved = expm(step * max(now - self.time, 0.0)) @ np.append(self.amounts, 1.0)
            self.time, self.amounts = now, moved[:3]
            self.running = [run for run in self.running if run[0] > now + SAME]
            due = [dose for dose in self.coming if dose[0] <= now + SAME]
            self.coming = [dose for dose in self.coming if dose[0] > now + SAME]
            for _, row, amount in due:
                self.give(row, amount)
            if not [stop for stop in stops if stop <= until + SAME]:
                return

    def give(self, row, amount):
        if row["RATE"]:
            self.running.append((self.time + amount / row["RATE"], row["CMT"], row["RATE"]))
        else:
            self.amounts[row["CMT"] - 1] += amount

    def take(self, row):
        self.advance(row["TIME"])
        if row["EVID"] in (3, 4):
            self.clear(row["TIME"])
        if row["EVID"] in (1, 4):
            amount = row["AMT"] * self.share[row["CMT"]]
            for k in range(row["ADDL"] + 1):
                start = row["TIME"] + self.lags[row["CMT"]] + k * row["II"]
                if start <= row["TIME"]:
                    self.give(row, amount)
                else:
                    self.coming.append((start, row, amount))


def events(rng):
    """Records in order, a third of them at the time of the one before."""
    rows, time = [], 0.0
    for event in [*rng.choice([0, 0, 0, 0, 1, 1, 1, 1, 3, 4], size=14), 0]:
        time += float(rng.choice([0, 0, 0.5, 1, 2.25, 6]))
        row = dict.fromkeys(COLUMNS, 0) | {"ID": 1, "TIME": time, "EVID": int(event), "CMT": 2}
        if event in (1, 4):
            row |= {"AMT": int(rng.choice([10, 50])), "RATE": int(rng.choice([0, 0, 20])),
                    "CMT": int(rng.choice([1, 2]))}  # fmt: skip
            if rng.random() < 0.4:
                row |= {"ADDL": int(rng.integers(1, 4)), "II": float(rng.choice([3.3, 8.1]))}
        rows.append(row | {"DV": 1 if event == 0 else "."})
    return rows


@pytest.mark.parametrize("seed", range(24))
def test_random_event_tables(seed, tmp_path):
    rng = np.random.default_rng(seed)
    lags = {into: lag * int(rng.integers(2)) for into, lag in LAGS.items()}
    model = TWO.with_values(f_oral=0.7, f_iv=0.9, lag_oral=lags[1] / 24, lag_iv=lags[2] / 24)
    rows, twin, expected = events(rng), Twin(model.values, lags), []
    for row in rows:
        twin.take(row)
        if row["EVID"] == 0:
            expected.append(twin.amounts)
    lines = [",".join(str(row[name]) for name in COLUMNS) for row in rows]
    (tmp_path / "study.csv").write_text("\n".join([",".join(COLUMNS), *lines]))
    (tmp_path / "map.toml").write_text('observable = "CENTRAL"')
    study = read_nonmem(tmp_path / "study.csv", model, columns=tmp_path / "map.toml")
    table = run_study(model, study, rtol=1e-9).table
    found = table.loc[table["EVID"] == 0, ["DEPOT", "CENTRAL", "PERIPHERAL"]].to_numpy()
    assert found == pytest.approx(np.array(expected), rel=1e-5, abs=1e-6)
