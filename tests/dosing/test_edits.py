"""Doses taken out, moved, scaled and replaced; and edits that find nothing."""

from __future__ import annotations

import pytest

from crs_sim.dosing.doses import Dose, DoseSelection, Schedule
from crs_sim.dosing.scenario import (
    moved,
    only_drugs,
    removed,
    replaced,
    resized,
    scaled,
)
from crs_sim.errors import InputError, UnknownNameError

PLAN = Schedule((
    Dose(0, "cart", 5e6, "cells/kg"),
    Dose(11, "rimiducid", 0.4, "mg/kg", hours=2),
    Dose(18, "rimiducid", 0.4, "mg/kg", hours=2),
    Dose(24, "emapalumab", 1, "mg/kg"),
    Dose(27, "emapalumab", 1, "mg/kg"),
))  # fmt: skip


def told(schedule):
    return [(d.day, d.drug, d.amount) for d in schedule]


def test_only_what_is_picked_is_removed():
    assert (
        told(removed(PLAN, DoseSelection("rimiducid", day=18))) == told(PLAN)[:2] + told(PLAN)[3:]
    )
    assert removed(PLAN, DoseSelection("rimiducid", first=11, last=18)).drugs == (
        "cart",
        "emapalumab",
    )
    assert removed(PLAN, DoseSelection("emapalumab")).drugs == ("cart", "rimiducid")


def test_several_doses_move_together():
    assert [d.day for d in moved(PLAN, DoseSelection("emapalumab"), to=13)][3:] == [13, 16]
    assert [d.day for d in moved(PLAN, DoseSelection("emapalumab"), by=-5.0)][3:] == [19, 22]
    assert moved(PLAN, DoseSelection("rimiducid", day=18), to=18) == PLAN


def test_scaling_by_one_is_no_change_and_keeps_the_infusion():
    assert scaled(PLAN, DoseSelection("rimiducid"), 1.0) == PLAN
    half = scaled(PLAN, DoseSelection("rimiducid", day=18), 0.5).doses
    assert (half[1].amount, half[2].amount, half[2].hours) == (0.4, 0.2, 2)


def test_another_amount_and_another_drug():
    assert [d.amount for d in resized(PLAN, DoseSelection("emapalumab"), 3)][3:] == [3, 3]
    other = replaced(
        PLAN, DoseSelection("emapalumab"), Dose(0, "anakinra", 200, "mg").repeated(6, 2)
    )
    assert told(other)[3:] == [(24.0, "anakinra", 200), (24.25, "anakinra", 200)]
    assert only_drugs(PLAN, ["cart"]).drugs == ("cart",)


@pytest.mark.parametrize(("edit", "words"), [
    (lambda: removed(PLAN, DoseSelection("rimiducid", day=17)),
     "there is no dose of rimiducid on day 17; it is given on day 11, 18"),
    (lambda: moved(PLAN, DoseSelection("emapalumab"), by=-25), "would be given on day -1"),
    (lambda: moved(PLAN, DoseSelection("emapalumab")),
     "give either the day 'to', or the days 'by'"),
    (lambda: moved(PLAN, DoseSelection("emapalumab", day=2), to=3),
     "there is no dose of emapalumab on day"),
    (lambda: scaled(PLAN, DoseSelection("emapalumab"), -1), "factor is -1"),
    (lambda: DoseSelection("emapalumab", first=9, last=2), "ends (day 2) before it begins (day 9)"),
    (lambda: DoseSelection("emapalumab", day=1, last=2), "either a day, or first and last"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(edit, words):
    with pytest.raises(InputError) as caught:
        edit()
    assert words in str(caught.value)


def test_a_misspelt_drug_gets_its_closest_match():
    with pytest.raises(UnknownNameError, match="did you mean 'rimiducid'"):
        removed(PLAN, DoseSelection("rimiducod"))
    with pytest.raises(UnknownNameError, match="did you mean 'cart'"):
        only_drugs(PLAN, ["carts"])
