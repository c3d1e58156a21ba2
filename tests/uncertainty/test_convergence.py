"""Convergence: what is known of it where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crs_sim.uncertainty.draws import convergence, effective

RNG_SHAPE = (400, 4, 12)


def walk(rng: np.random.Generator, shape: tuple[int, ...], keep: float) -> np.ndarray:
    """Standard normal numbers, each correlated with the one before it along the first axis."""
    values = np.empty(shape)
    values[0] = rng.standard_normal(shape[1:])
    for n in range(1, len(values)):
        noise = rng.standard_normal(shape[1:])
        values[n] = keep * values[n - 1] + math.sqrt(1 - keep**2) * noise
    return values


def told(values: np.ndarray, thin: int = 1):
    (one,) = convergence(values[..., None], ["p"], thin)
    return one


def test_independent_draws_count_fully_and_have_converged():
    one = told(np.random.default_rng(1).standard_normal(RNG_SHAPE))
    assert one.ess_bulk > 0.8 * math.prod(RNG_SHAPE)
    assert one.rhat == pytest.approx(1.0, abs=1e-3)
    assert one.reached


def test_correlated_draws_count_as_theory_says():
    values = walk(np.random.default_rng(2), (2000, 4, 12), 0.8)
    expected = values.size * (1 - 0.8) / (1 + 0.8)
    assert effective(values) == pytest.approx(expected, rel=0.25)
    assert told(values, thin=10).moves_each == pytest.approx(10 * 9.0, rel=0.3)


def test_what_walkers_of_a_group_share_is_not_counted_twelve_times():
    rng = np.random.default_rng(3)
    alone, shared = walk(rng, (2000, 4, 12), 0.8), walk(rng, (2000, 4, 1), 0.8)
    values = math.sqrt(0.5) * alone + math.sqrt(0.5) * shared
    # variance of the mean: half of it falls with all walkers, half with groups only
    of_mean = (0.5 / (4 * 12) + 0.5 / 4) * (1.8 / 0.2) / 2000
    assert effective(values) == pytest.approx(1.0 / of_mean, rel=0.3)


def test_a_group_elsewhere_is_seen():
    values = np.random.default_rng(4).standard_normal(RNG_SHAPE)
    values[:, 2] += 1.0
    assert told(values).rhat > 1.05
    assert not told(values).reached


def test_walkers_that_are_stuck_are_seen_even_if_all_groups_have_them():
    values = np.random.default_rng(5).standard_normal(RNG_SHAPE)
    values[:, :, 0] = 3.0 + 0.01 * values[:, :, 0]
    one = told(values)
    assert one.rhat < 1.01  # groups agree with each other, and are wrong alike
    assert one.walkers_rhat > 1.1
    assert not one.reached


def test_a_drift_is_seen():
    values = np.random.default_rng(6).standard_normal(RNG_SHAPE)
    values += np.linspace(-1.0, 1.0, len(values))[:, None, None]
    assert told(values).rhat > 1.05


@pytest.mark.parametrize("values", [np.zeros((100, 4, 12)), np.ones((3, 4, 12))])
def test_where_nothing_can_be_said_nothing_has_converged(values):
    one = told(values)
    assert math.isnan(one.rhat) and not one.reached
