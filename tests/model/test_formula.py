"""Formulas: one closed list of operators and functions, in any arithmetic."""

from __future__ import annotations

import math

import pytest
import sympy
from hypothesis import given, strategies as st

from crs_sim.errors import ModelError
from crs_sim.model.formula import (
    FUNCTIONS,
    evaluate,
    functions,
    hill,
    names,
    parse,
    reached,
    written,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3*x", 8.0),
        ("-x^2", -4.0),
        ("2^3^2", 512.0),
        ("(2^3)^2", 64.0),
        ("x/4/2", 0.25),
        ("x - 1 - 1", 0.0),
        ("2*-x", -4.0),
        ("1e-3*x", 0.002),
        ("exp(ln(x)) + sqrt(x^2)", 4.0),
        ("hill(x, 2, 3) + reached(x, 2)", 1.5),
    ],
)
def test_value(text: str, value: float) -> None:
    assert evaluate(text, {"x": 2.0}) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x +", "is not a formula"),
        ("3 mg", "is not a formula"),
        ("log(x)", "calls 'log': known are exp, hill, ln, reached, sqrt"),
        ("delay(x, 1)", "calls 'delay'"),
        ("x.y", "uses 'x.y'"),
        ("x if y else z", "'if' stands where an operator should be"),
        ("x > y", "uses '>'"),
        ("x % 2", "uses '%'"),
        ("'x'", 'uses "\'"'),
        ("x # 2", "uses '#'"),
        ("x**2", "'*' stands where a number, a name or '(' should be"),
        ("2x", "holds '2x', not a number"),
        ("2 x", "'x' stands where an operator should be"),
        ("2(x)", "'(' stands where an operator should be"),
        ("(x + 2", "it ends where ')' should be"),
        ("x + 2)", "')' stands where an operator should be"),
        ("", "it ends where a number, a name or '(' should be"),
        ("hill(x, 2)", "hill takes 3 arguments"),
        ("exp(x=1)", "uses '='"),
        ("exp()", "')' stands where a number"),
        ("é", "uses 'é'"),
        ("(" * 60 + "x" + ")" * 60, "inside each other"),
        ("+".join(["x"] * 400), "operations in a row"),
    ],
)
def test_outside_the_dialect(text: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "number",
    ["1_000", "0x10", "0o17", "0b1", "1e400", "1e-400", "1.2.3", "1e", "1e+", "2j", "1__0", "٣",
     "1,5", "0x1p3", "1L", "1.5_0"],
)  # fmt: skip
def test_numbers_of_the_dialect_and_no_others(number: str) -> None:
    for text in (f"{number}*x", f"x^{number}", f"-{number}"):
        with pytest.raises(ModelError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.", 1.0), (".5", 0.5), ("1e3", 1e3), ("1E+3", 1e3), ("2.5e-3", 2.5e-3), ("007", 7.0),
     ("1e308", 1e308), ("0e999", 0.0), ("5e-324", 5e-324)],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(text: str, value: float) -> None:
    assert evaluate(text, {}) == value
    assert evaluate(written(parse(text)), {}) == value


def test_words_of_python_are_names() -> None:
    assert evaluate("True*None", {"True": 2.0, "None": 3.0}) == 6.0


def test_names_and_functions() -> None:
    text = "a*hill(x, K, 2) - exp(b)"
    assert names(text) == {"a", "x", "K", "b"}
    assert functions(text) == {"hill", "exp"}


@given(st.floats(-1e3, 1e12), st.floats(1e-6, 1e6), st.floats(0.1, 20), st.floats(1e-300, 1e-200))
def test_hill_stays_between_zero_and_one(x: float, K: float, n: float, tiny: float) -> None:
    assert 0.0 <= hill(x, K, n) <= 1.0
    assert 0.0 <= hill(tiny, K, n) <= 1e-10


def test_hill_is_its_formula() -> None:
    assert hill(3.0, 2.0, 1.7) == pytest.approx(3**1.7 / (2**1.7 + 3**1.7), rel=1e-14)
    assert hill(0.5, 2.0, 1.7) == pytest.approx(0.5**1.7 / (2**1.7 + 0.5**1.7), rel=1e-14)
    assert hill(0.0, 2.0, 1.7) == hill(-1e-9, 2.0, 1.7) == 0.0


def test_reached_includes_the_level() -> None:
    assert [reached(x, 2.0) for x in (1.9, 2.0, 2.1)] == [0.0, 1.0, 1.0]


def test_any_arithmetic() -> None:
    x = sympy.Symbol("x")
    symbolic = {**FUNCTIONS, "exp": sympy.exp}
    assert evaluate("exp(2*x)", {"x": x}, symbolic, sympy.Integer).diff(x) == 2 * sympy.exp(2 * x)
    assert math.isnan(evaluate("x*2", {"x": math.nan}))
