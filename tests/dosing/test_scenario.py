"""What is done to a patient: immutable, picklable, and refused where it makes no sense."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given, strategies as st

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Condition, Scenario
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
    own = {"weight": 70.0}
    scenario = Scenario("as given", Schedule((Dose(0, "cart", 1),)), values=own)
    own["weight"] = 1.0
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


# --- changes of one parameter ---------------------------------------------------------------------


def test_overlapping_changes_are_refused_in_any_order() -> None:
    early, late = Change("k", 1, 5, factor=0.5), Change("k", 4, 9, value=2.0)
    apart = Change("q", 4, 9, value=2.0)
    for changes in ((early, late), (late, early), (early, apart, late)):
        with pytest.raises(InputError, match=r"s: k = 2 from day 4 to 9 overlaps with k x 0.5 "):
            Scenario("s", changes=changes)
    with pytest.raises(InputError, match="overlaps"):
        Scenario("s", changes=(early,)).with_changes(late)
    touching = Change("k", 5, 9, value=2.0)
    assert Scenario("s", changes=(touching, apart, early)).changes == (touching, apart, early)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(1, 4))))
def test_a_scenario_is_accepted_only_if_no_day_has_two_changes(
    spans: list[tuple[str, int, int]],
) -> None:
    changes = tuple(Change(name, first, first + n, factor=2.0) for name, first, n in spans)
    days = [(name, day) for name, first, n in spans for day in range(first, first + n)]
    if len(set(days)) == len(days):
        assert Scenario("s", changes=changes).changes == changes
    else:
        with pytest.raises(InputError, match="overlaps with"):
            Scenario("s", changes=changes)


# --- conditions -----------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from((">=", "<=", ">", "<")))
def test_a_condition_is_read_as_it_is_written(level: float, side: str) -> None:
    for text in (f"ferritin {side} {level!r}", f"  ferritin{side}{level!r} "):
        assert Condition.read(text) == Condition("ferritin", side, level)


NO_NUMBERS = ("0,5", "3,000", "1,234.5", "1.234,5", "3 000", "3'000", "3_000", "inf", "nan", "0x10",
              "1e400", "٣", "5 mg", "", "½")  # fmt: skip


@pytest.mark.parametrize("level", NO_NUMBERS)
def test_a_level_that_is_not_one_plain_number_is_refused(level: str) -> None:
    with pytest.raises(InputError, match="is not a condition"):
        Condition.read(f"ferritin > {level}")


@given(st.integers(0, 999), st.text("0123456789", min_size=1, max_size=6))
def test_a_comma_between_digits_is_refused(before: int, after: str) -> None:
    with pytest.raises(InputError, match="write a decimal point and no thousands separator"):
        Condition.read(f"ferritin >= {before},{after}")
