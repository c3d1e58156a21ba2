"""The integrated likelihood against quadrature: what it converges to is its maximum.

Synthetic patients of dA/dt = -kA with log-normal errors. Given k, ln A is linear in ln a0, so that
one integral is known in closed form, and the other is a sum over a fine grid of ln k.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from small_fits import DECAY, asked, free, seen

from crs_sim.errors import InputError
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.priors import Population
from crs_sim.fitting.problem import FitProblem, estimated_noise
from crs_sim.patients.patient import Observations
from crs_sim.population.fit_files import how_estimated, population_fit_warnings
from crs_sim.population.patient_steps import Roles
from crs_sim.population.population_fit import fit_all

FREE = (free("k", 0.5, 1.0), free("a0", 10.0, 1.0))
TIMES = np.array([0.5, 4.0])
NOISE = Noise({"A": Spread(0.3, "a test")})
MEAN, SPREAD, CORRELATION = np.log([0.6, 12.0]), np.array([0.7, 0.5]), -0.6


def drawn(
    n: int, *, correlation: float, noise: Noise = NOISE, times: np.ndarray = TIMES
) -> list[FitProblem]:
    """Synthetic patients, with two readings each where nothing else is said."""
    rng, made = np.random.default_rng(4), []
    root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    for i in range(n):
        k, a0 = np.exp(MEAN + SPREAD * (root @ rng.standard_normal(2)))
        levels = a0 * np.exp(-k * times + 0.3 * rng.standard_normal(times.size))
        readings = tuple(seen(f"d{t:g}", "A", t, x) for t, x in zip(times, levels, strict=True))
        problem = asked(*FREE, observations=readings, starts=1, noise=noise)
        model, more = estimated_noise(DECAY, noise, problem.patient, fewest=0)
        made.append(replace(problem, model=model, free=(*FREE, *more),
                            patient=replace(problem.patient, id=f"synthetic_{i}")))  # fmt: skip
    return made


def quadrature(problems: list[FitProblem], theta: np.ndarray) -> float:
    """-2 ln likelihood at (centre of ln k and ln a0, ln spreads, atanh correlation, ln sd)."""
    centre, spread = theta[:2], np.exp(theta[2:4])
    correlation, error = np.tanh(theta[4]), np.exp(theta[5])
    z = np.linspace(-6.0, 6.0, 241)
    k = np.exp(centre[0] + spread[0] * z)
    means = centre[1] + correlation * spread[1] * z
    left = spread[1] ** 2 * (1.0 - correlation**2)
    times = np.array([o.day for o in problems[0].patient.observations])
    cover = left + error**2 * np.eye(times.size)
    precision, size = np.linalg.inv(cover), np.linalg.slogdet(2.0 * math.pi * cover)[1]
    weights = -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi) + math.log(z[1] - z[0])
    total = 0.0
    for problem in problems:
        read = np.log([o.value for o in problem.patient.observations])
        off = read - (means[:, None] - k[:, None] * times)
        logs = -0.5 * (np.einsum("ki,ij,kj->k", off, precision, off) + size)
        total -= 2.0 * float(logsumexp(logs + weights))
    return total


def best(problems: list[FitProblem], given: dict[int, float]) -> tuple[np.ndarray, float]:
    """The maximum of the quadrature, with some numbers given."""
    start = np.array([*MEAN, *np.log(SPREAD), 0.0, math.log(0.3)])
    start[list(given)] = list(given.values())
    loose = [k for k in range(6) if k not in given]

    def cost(x: np.ndarray) -> float:
        theta = start.copy()
        theta[loose] = x
        return quadrature(problems, theta)

    found = minimize(cost, start[loose], method="Nelder-Mead",
                     options={"xatol": 1e-4, "fatol": 1e-4, "maxiter": 4000})  # fmt: skip
    start[loose] = found.x
    return start, float(found.fun)


def population(noise: Noise = NOISE) -> Population:
    return Population("assumed", DECAY, FREE, noise, 0.0)


def test_it_converges_to_the_maximum_that_quadrature_finds():
    problems = drawn(30, correlation=0.0)
    truth, lowest = best(problems, {4: 0.0, 5: math.log(0.3)})
    result = fit_all(problems, population(), draws=128, workers=1)
    found = result.found
    assert result.still and not [fit for fit in result.fits if fit.effective < 250]
    assert np.abs(found.centre - truth[:2]).max() < 0.15 * found.centre_error.min()
    assert np.abs(np.log(found.spread) - truth[2:4]).max() < 0.15 * found.spread_error.min()
    assert result.minus_2_ln_l == pytest.approx(lowest, abs=0.3)
    assert result.estimated == 4
    # the two-stage method does not, with two readings a patient
    assert np.abs(result.two_stage.centre - truth[:2]).max() > 0.3 * found.centre_error.min()
    assert "integrated by importance sampling (128 draws" in how_estimated(result)


def test_correlated_effects_are_found_and_shrink_each_other():
    problems = drawn(40, correlation=CORRELATION)
    truth, lowest = best(problems, {5: math.log(0.3)})
    result = fit_all(problems, population(), Roles(correlated=(("k", "a0"),)), draws=256, workers=1)
    found = result.found
    row = result.correlations().iloc[0]
    assert (row["parameter"], row["with"]) == ("k", "a0")
    assert abs(math.atanh(row["correlation"]) - truth[4]) < 0.15 * row["error"] / (
        1.0 - row["correlation"] ** 2
    )
    assert np.abs(found.centre - truth[:2]).max() < 0.15 * found.centre_error.min()
    assert np.abs(np.log(found.spread) - truth[2:4]).max() < 0.15 * found.spread_error.min()
    assert result.minus_2_ln_l == pytest.approx(lowest, abs=0.4)
    assert result.estimated == 5


def test_an_estimated_residual_error_is_shared_and_is_that_of_quadrature():
    noise = Noise({"A": Spread(0.2, "a test", estimate=True)})
    problems = drawn(30, correlation=0.0, noise=noise, times=np.array([0.5, 1.0, 2.0, 4.0]))
    truth, lowest = best(problems, {4: 0.0})
    result = fit_all(problems, population(noise), draws=128, workers=1)
    table = result.table().set_index("parameter")
    row = table.loc["sd_A"]
    assert row["role"] == "shared" and row["unit"] in ("", "1", "dimensionless")
    assert abs(math.log(row["median"]) - truth[5]) < 0.2 * row["median_error"]
    assert result.minus_2_ln_l == pytest.approx(lowest, abs=0.4)
    spread = result.population.noise.spreads["A"]
    assert spread.sd == row["median"] and not spread.estimate
    assert "sd_A" not in result.population.medians
    assert not [line for line in population_fit_warnings(result) if "scatter" in line]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles(correlated=(("k",),)), "correlated with nothing"),
        (Roles(correlated=(("k", "a0"), ("a0", "k"))), "named twice"),
        (Roles(shared=("k",), correlated=(("k", "a0"),)), "no random effect"),
        (Roles(correlated=(("k", "ao"),)), "ao"),
    ],
)
def test_what_cannot_be_correlated_is_refused(roles, message):
    with pytest.raises((InputError, LookupError), match=message):
        fit_all(drawn(2, correlation=0.0), population(), roles)


def test_draws_are_a_power_of_two_or_none():
    problems = drawn(3, correlation=0.0)
    for draws in (100, 16):
        with pytest.raises(InputError, match="power of two from 32"):
            fit_all(problems, population(), draws=draws)
    result = fit_all(problems, population(), draws=0, workers=1)
    assert math.isnan(result.minus_2_ln_l) and "no likelihood was integrated" in how_estimated(
        result
    )


def test_patients_who_are_alike_and_one_below_every_limit_are_no_error():
    same = drawn(1, correlation=0.0, times=np.array([0.5, 1.0, 2.0, 4.0]))[0]
    alike = [replace(same, patient=replace(same.patient, id=f"synthetic_{i}")) for i in range(4)]
    result = fit_all(alike, population(), draws=32, workers=1)
    assert (result.found.spread < 0.01).all() and np.isnan(result.found.shrinkage).all()
    assert any(
        "do not differ in k, a0: share them" in line for line in population_fit_warnings(result)
    )
    low = tuple(seen(f"d{t}", "A", t, 0.02, "below") for t in (0.5, 1.0, 4.0))
    lowest = replace(same, patient=replace(same.patient, id="low", observations=Observations(low)))
    found = fit_all([*drawn(8, correlation=0.0), lowest], population(), draws=64, workers=1)
    values = found.fits[-1].values
    assert not found.failures and values["a0"] * math.exp(-0.5 * values["k"]) < 0.05
