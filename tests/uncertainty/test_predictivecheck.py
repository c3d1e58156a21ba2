"""The posterior predictive check, against readings made with the same noise and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from small_fits import GRADED, asked, free, seen

from crs_sim.fitting.noise import Noise, Spread
from crs_sim.patients.patient import Observation
from crs_sim.uncertainty.posterior import Posterior, SamplePlan
from crs_sim.uncertainty.predictive_check import outside_interval_text, predictive

WIDE = Noise({"A": Spread(0.2), "signal": Spread(0.1)}, GRADED.grade)


def certain(*observations: Observation, a0: float = 10.0, k: float = 0.5) -> Posterior:
    """A posterior all of whose draws are the same values."""
    problem = asked(free("a0", 10.0, 0.5), free("k", 0.5, 0.5), observations=observations,
                    noise=WIDE)  # fmt: skip
    chain = np.broadcast_to(np.log([a0, k]), (100, 2, 20, 2)).copy()
    counts = np.zeros((2, 3), dtype=np.int64)
    return Posterior(problem, SamplePlan(100, 1, 2, 20), chain, np.zeros((100, 2, 20)), counts)


def only(observation: Observation, **values: float):
    (row,) = predictive(certain(observation, **values), 2000)
    return row


def test_a_level_has_the_percentile_and_the_band_of_its_noise():
    row = only(seen("a", "A", 0.0, 12.0))
    assert row.chance == pytest.approx(ndtr(math.log(1.2) / 0.2), abs=1e-6)
    assert row.median == pytest.approx(10.0, rel=0.02)
    assert row.low == pytest.approx(10.0 * math.exp(-1.96 * 0.2), rel=0.05)
    assert row.high == pytest.approx(10.0 * math.exp(1.96 * 0.2), rel=0.05)
    assert not row.surprising
    assert only(seen("a", "A", 0.0, 16.0)).surprising
    assert only(seen("a", "A", 0.0, 6.0)).surprising


@pytest.mark.parametrize(
    ("kind", "limit", "chance"),
    [
        ("below", 12.0, ndtr(math.log(1.2) / 0.2)),
        ("above", 12.0, 1 - ndtr(math.log(1.2) / 0.2)),
        ("below", 5.0, ndtr(math.log(0.5) / 0.2)),
        ("above", 5.0, 1 - ndtr(math.log(0.5) / 0.2)),
    ],
)
def test_a_limit_has_the_chance_of_a_reading_beyond_it(kind, limit, chance):
    row = only(seen("a", "A", 0.0, limit, kind))
    assert row.chance == pytest.approx(chance, abs=1e-6)
    assert row.surprising == (chance < 0.05)
    assert row.median == pytest.approx(10.0, rel=0.02)  # of readings, not of limits


def test_ratios_are_of_the_later_level_over_the_earlier():
    ratio = replace(seen("r", "A", 2.0, 0.4, "ratio"), reference=0.0)
    assert only(ratio).median == pytest.approx(math.exp(-1.0), rel=0.02)
    assert only(ratio).unit == "1"
    below = only(replace(ratio, kind="ratio_below"))
    assert below.chance == pytest.approx(ndtr(math.log(0.4 / math.exp(-1.0)) / 0.2), abs=1e-6)


def test_a_peak_is_the_largest_of_its_window():
    assert only(seen("p", "A", 1.0, 6.0, "peak", until=3.0)).median == pytest.approx(
        10.0 * math.exp(-0.5), rel=0.02
    )


def test_a_reading_on_an_unknown_day_is_spread_over_the_window():
    row = only(seen("s", "A", 0.0, 6.0, "sometime", until=4.0))
    assert row.median == pytest.approx(10.0 * math.exp(-1.0), rel=0.05)
    assert row.low < 10.0 * math.exp(-2.0) and row.high > 10.0
    days = np.linspace(0.0, 4.0, 81)
    below = ndtr(np.log(6.0 / (10.0 * np.exp(-0.5 * days))) / 0.2)
    assert row.chance == pytest.approx(below.mean(), abs=1e-6)


def test_a_grade_has_its_own_chance():
    row = only(replace(seen("g", "crs_grade", 0.0, 3.0, "grade"), unit="1"), a0=6.0)
    assert row.chance == pytest.approx(ndtr((8 - 6) / 0.5) - ndtr((4 - 6) / 0.5), abs=1e-6)
    assert (row.low, row.median, row.high) == (3.0, 3.0, 3.0)
    edge = only(replace(seen("g", "crs_grade", 0.0, 4.0, "grade"), unit="1"), a0=8.0)
    assert edge.chance == pytest.approx(0.5, abs=1e-6)
    assert (edge.low, edge.high) == (3.0, 4.0)
    assert only(replace(seen("g", "crs_grade", 0.0, 0.0, "grade"), unit="1")).surprising


def test_uncertain_parameters_make_wider_bands():
    posterior = certain(seen("a", "A", 0.0, 12.0))
    spread = posterior.chain.copy()
    spread[..., 0] += 0.3 * np.random.default_rng(1).standard_normal(spread.shape[:3])
    wider = replace(posterior, chain=spread)
    (row,) = predictive(wider, 4000)
    total = math.hypot(0.2, 0.3)
    assert math.log(row.high / row.low) == pytest.approx(2 * 1.96 * total, rel=0.06)
    assert row.chance == pytest.approx(ndtr(math.log(1.2) / total), abs=0.02)


def test_the_same_again():
    posterior = certain(seen("a", "A", 0.0, 12.0), seen("s", "A", 0.0, 6.0, "sometime", until=4.0))
    assert predictive(posterior) == predictive(posterior)


def test_surprises_are_counted_and_named():
    rows = predictive(certain(seen("good", "A", 0.0, 10.0), seen("bad", "A", 1.0, 60.0)))
    assert outside_interval_text(rows) == (
        "1 of 2 readings are outside their 95 % predictive interval: bad "
        "(about 1 expected by chance)."
    )
