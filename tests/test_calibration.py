"""Simulation-based calibration on a small problem: `studies.calibration`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crs_sim.uncertainty.posterior import SamplePlan
from studies.calibration import design
from studies.calibration.design import NOISES, PRIORS, RANKS, asked, chance, run


def test_even_ranks_pass_and_uneven_ones_do_not():
    even = np.random.default_rng(1).integers(RANKS, size=400)
    assert chance(even) > 0.01
    assert chance(even // 2) < 1e-6
    assert chance(np.clip(even, 20, 44)) < 1e-6


@pytest.mark.parametrize("noise", NOISES)
def test_every_kind_of_reading_is_in_the_data(noise):
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(40):
        truth = [f.median * np.exp(f.sd * rng.standard_normal()) for f in NOISES[noise]]
        kinds |= {o.kind for o in asked(np.array(truth), rng).patient.observations}
    assert kinds == {"value", "below", "above", "grade"}


def test_estimated_errors_have_the_priors_they_are_drawn_from():
    truth = np.array([f.median for f in NOISES["estimated"]])
    free = asked(truth, np.random.default_rng(1)).free
    assert [(f.name, f.median, f.sd, f.lower, f.upper) for f in free] == [
        (f.name, f.median, f.sd, f.lower, f.upper) for f in NOISES["estimated"]
    ]


@pytest.mark.parametrize("noise", NOISES)
def test_the_same_patients_again(noise):
    plan = SamplePlan(draws=1, thin=2, groups=2, walkers=32)
    assert run(2, plan, noise=noise, workers=1) == run(2, plan, noise=noise, workers=1)


@pytest.mark.slow
def test_truths_rank_evenly_among_the_draws_and_a_wrong_noise_is_seen():
    right = run(150)
    for k in range(len(PRIORS)):
        assert chance([one.ranks[k] for one in right]) > 0.002
    wrong = run(100, sd_factor=0.4)
    assert chance([one.ranks[2] for one in wrong]) < 0.002


@pytest.mark.parametrize(("file", "noise"), [("ranks", "stated"), ("estimated_ranks", "estimated")])
def test_the_committed_ranks_are_even(file, noise):
    table = pd.read_csv(Path(design.__file__).parent / "found" / f"{file}.csv")
    assert len(table) >= 150
    for free in NOISES[noise]:
        assert chance(table[f"rank_{free.name}"].tolist()) > 0.01
