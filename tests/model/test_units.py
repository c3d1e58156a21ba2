"""Units: what people write is understood, conversions are exact, and the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from crs_sim.errors import UnitError
from crs_sim.model.checks import formula_unit, terms
from crs_sim.model.units import (
    COMMON,
    conversion_factor,
    convert,
    declared_units,
    named_unit,
    pretty,
    read_unit,
    same,
    show,
)


@pytest.mark.parametrize(
    ("unit", "target", "factor", "weight_power"),
    [
        ("mg", "mg", 1.0, 0),
        ("g", "mg", 1000.0, 0),
        ("mg/kg", "mg", 1.0, 1),
        ("mg per kg", "ug", 1000.0, 1),
        ("mg", "mg/kg", 1.0, -1),
        ("mg/kg", "mg/kg", 1.0, 0),
        ("mg/kg/day", "mg_per_day", 1.0, 1),
        ("cells", "cells/kg", 1.0, -1),
        ("1e6 cells/kg", "cells/kg", 1e6, 0),
        ("1e6 cells/kg", "cells", 1e6, 1),
        ("ug/mL", "mg/L", 1.0, 0),
        ("µg/ml", "ng_per_mL", 1000.0, 0),
        ("mcg", "ug", 1.0, 0),
        ("copies/ug", "copies_per_ug", 1.0, 0),
        ("cells/uL", "cells/mL", 1000.0, 0),
        ("copies", "cells", 1.0, 0),
        ("IU/mL", "IU/L", 1000.0, 0),
        ("nM", "nmol/L", 1.0, 0),
        ("mL/min", "L_per_day", 1.44, 0),
        ("hours", "day", 1 / 24, 0),
        ("per_day", "1/day", 1.0, 0),
        ("1e-12 gram / 1e-3 litre", "pg/mL", 1.0, 0),
        ("mm^2", "m2", 1e-6, 0),
        ("%", "1", 0.01, 0),
        ("", "dimensionless", 1.0, 0),
        ("kg", "g", 1000.0, 0),
    ],
)
def test_conversion(unit: str, target: str, factor: float, weight_power: int) -> None:
    assert conversion_factor(unit, target) == (factor, weight_power)


@pytest.mark.parametrize(
    ("unit", "target", "words"),
    [
        ("IU", "mg", "'IU' cannot be converted into 'mg': one is international unit"),
        ("mg/m2", "mg", "one is mass/length^2"),
        ("kg", "1", "cannot be converted"),
        ("mgg", "mg", "did you mean 'mg'?"),
        ("mg//mL", "mg", "a unit is missing"),
        ("mg/(kg", "mg", "')' is missing"),
        ("mg)", "mg", "unexpected"),
        ("0 mg", "mg", "its size is not a number above zero"),
        ("mg/0 mL", "mg", "division by zero"),
        ("1e999 mg", "mg", "its size is not a number above zero"),
        ("mg & mL", "mg", "cannot be read"),
        ("pg_per_ml_per_dya", "mg", "is not understood"),
    ],
)
def test_refused(unit: str, target: str, words: str) -> None:
    with pytest.raises(UnitError) as caught:
        conversion_factor(unit, target, "doses.csv row 3")
    assert words in str(caught.value)
    assert str(caught.value).startswith("doses.csv row 3  ")


def test_convert_needs_no_weight() -> None:
    assert convert(2.5, "ng/mL", "pg/mL") == 2500.0
    with pytest.raises(UnitError, match="needs a body weight"):
        convert(8.0, "mg/kg", "mg", "observations.csv row 2")


@given(st.sampled_from(COMMON), st.sampled_from(COMMON))
def test_there_and_back(unit: str, target: str) -> None:
    try:
        factor, power = conversion_factor(unit, target)
    except UnitError:
        with pytest.raises(UnitError):
            conversion_factor(target, unit)
        return
    back, back_power = conversion_factor(target, unit)
    assert factor * back == pytest.approx(1.0, rel=1e-14)
    assert power == -back_power


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pg_per_mL", "pg/mL"),
        ("pg_per_mL_per_day", "pg/mL/day"),
        ("copies_per_ug", "copies/ug"),
        ("copies_kg_per_ug", "copies*kg/ug"),
        ("per_day", "1/day"),
        ("L_per_day", "L/day"),
        ("litre", "L"),
        ("dimensionless", "1"),
        ("mg", "mg"),
        ("pg/mL", "pg/mL"),
        ("score_of_ours", "score_of_ours"),
    ],
)
def test_pretty(name: str, text: str) -> None:
    assert pretty(name) == text
    unit = named_unit(name)
    assert unit is None or same(unit, read_unit(text))


def test_declared_units_build_on_each_other() -> None:
    units = declared_units([("dose", "1e-3 gram"), ("dose_rate", "dose / 86400 second")])
    assert same(units["dose_rate"], read_unit("mg/day"))
    assert show(declared_units([("pg_per_mL", "1e-12 gram / 1e-3 litre")])["pg_per_mL"]) == "pg/mL"
    with pytest.raises(UnitError, match=r"bad:.*banana"):
        declared_units([("bad", "3 banana")])


# --- what unit a formula comes out in -------------------------------------------------------------

UNITS = {
    "k": read_unit("pg/mL/day"),
    "IL6": read_unit("pg/mL"),
    "K": read_unit("pg/mL"),
    "K_ng": read_unit("ng/mL"),
    "d": read_unit("1/day"),
    "n": read_unit("1"),
    "weight": read_unit("kg"),
    "weight_ref": read_unit("kg"),
}


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("k - d*IL6", "pg/mL/day"),
        ("-d*(IL6 - K)", "pg/mL/day"),
        ("k*hill(IL6, K, n)", "pg/mL/day"),
        ("1/(1 + IL6/K)", "1"),
        ("(weight/weight_ref)^0.75", "1"),
        ("(IL6/K)^n", "1"),
        ("IL6^2/K", "pg/mL"),
        ("IL6^-1", "mL/pg"),
        ("sqrt(IL6*K)", "pg/mL"),
        ("exp(-n*ln(IL6/K))", "1"),
        ("reached(IL6, K)", "1"),
        ("0 - d*IL6", "pg/mL/day"),
    ],
)
def test_unit_of_a_formula(text: str, unit: str) -> None:
    found = formula_unit(text, UNITS)
    assert found is not None
    assert same(found, read_unit(unit))


def test_zero_fits_any_unit() -> None:
    assert formula_unit("0", UNITS) is None
    assert formula_unit("0*IL6", UNITS) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k - IL6", "IL6 is pg/mL, but k beside it is pg/mL/day (another dimension)"),
        ("IL6 + K_ng", "K_ng is ng/mL, but IL6 beside it is pg/mL (factor 1000)"),
        ("1 + IL6/K_ng", "(factor 0.001)"),
        ("1 + IL6", "(another dimension)"),
        ("hill(IL6, K_ng, n)", "(factor 1000)"),
        ("hill(IL6, K, K)", "the exponent of hill(IL6, K, K) must be a plain number"),
        ("reached(IL6, K_ng)", "(factor 1000)"),
        ("exp(IL6)", "the argument of exp must be a plain number, and IL6 is pg/mL"),
        ("ln(IL6/K_ng)", "the argument of ln must be a plain number"),
        ("weight^0.75", "whose exponent is not an integer, must be a plain number"),
        ("IL6^n", "the base of IL6^n"),
        ("(IL6/K_ng)^0.5", "factor 0.001"),
        ("n^IL6", "the exponent of n^IL6"),
    ],
)
def test_units_that_do_not_fit(text: str, words: str) -> None:
    with pytest.raises(UnitError) as caught:
        formula_unit(text, UNITS)
    assert words in str(caught.value)


def test_terms_of_a_sum() -> None:
    assert terms("k*hill(IL6, K, 2) - d*(IL6 + K) + 1") == [
        "k*hill(IL6, K, 2)",
        "d*(IL6 + K)",
        "1",
    ]
