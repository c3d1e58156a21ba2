"""What is done to a patient: immutable, picklable, and refused where it makes no sense."""

from __future__ import annotations

import math
import pickle

import pytest

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import InputError


def test_a_change_scales_or_sets() -> None:
    assert Change("k", 1, 2, factor=0.5).apply(8.0) == 4.0
    assert Change("k", 1, 2, value=3.0).apply(8.0) == 3.0
    assert Change("k", 1, 2, value=0.0).apply(8.0) == 0.0


def test_a_change_lasts_for_ever_unless_told() -> None:
    assert Change("k", factor=2).describe() == "k x 2 from day -inf to inf"
    assert Change("k", 3, 4, value=1).describe() == "k = 1 from day 3 to 4"


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("give either factor or value", {}),
        ("give either factor or value", {"factor": 1.0, "value": 1.0}),
        ("nan is not a finite number", {"factor": math.nan}),
        ("inf is not a finite number", {"value": math.inf}),
        ("ends .day 2. before it starts .day 3.", {"factor": 1.0, "first": 3, "last": 2}),
        ("ends .day 3. before it starts .day 3.", {"factor": 1.0, "first": 3, "last": 3}),
        ("before it starts", {"factor": 1.0, "first": math.nan}),
    ],
)
def test_changes_that_make_no_sense_are_refused(words: str, fields: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"change of k: .*{words}"):
        Change("k", **fields)


def test_a_scenario_is_never_changed_only_varied() -> None:
    given = {"weight": 70.0}
    scenario = Scenario("as given", Schedule((Dose(0, "cart", 1),)), values=given)
    given["weight"] = 1.0
    other = scenario.with_doses(Schedule(), "no doses").with_values(weight=80.0)
    other = other.with_changes(Change("k", factor=2))
    assert scenario.values["weight"] == 70.0 and len(scenario.doses) == 1 and not scenario.changes
    assert (other.name, other.values["weight"], len(other.doses)) == ("no doses", 80.0, 0)
    assert other.changes == (Change("k", factor=2),)
    with pytest.raises(TypeError):
        scenario.values["weight"] = 1.0  # type: ignore[index]


def test_a_scenario_travels_between_processes() -> None:
    scenario = Scenario("s", Schedule((Dose(0, "cart", 1),)), (Change("k", factor=2),), {"w": 1.0})
    assert pickle.loads(pickle.dumps(scenario)) == scenario
