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
from studies.recovery.patients import ANALYSES, jobs, recover, recover_estimated
from studies.recovery.summary import (
    bias,
    censoring,
    coverage,
    estimated_coverage,
    estimated_page,
    page,
    residual_errors,
)

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


@pytest.fixture(scope="module")
def estimated():
    return [recover_estimated(job) for job in jobs(2, ("linear",))]


def test_the_same_patients_with_estimated_residual_error(records, estimated):
    for record, other in zip(records, estimated, strict=True):
        assert "error" not in other
        assert set(other["truth"]) == {*design.FREE, *design.SDS}
        assert {name: other["truth"][name] for name in design.FREE} == record["truth"]
        found = other["fit"]
        assert set(found["corrected"]) == set(design.SDS)
        assert all(found["corrected"][name] > found["values"][name] for name in design.SDS)


def test_tables_of_estimated_residual_errors(estimated):
    assert list(bias(estimated)["parameter"]) == [*design.FREE, *design.SDS]
    shares = estimated_coverage(estimated)
    assert len(shares) == 3 * (len(design.FREE) + 1 + len(design.SDS) + 1)
    assert (residual_errors(estimated)["corrected"] > residual_errors(estimated)["estimated"]).all()
    assert "| linear | all sds |" in estimated_page(estimated, "a test", [])


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


def test_committed_estimates_of_residual_errors_are_low_and_their_correction_is_not():
    """The mean ratio of variances, whose standard error is some 0.1."""
    table = pd.read_csv(FOUND / "estimated_sds.csv").set_index("parameter")
    assert (table.loc[["sd_crp", "sd_ferritin"], "estimated_variance"] < 0.8).all()
    assert table["corrected_variance"].between(0.8, 1.3).all()
    biased = pd.read_csv(FOUND / "estimated_bias.csv").set_index("parameter").loc[[*design.FREE]]
    assert (biased["bias"].abs() < 3.0 * biased["bias_error"]).all()


def test_committed_intervals_with_estimated_errors_are_best_from_the_posterior():
    table = pd.read_csv(FOUND / "estimated_coverage.csv")
    rows = table[(table["level"] == 0.95) & (table["parameter"] == "all")]
    whole = rows.set_index("method")["coverage"]
    assert whole["linear"] < whole["profile"] < whole["posterior"]
    assert 0.86 <= whole["posterior"] <= 0.98


def test_modelled_limits_are_unbiased_and_half_the_limit_is_not():
    table = pd.read_csv(FOUND / "censoring.csv")
    table["z"] = (table["bias"] / table["bias_error"]).abs()
    worst = table.groupby("analysis")["z"].max()
    assert worst["modelled"] < 3.5
    assert worst["imputed"] > 5.0
