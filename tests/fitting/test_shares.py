"""A share: whatever the readings ask for, it never ends above 1, nor does its interval."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from small_fits import NOISE, asked, seen
from small_models import small

from crs_sim.errors import InputError
from crs_sim.fitting.diagnostics import verdict
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import Noise
from crs_sim.fitting.priors import Free, FreeTable, _free
from crs_sim.uncertainty.draws import laplace_draws

PLAIN = small("shares", {"A": ("a0*f", "-k*A")}, {"k": 0.5, "a0": 10.0, "f": 0.5},
              {"lost": "1 - f"})  # fmt: skip
MODEL = replace(PLAIN, parameters=tuple(
    replace(p, unit="dimensionless", label="Share absorbed") if p.id == "f" else p
    for p in PLAIN.parameters))  # fmt: skip


def share_of(sd=2.0, **more):
    return _free(MODEL, MODEL.path, "f", FreeTable(sd=sd, source="made up", **more))


def fitted(asked_for, sd=0.2):
    """A fit to readings that a share of ``asked_for`` would give, synthetic, without scatter."""
    readings = tuple(seen(f"r{d}", "A", d, 10 * asked_for * math.exp(-0.5 * d)) for d in range(4))
    noise = Noise({"A": replace(NOISE.spreads["A"], sd=sd)})
    return fit(asked(share_of(), observations=readings, model=MODEL, noise=noise),
               starts=2, workers=1)  # fmt: skip


@pytest.mark.parametrize("asked_for", [0.02, 0.3, 0.8, 0.95, 1.0, 1.5, 20.0])
def test_a_share_and_its_interval_stay_below_one_and_the_bound_is_named(asked_for):
    result = fitted(asked_for)
    (e,) = result.estimates
    assert 0 < e.low < e.estimate <= 1 and e.estimate <= e.high <= 1
    said = [text for text in verdict(result).warnings if "at a bound" in text]
    assert bool(said) == (asked_for > 1) == e.at_bound or asked_for == 1.0
    if asked_for > 1:
        assert "f (upper: 1 is the most it can be)" in said[0]
    if asked_for < 0.9:
        assert e.estimate == pytest.approx(asked_for, rel=0.02)
    assert e.low == pytest.approx(e.estimate * math.exp(-1.96 * e.standard_error), rel=1e-3)
    if asked_for < 1:
        assert laplace_draws(result, 100).to_numpy().max() <= 1


@pytest.mark.parametrize("sd", [0.1, 0.5, 2.0, 30.0])
def test_the_bounds_of_a_share_are_those_of_the_model_where_the_prior_is_wide(sd):
    free = share_of(sd)
    assert 0 < free.lower < 0.5 < free.upper <= 1
    assert np.log(free.upper / 0.5) == pytest.approx(min(4 * sd, math.log(2)))


@pytest.mark.parametrize(
    "free",
    [Free("f", 0.1, 1.2, 0.5, 0.4), Free("f", 0.1, 1.0, 1.0, 0.4), Free("f", 0.1, 4.0, 1.5, 0.4)],
)
def test_a_prior_that_reaches_above_one_is_refused(free):
    with pytest.raises(InputError, match=r"1 is the most that makes sense for f .Share absorbed."):
        asked(free, model=MODEL, observations=(seen("r", "A", 1.0, 3.0),))
