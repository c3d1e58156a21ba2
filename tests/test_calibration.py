"""Simulation-based calibration on a small problem: `studies.calibration`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crs_sim.uncertainty.posterior import SamplePlan
from studies.calibration import design
from studies.calibration.design import PRIORS, RANKS, asked, chance, run


def test_even_ranks_pass_and_uneven_ones_do_not():
    even = np.random.default_rng(1).integers(RANKS, size=400)
    assert chance(even) > 0.01
    assert chance(even // 2) < 1e-6
    assert chance(np.clip(even, 20, 44)) < 1e-6


def test_every_kind_of_reading_is_in_the_data():
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(40):
        truth = [f.median * np.exp(f.sd * rng.standard_normal()) for f in PRIORS]
        kinds |= {o.kind for o in asked(np.array(truth), rng).patient.observations}
    assert kinds == {"value", "below", "above", "grade"}


def test_the_same_patients_again():
    plan = SamplePlan(draws=1, thin=2, groups=2, walkers=32)
    assert run(2, plan, workers=1) == run(2, plan, workers=1)


@pytest.mark.slow
def test_truths_rank_evenly_among_the_draws_and_a_wrong_noise_is_seen():
    right = run(150)
    for k in range(len(PRIORS)):
        assert chance([one.ranks[k] for one in right]) > 0.002
    wrong = run(100, sd_factor=0.4)
    assert chance([one.ranks[2] for one in wrong]) < 0.002


def test_the_committed_ranks_are_even():
    table = pd.read_csv(Path(design.__file__).parent / "found" / "ranks.csv")
    assert len(table) >= 150
    for free in PRIORS:
        assert chance(table[f"rank_{free.name}"].tolist()) > 0.01
