"""The study of recovery: its harness on a small model, and what its committed tables must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_fits import asked, free

from crs_sim.fitting.fitting import fit
from studies.recovery import design
from studies.recovery.intervals import METHODS, linear
from studies.recovery.patients import ANALYSES, jobs, recover
from studies.recovery.summary import bias, censoring, coverage, page

FOUND = Path(design.__file__).parent / "found"


@pytest.fixture(scope="module")
def records():
    return [recover(job) for job in jobs(2, ("linear",))]


def test_a_patient_does_not_depend_on_who_else_is_made(records):
    assert "error" not in records[0]
    alone = recover(jobs(7, ("linear",))[1])
    assert alone == records[1]
    assert records[0]["truth"] != records[1]["truth"]


def test_what_is_recorded(records):
    for record in records:
        assert set(record["truth"]) == set(design.FREE)
        below, readings = record["censored"]
        assert 0 < below < readings
        costs = [record[analysis]["cost"] for analysis in ANALYSES]
        assert len(set(costs)) == 3
        low, high = np.array(record["fit"]["intervals"]["linear"]["k_crp"]).T
        assert (np.diff(low) < 0).all() and (np.diff(high) > 0).all()


def test_tables_from_records(records):
    assert set(bias(records)["parameter"]) == set(design.FREE)
    shares = coverage(records)
    assert shares["coverage"].between(0, 1).all()
    assert len(shares) == 3 * (len(design.FREE) + 1)
    assert len(censoring(records)) == 3 * len(design.FREE)
    assert "synthetic" in page(records, "a test", [])


def test_linear_intervals_are_the_estimates_own():
    best = fit(asked(free("k", 0.5, 0.5)), starts=1, workers=1)
    ((_, _, (low, high)),) = linear(best, design.LEVELS).values()
    assert (low, high) == pytest.approx((best.estimates[0].low, best.estimates[0].high))


# --- what was found and committed -----------------------------------------------------------------


def test_committed_intervals_cover_what_they_say():
    table = pd.read_csv(FOUND / "coverage.csv")
    for method in (*METHODS, "profile"):
        rows = table[(table["method"] == method) & (table["level"] == 0.95)]
        whole = rows[rows["parameter"] == "all"]["coverage"].item()
        assert 0.90 <= whole <= 0.98
        assert rows["coverage"].between(0.88, 1.0).all()


def test_committed_estimates_are_unbiased_within_noise():
    table = pd.read_csv(FOUND / "bias.csv")
    assert (table["bias"].abs() < 3.0 * table["bias_error"]).all()


def test_modelled_limits_are_unbiased_and_half_the_limit_is_not():
    table = pd.read_csv(FOUND / "censoring.csv")
    table["z"] = (table["bias"] / table["bias_error"]).abs()
    worst = table.groupby("analysis")["z"].max()
    assert worst["modelled"] < 3.5
    assert worst["imputed"] > 5.0
