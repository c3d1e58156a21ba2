"""Synthetic patients: the model's curves read with error, censored where an assay ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_fits import CUTS, DECAY, GRADED

from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import CrsSimError
from crs_sim.fitting.noise import GradeScale, Noise
from crs_sim.population.virtual_patients import Design, synthetic_patient

DESIGN = Design(Scenario("none"), {"A": (0.0, 1.0, 8.0), "signal": (1.0,), "crs_grade": (0.0, 8.0)},
                {"A": (1.0, 11.0)})  # fmt: skip
SILENT = Noise({n: replace(s, sd=1e-12) for n, s in GRADED.spreads.items()},
               GradeScale("A", tuple(CUTS), 1e-12))  # fmt: skip


def made(noise: Noise, seed: int = 1, design: Design = DESIGN):
    return synthetic_patient(DECAY, design, noise, np.random.default_rng(seed), id="x")


def test_without_error_it_is_the_curve():
    seen = {o.id: o for o in made(SILENT).observations}
    assert seen["A_d1"].value == pytest.approx(10 * math.exp(-0.5))
    assert seen["signal_d1"].value == pytest.approx(30 * math.exp(-0.5))
    assert (seen["A_d8"].kind, seen["A_d8"].value) == ("below", 1.0)
    assert [seen[f"crs_grade_d{d}"].value for d in (0, 8)] == [4.0, 0.0]
    assert made(SILENT, design=replace(DESIGN, limits={"A": (0.0, 9.0)})).observations[
        "A_d0"].kind == "above"  # fmt: skip


def test_it_says_that_it_is_synthetic():
    patient = made(GRADED)
    assert patient.id == patient.scenario.name == "synthetic_x"
    assert {o.note for o in patient.observations} == {"synthetic"}


def test_errors_have_the_spread_of_the_noise():
    one = Design(Scenario("none"), {"A": (1.0,)})
    rng = np.random.default_rng(4)
    logs = [math.log(next(iter(synthetic_patient(DECAY, one, GRADED, rng).observations)).value)
            for _ in range(300)]  # fmt: skip
    assert np.mean(logs) == pytest.approx(math.log(10) - 0.5, abs=0.04)
    assert np.std(logs) == pytest.approx(0.2, rel=0.1)
    assert made(GRADED, 3) == made(GRADED, 3) != made(GRADED, 4)


def test_what_has_no_noise_is_refused():
    with pytest.raises(CrsSimError, match="signal is sampled, but has no noise entry"):
        made(replace(GRADED, spreads={"A": GRADED.spreads["A"]}))
    with pytest.raises(CrsSimError, match="no grade scale"):
        made(replace(GRADED, grade=None))
