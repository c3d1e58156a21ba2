"""Units: what people write is understood, conversions are exact, and the rest is refused."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, strategies as st

from crs_sim.errors import UnitError
from crs_sim.model.checks import formula_unit, terms
from crs_sim.model.model import declared_units, named_unit
from crs_sim.model.units import (
    COMMON_UNITS,
    SPELLINGS,
    conversion_factor,
    convert,
    pretty,
    ratio,
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
        ("10*6 cells/kg", "cells/kg", 1e6, 0),
        ("10^6 cells/kg", "cells/kg", 1e6, 0),
        ("10**6 cells/kg", "cells/kg", 1e6, 0),
        ("x10^6 cells/kg", "cells/kg", 1e6, 0),
        ("2.5 × 10⁶ cells/kg", "cells/kg", 2.5e6, 0),
        ("cells x10^6/kg", "cells/kg", 1e6, 0),
        ("10*9.{cells}/L", "cells/uL", 1e3, 0),
        ("million cells/kg", "cells", 1e6, 1),
        ("mg.kg-1", "mg", 1.0, 1),
        ("mg kg⁻¹ day⁻¹", "mg_per_day", 1.0, 1),
        ("k[IU]/L", "IU/mL", 1.0, 0),
        ("kU/L", "U/mL", 1.0, 0),
        ("units/mL", "U/mL", 1.0, 0),
        ("mg/dL", "mg/L", 10.0, 0),
        ("ug/L", "ng/mL", 1.0, 0),
        ("ng/L", "pg/mL", 1.0, 0),
        ("fg/mL", "pg/mL", 1e-3, 0),
        ("pmol/l", "nM", 1e-3, 0),
        ("mg/100 mL", "mg/dL", 1.0, 0),
        ("/uL", "1/uL", 1.0, 0),
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
        ("mgs", "mg", "did you mean 'mg'?"),
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


@pytest.mark.parametrize(
    ("unit", "target", "factor", "weight_power"),
    [
        ("nmol/L", "ng/mL", 0.5, 0),
        ("pM", "pg_per_mL", 0.5, 0),
        ("ug/mL", "uM", 2.0, 0),
        ("umol", "mg", 0.5, 0),
        ("umol/kg", "mg", 0.5, 1),
        ("mg/kg", "mg", 1.0, 1),
        ("mg", "ug", 1000.0, 0),
    ],
)
def test_a_molar_mass_takes_moles_to_grams(
    unit: str, target: str, factor: float, weight_power: int
) -> None:
    found = conversion_factor(unit, target, molar_mass=500.0)
    assert found == (pytest.approx(factor, rel=1e-14), weight_power)
    for other in ("U/mL", "cells"):
        with pytest.raises(UnitError, match="cannot be converted"):
            conversion_factor(other, target, molar_mass=500.0)


@given(st.sampled_from(COMMON_UNITS), st.sampled_from(COMMON_UNITS))
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


# --- forms that people write ----------------------------------------------------------------------

# size in gram, metre, second, ..., and the dimension; written down here and not taken from the code
ATOMS = {
    "fg": (1e-15, "mass"), "pg": (1e-12, "mass"), "ng": (1e-9, "mass"), "ug": (1e-6, "mass"),
    "µg": (1e-6, "mass"), "mcg": (1e-6, "mass"), "mg": (1e-3, "mass"), "g": (1.0, "mass"),
    "microgram": (1e-6, "mass"), "milligrams": (1e-3, "mass"), "dL": (1e-4, "volume"),
    "uL": (1e-9, "volume"), "ml": (1e-6, "volume"), "mL": (1e-6, "volume"), "L": (1e-3, "volume"),
    "min": (60.0, "time"), "h": (3600.0, "time"), "day": (86400.0, "time"), "d": (86400.0, "time"),
    "weeks": (604800.0, "time"), "pmol": (1e-12, "substance"), "nmol": (1e-9, "substance"),
    "cells": (1.0, "item"), "kcells": (1e3, "item"), "Mcells": (1e6, "item"), "IU": (1.0, "IU"),
    "mIU": (1e-3, "IU"), "kIU": (1e3, "IU"), "U": (1.0, "U"), "kU": (1e3, "U"), "mU": (1e-3, "U"),
}  # fmt: skip
BASES = {"mass": "g", "volume": "m^3", "time": "s", "substance": "mol", "item": "item", "IU": "IU",
         "U": "U"}  # fmt: skip
POWERS = st.sampled_from((-3, -2, -1, 1, 2, 3))
MANTISSAS = st.integers(1, 99).map(lambda n: n / 10)


@st.composite
def numbers_in_front(draw: st.DrawFn) -> tuple[str, float]:
    """A number that a unit begins with, as people write it, and its value."""
    power = draw(st.integers(-12, 12))
    raised = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    ten = draw(st.sampled_from((f"10^{power}", f"10**{power}", f"10{raised}", f"10 ^ {power}")))
    times = draw(st.sampled_from(("x", " x ", "×", " × ", "*", " · ")))
    mantissa = draw(MANTISSAS)
    return draw(st.sampled_from((
        ("", 1.0), ("1 ", 1.0), (f"1e{power} ", float(f"1e{power}")),
        (f"{mantissa}E{power}", float(f"{mantissa}e{power}")),
        (f"10*{power} ", float(f"1e{power}")), (f"{ten} ", float(f"1e{power}")),
        (f"x{ten} ", float(f"1e{power}")),
        (f"{mantissa}{times}{ten} ", float(f"{mantissa}e{power}")),
    )))  # fmt: skip


def raised(name: str, power: int, style: str) -> str:
    """A unit to a power: mL^-1, mL-1, mL⁻¹ or mL**-1."""
    if power == 1:
        return name
    digits = str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return {"^": f"{name}^{power}", "**": f"{name}**{power}", "⁻¹": f"{name}{digits}",
            "-1": f"{name}{power}"}[style]  # fmt: skip


@st.composite
def written_units(draw: st.DrawFn) -> tuple[str, float, dict[str, int]]:
    """A unit as people write it; its size, and the power of each dimension."""
    front, size = draw(numbers_in_front())
    words = draw(
        st.lists(st.tuples(st.sampled_from(sorted(ATOMS)), POWERS), min_size=1, max_size=4)
    )
    style, slash = draw(st.sampled_from(("^", "**", "⁻¹", "-1"))), draw(st.booleans())
    times = draw(st.sampled_from(("*", " * ", "·", ".", " ", " · ")))
    over = draw(st.sampled_from(("/", " / ", " per ")))
    dimensions: dict[str, int] = {}
    for name, power in words:
        size *= ATOMS[name][0] ** power
        dimensions[ATOMS[name][1]] = dimensions.get(ATOMS[name][1], 0) + power
    if not slash:
        text = times.join(raised(name, power, style) for name, power in words)
    else:
        above = [raised(n, p, style) for n, p in words if p > 0]
        below = [raised(n, -p, style) for n, p in words if p < 0]
        text = over.join([times.join(above), *below])
    return front + text, size, dimensions


@given(written_units())
def test_a_unit_is_read_as_it_is_meant(written: tuple[str, float, dict[str, int]]) -> None:
    text, size, dimensions = written
    needed = read_unit("1")
    for dimension, power in dimensions.items():
        needed = needed * read_unit(BASES[dimension]) ** power
    assert ratio(read_unit(text), needed) == pytest.approx(size, rel=1e-12)


PLAIN = st.one_of(st.integers(2, 99), MANTISSAS.filter(lambda x: x != 1.0), st.just("1e3"))


@given(PLAIN, PLAIN, st.sampled_from(("*", " * ", "x", " x ", "·", " ", " × ")), st.booleans())
def test_products_of_bare_numbers_are_refused(
    one: object, other: object, times: str, after: bool
) -> None:
    if f"{one}{times.strip()}" == "10*" and times == "*":
        return  # 10*6 is UCUM for 1e6
    text = f"{one} cells{times}{other}" if after else f"{one}{times}{other} cells/kg"
    with pytest.raises(UnitError, match=r"two readings|not a known unit|cannot be read"):
        read_unit(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10 * 6 cells/kg", "numbers beside numbers have two readings"),
        ("5*10*6 cells", "numbers beside numbers have two readings: 5*10*6"),
        ("10*6*10*3 cells", "numbers beside numbers"),
        ("10*6.5 cells", "numbers beside numbers"),
        ("1 000 cells", "000 after 1 has two readings"),
        ("1,000 cells", "cannot be read"),
        ("cells/kg x 10^6", "what is below the / has two readings"),
        ("mg/kg*day", "use brackets: mg/(kg day)"),
        ("mg/kg day", "use brackets: mg/(kg day)"),
        ("mg/24.h", "use brackets: mg/(kg day)"),  # in UCUM mg h/24, to others mg in 24 h
        ("mg/1.5.h", "use brackets: mg/(kg day)"),
        ("mg/24*h", "use brackets: mg/(kg day)"),
        ("mg/1000", "write one, in front"),
        ("60/5 s", "write one, in front"),
        ("60^2 s", "60 has a power"),
        ("mg 5", "5 after a unit has two readings"),
        ("109/L", "109 may be 10^9; write 1e9 or 109.0"),
        ("5 x 106 cells", "106"),
        ("10e6 cells", "10e6 is 1e+07; some mean 1e6"),
        ("K/uL", "write 1e3 and what is counted"),
        ("mg%", "mg/dL for mg%"),
        ("% of cells", "needs the level of the whole, which the model does not have"),
        ("%CD3", "needs the level of the whole"),
        ("copies/cell", "needs the DNA of a cell, which the model does not have"),
        ("copies per cell", "write copies/ug"),
        ("CAR+ cells/uL", "write cells/uL or copies/ug"),
        ("md/L", "'md' is not a known unit"),
    ],
)
def test_what_has_two_readings_is_asked_about(text: str, words: str) -> None:
    with pytest.raises(UnitError, match=re.escape(words)):
        conversion_factor(text, "pg/mL")


# --- letters that differ in case only -------------------------------------------------------------


def test_spellings_that_differ_in_case_only_cannot_stand_for_each_other() -> None:
    for one in SPELLINGS:
        for other in SPELLINGS:
            if one.lower() == other.lower():
                assert ratio(read_unit(one), read_unit(other)) in (None, 1.0), (one, other)


@given(st.sampled_from(sorted(SPELLINGS)), st.data())
def test_another_case_is_never_another_size(name: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in name)
    if len(text) != len(name) or ratio_of(text, name) in (None, 1.0):
        return
    pytest.fail(f"{text} is read as {ratio_of(text, name)} {name}")


def ratio_of(text: str, name: str) -> float | None:
    """The size of a text in a unit; None if it is refused, or of another dimension."""
    unit = named_unit(text)
    return None if unit is None else ratio(unit, read_unit(name))


@pytest.mark.parametrize("name", ["g", "L", "mol", "IU", "U", "s"])
def test_mega_is_asked_about_where_milli_is_read(name: str) -> None:
    words = f"m is milli and M mega; did you mean 'm{name}', or '1e6 {name}'?"
    with pytest.raises(UnitError, match=re.escape(words)):
        read_unit(f"M{name}/day")


@pytest.mark.parametrize(("text", "meant"), [("MG/DL", "mg"), ("NG", "ng"), ("UG/L", "ug"),
                                             ("Kg", "kg"), ("PMOL/L", "pmol"), ("nG", "ng"),
                                             ("IU/kG", "kg"), ("Cells", "cells")])  # fmt: skip
def test_capitals_are_asked_about(text: str, meant: str) -> None:
    with pytest.raises(UnitError, match=f"did you mean '{meant}'"):
        read_unit(text)


# --- units of assays ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["U", "kU", "mU", "IU", "kIU", "u", "AU", "EU", "UI", "iu", "KU",
                                  "MU", "units", "Units", "unit", "UA", "ui"])  # fmt: skip
@pytest.mark.parametrize("volume", ["mL", "ml", "L", "dL"])
@pytest.mark.parametrize("target", ["pg/mL", "ng_per_mL", "ug/mL", "mg_per_L"])
def test_units_of_assays_are_never_taken_for_masses(name: str, volume: str, target: str) -> None:
    with pytest.raises(UnitError) as caught:
        conversion_factor(f"{name}/{volume}", target)
    assert not re.search(r"did you mean '[a-zµ]*g\b", str(caught.value))
    assert re.search(r"\[\[conversions\]\]|not a known unit", str(caught.value))


@pytest.mark.parametrize(
    ("unit", "target", "words"),
    [
        ("U/mL", "pg/mL", "U is a unit of one assay"),
        ("IU/mL", "pg/mL", "an international unit is a mass only for a named standard"),
        ("U/L", "IU/L", "write IU if your laboratory says"),
        ("pmol/L", "pg/mL", "this needs a molar mass"),
        ("pg/mL", "pmol/L", "this needs a molar mass"),
        ("mg/m2", "mg", "this needs a body surface"),
        ("cells/uL", "copies_per_ug", "this needs the white cells"),
        ("10*9/L", "cells/uL", "write in both what is counted"),
    ],
)
def test_what_is_missing_for_a_conversion_is_stated(unit: str, target: str, words: str) -> None:
    with pytest.raises(UnitError, match=f"cannot be converted .*{words}"):
        conversion_factor(unit, target)


@given(st.text("0123456789.eEx*^/ ()%·×⁶-+gmLUIcelspkµ{}[]", max_size=12))
def test_any_text_is_a_size_or_one_error(text: str) -> None:
    try:
        unit = read_unit(text)
    except UnitError:
        return
    assert 0 < unit.magnitude < math.inf


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
