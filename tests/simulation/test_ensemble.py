"""What came of many runs: looked up by name, as a table, as bands."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_models import LOOP

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import InputError, UnknownNameError
from crs_sim.simulation.batches import simulate_many
from crs_sim.simulation.ensemble import Sampling

CASE = Scenario("case", Schedule((Dose(0.5, "E", 3), Dose(1, "S", 2, hours=2))))
SPARED = CASE.with_doses(CASE.doses.without("S"), "spared")
FIVE = {"r": np.linspace(2.5, 3.5, 5)}


def test_only_what_was_asked_for_is_kept():
    asked = Sampling(days=[0, 0.5, 6], outputs=("I", "E_log"))
    many = simulate_many(LOOP, [CASE, SPARED], FIVE, sampling=asked)
    assert many.outputs == ("I", "E_log")
    assert many.courses.shape == (2, 2, 5, 3)
    assert many.days.tolist() == [0, 0.5, 6]
    assert many.units == {"I": "mg", "E_log": "mg"}
    with pytest.raises(UnknownNameError, match="unknown output of the ensemble 'E'"):
        many["E"]
    with pytest.raises(UnknownNameError, match="did you mean 'spared'"):
        many.course("I", "spred")
    with pytest.raises(InputError, match="name one of the scenarios case, spared"):
        many.course("I")


def test_the_table_and_the_quantiles():
    values = pd.DataFrame(FIVE, index=["a", "b", "c", "d", "e"])
    many = simulate_many(LOOP, [CASE, SPARED], values, sampling=Sampling(until=2, outputs="I"))
    table = many.table()
    assert list(table) == ["scenario", "member", "day", "I"]
    row = table[(table.scenario == "spared") & (table.member == "d") & (table.day == 2)]
    assert row["I"].tolist() == [many.course("I", "spared")[3, 2]]
    bands = many.quantiles("I", [0.0, 0.5])
    assert bands.shape == (2, 2, 3)
    assert np.array_equal(bands[0], many["I"].min(axis=1))


def test_quantiles_need_levels_between_0_and_1():
    many = simulate_many(LOOP, CASE, FIVE, sampling=Sampling(until=2))
    with pytest.raises(InputError, match="levels must lie between 0 and 1"):
        many.quantiles("I", [5, 95])


def test_sampling_is_daily_until_day_40_unless_told():
    assert Sampling().sample_days.tolist() == list(range(41))
    assert Sampling(until=1, every_hours=12).sample_days.tolist() == [0, 0.5, 1]
    with pytest.raises(InputError, match="rtol is 2"):
        Sampling(rtol=2)
