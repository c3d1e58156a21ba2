"""The derivatives of an integrated likelihood, against differences of the integral itself."""

from __future__ import annotations

import numpy as np
import pytest

from crs_sim.population.importance_sampling import Shared, moments

CHANGES = np.zeros((3, 2, 2))
CHANGES[0, 0, 0] = CHANGES[2, 1, 1] = CHANGES[1, 0, 1] = CHANGES[1, 1, 0] = 1.0
START = np.array([0.5, 0.8, 0.3, 0.05, 0.4, 0.2])
"""Means, the elements of the covariance, and a parameter that is not integrated over."""


def log_likelihood(points: np.ndarray, shared: float) -> np.ndarray:
    """Curved, and not normal in any direction."""
    first = (np.exp(points[:, 0] + shared) - 2.0) / 0.4
    return -0.5 * first**2 - 0.5 * ((points[:, 0] * points[:, 1] - 1.0) / 0.5) ** 2


def integrate(theta: np.ndarray):
    prior = theta[:2], np.array([[theta[2], theta[3]], [theta[3], theta[4]]])
    proposal = np.array([0.5, 1.0]), 0.3 * np.eye(2)
    found = moments(lambda x: log_likelihood(x, theta[5]), prior, proposal, 2**12)
    return found, prior


def test_score_and_information_are_the_derivatives_of_the_integral():
    found, prior = integrate(START)
    h = 1e-3
    up, here, down = (log_likelihood(found.points, START[5] + d) for d in (h, 0.0, -h))
    first, second = ((up - down) / (2 * h))[:, None], ((up - 2 * here + down) / h**2)[:, None]
    shared = Shared(first, second, np.zeros((1, len(up), 1)))
    score, information = found.slopes(prior, CHANGES, shared)
    h, steps = 1e-2, np.eye(6)
    slopes = [
        (integrate(START + h * e)[0].log_likelihood - integrate(START - h * e)[0].log_likelihood)
        / (2 * h)
        for e in steps
    ]
    assert score == pytest.approx(slopes, abs=5e-3)

    def value(*signs: np.ndarray) -> float:
        return integrate(START + h * sum(signs))[0].log_likelihood

    bends = np.array([[-(value(a, b) - value(a, -b) - value(-a, b) + value(-a, -b)) / (4 * h * h)
                       for a in steps] for b in steps])  # fmt: skip
    assert information == pytest.approx(bends, abs=5e-2)


def test_a_posterior_with_two_modes_is_found_by_the_mixture_of_proposals():
    def two(points: np.ndarray) -> np.ndarray:
        far = np.abs(points[:, 0]) - 2.0
        return -0.5 * (far / 0.1) ** 2

    prior = np.zeros(1), np.eye(1)
    found = moments(two, prior, (np.array([2.0]), 0.01 * np.eye(1)), 1024)
    wide = moments(two, prior, (np.zeros(1), 9.0 * np.eye(1)), 2**15)
    assert wide.mean[0] == pytest.approx(0.0, abs=0.02)
    assert wide.covariance[0, 0] == pytest.approx(3.93, abs=0.05)
    assert found.error >= 0.0  # of one mode alone it cannot know


def test_no_likelihood_anywhere_is_an_error():
    nowhere = np.zeros(1), np.eye(1)
    with pytest.raises(FloatingPointError, match="0 at every draw"):
        moments(lambda x: np.full(len(x), -np.inf), nowhere, nowhere, 64)
