"""Doses and schedules: written as a person would, expanded exactly."""

from __future__ import annotations

import math

import pytest

from crs_sim.dosing.doses import Dose, Schedule, convert_amount, expand
from crs_sim.errors import InputError, UnitError, UnknownNameError
from crs_sim.model.model import Drug, Model, Parameter, State

MODEL = Model(
    "small",
    states=(State("A", "0", "-A", "mg", "amount", "assumption: test"),),
    parameters=(
        Parameter("weight", 70.0, "kg", "body weight", "assumption: test"),
        Parameter("f_oral", 0.5, "dimensionless", "absorbed", "assumption: test"),
    ),
    drugs=(
        Drug("drip", into="A", unit="mg", hours=2.0),
        Drug("tablet", into="A", unit="ug", bioavailability="f_oral"),
        Drug("cells", into="A", unit="cells/kg"),
    ),
)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("amount is negative", {"amount": -1.0}),
        ("amount is nan", {"amount": math.nan}),
        ("amount is inf", {"amount": math.inf}),
        ("day is nan", {"day": math.nan}),
        ("hours is negative", {"hours": -1.0}),
        ("hours is inf", {"hours": math.inf}),
    ],
)
def test_a_dose_that_cannot_be_given_is_refused(words: str, fields: dict[str, float]) -> None:
    with pytest.raises(InputError, match=words):
        Dose(**{"day": 1.0, "drug": "drip", "amount": 1.0, **fields})  # type: ignore[arg-type]


def test_a_dose_of_nothing_is_allowed() -> None:
    assert expand(MODEL, Schedule((Dose(1, "drip", 0, "mg"),)))[0].amount == 0.0


def test_repeated_doses_never_drift() -> None:
    days = [dose.day for dose in Dose(0.1, "drip", 1).repeated(every=8, doses=301)]
    assert days == [0.1 + k * 8 / 24.0 for k in range(301)]
    assert days[300] == 100.1


@pytest.mark.parametrize(
    ("every", "doses"), [(0, 2), (-6, 2), (math.inf, 2), (math.nan, 2), (6, 0)]
)
def test_repeats_that_make_no_sense_are_refused(every: float, doses: int) -> None:
    with pytest.raises(InputError, match=r"drip: (every|doses) must be"):
        Dose(0, "drip", 1).repeated(every, doses)


def test_schedules_add_shift_scale_and_stay_as_they_were() -> None:
    first = Schedule((Dose(1, "drip", 10), Dose(2, "tablet", 5)))
    both = first + Dose(3, "drip", 20)
    assert [d.day for d in both.shifted(0.5)] == [1.5, 2.5, 3.5]
    assert [d.amount for d in both.scaled(2)] == [20, 10, 40]
    assert both.drugs == ("drip", "tablet")
    assert len(first) == 2 and len(first + first) == 4


def test_schedules_are_picked_by_drug_and_by_day() -> None:
    schedule = Schedule((Dose(1, "drip", 10), Dose(2, "tablet", 5), Dose(3, "drip", 20)))
    assert [d.day for d in schedule.only("drip")] == [1, 3]
    assert [d.day for d in schedule.without("drip")] == [2]
    assert [d.day for d in schedule.between(1, 3)] == [1, 2]


@pytest.mark.parametrize(
    ("drug", "amount", "unit", "expected"),
    [
        ("drip", 8.0, "mg/kg", 560.0),
        ("drip", 1.0, "g", 1000.0),
        ("drip", 250.0, "ug", 0.25),
        ("drip", 5.0, "", 5.0),
        ("cells", 7e7, "cells", 1e6),
        ("cells", 5.0, "1e6 cells/kg", 5e6),
        ("A", 3.0, "mg", 3.0),
    ],
)
def test_amounts_come_in_the_drugs_unit_and_for_this_weight(
    drug: str, amount: float, unit: str, expected: float
) -> None:
    dose = Dose(0, drug, amount, unit)
    assert convert_amount(MODEL, dose, MODEL.drug(drug)) == pytest.approx(expected, rel=1e-12)


def test_weight_is_the_models() -> None:
    heavier = MODEL.with_values(weight=90.0)
    assert expand(heavier, Schedule((Dose(0, "drip", 8, "mg/kg"),)))[0].amount == 720.0


def test_a_dose_per_kg_needs_a_weight() -> None:
    weightless = Model("weightless", MODEL.states, (), drugs=MODEL.drugs[:1])
    with pytest.raises(InputError, match=r"dose of drip on day 2: mg/kg needs a body weight"):
        expand(weightless, Schedule((Dose(2, "drip", 8, "mg/kg"),)))


def test_an_infusion_lasts_as_long_as_written_or_as_usual() -> None:
    doses = (Dose(1, "drip", 10), Dose(1, "drip", 10, hours=6), Dose(1, "drip", 10, hours=0))
    usual, written, bolus = expand(MODEL, Schedule(doses))
    assert (usual.start, usual.stop) == (1, 1 + 2 / 24)
    assert (written.start, written.stop) == (1, 1.25)
    assert bolus.stop == bolus.start
    assert written.rate == 40.0


def test_only_what_is_absorbed_arrives() -> None:
    (swallowed,) = expand(MODEL, Schedule((Dose(1, "tablet", 10, "mg"),)))
    assert (swallowed.amount, swallowed.state, swallowed.drug) == (5000.0, "A", "tablet")


def test_order_is_as_written() -> None:
    inputs = expand(MODEL, Schedule((Dose(3, "drip", 1), Dose(1, "drip", 2))))
    assert [i.dose.day for i in inputs] == [3, 1]


def test_an_unknown_drug_is_named_with_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown drug 'dirp': did you mean 'drip'"):
        expand(MODEL, Schedule((Dose(1, "dirp", 1),)))


def test_a_unit_of_another_kind_is_refused() -> None:
    with pytest.raises(UnitError, match=r"dose of drip on day 1 .*'mL' cannot be converted"):
        expand(MODEL, Schedule((Dose(1, "drip", 1, "mL"),)))
