"""Random formulas of the whole dialect mean the same on every path, and the same as in Python.

The grammar is Python's with ``^`` for ``**``, so that a formula is any text put together without a
thought for brackets, and its referee is Python itself, in floats. Where floats and 30 digits differ
the formula says nothing, and is left out.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest
import roadrunner
from hypothesis import Phase, given, settings, strategies as st
from small_models import small

from crs_sim.dosing import Scenario, build_timeline
from crs_sim.model import Array, Model, compile_model, sbml
from crs_sim.model.formula import evaluate, names, parse, written
from crs_sim.solver import compile_kernel

STATES = ("A", "I", "zoo")
PARAMETERS = ("E", "S", "k", "oo", "exp_1", "N")
NAMES = (*STATES, *PARAMETERS)
POINTS = np.random.default_rng(1).uniform(0.2, 4.0, (4, len(NAMES)))


class Texts(NamedTuple):
    """One formula, in the dialect and in Python, where F makes a number."""

    ours: str
    python: str


def joined(*parts: str | Texts) -> Texts:
    """The parts one after the other; a string is the same in both, but for the power."""
    ours = "".join(p if isinstance(p, str) else p.ours for p in parts)
    python = "".join(p.replace("^", "**") if isinstance(p, str) else p.python for p in parts)
    return Texts(ours, python)


NUMBERS = st.sampled_from(
    ["0", "1", "2", "3", "7", "0.5", ".25", "1.", "1.5e0", "2E-1", "12e-1", "0.1", "3.0", "01"]
).map(lambda text: Texts(text, f"F({text!r})"))
LEAVES = NUMBERS | st.sampled_from(NAMES).map(lambda name: Texts(name, name))


def larger(inner: st.SearchStrategy[Texts]) -> st.SearchStrategy[Texts]:
    """A formula around others, brackets or not."""
    operation = st.builds(joined, inner, st.sampled_from([*"+-*/^", " + ", " - ", " * "]), inner)
    called = st.builds(joined, st.sampled_from(["exp(", "ln(", "sqrt("]), inner, st.just(")"))
    two = st.builds(joined, st.just("reached("), inner, st.just(", "), inner, st.just(")"))
    three = st.builds(
        joined, st.just("hill("), inner, st.just(","), inner, st.just(","), inner, st.just(")")
    )
    signed = st.builds(joined, st.sampled_from(["-", "+"]), inner)
    bracketed = st.builds(joined, st.just("("), inner, st.just(")"))
    return st.one_of(operation, operation, bracketed, signed, called, two, three)


FORMULAS = st.recursive(LEAVES, larger, max_leaves=9)


class OffLimitsError(ArithmeticError):
    """The value says nothing: a domain is left, or a step is met exactly."""


def hill(x: Any, K: Any, n: Any) -> Any:
    """The definition, far from where it needs care."""
    if K <= 0 or abs(x) < 1e-6:
        raise OffLimitsError
    return x**n / (K**n + x**n) if x > 0 else type(x)(0)


def reached(x: Any, level: Any) -> Any:
    """The definition, away from its step."""
    if abs(x - level) <= 1e-9 * (abs(x) + abs(level)):
        raise OffLimitsError
    return type(x)(1 if x >= level else 0)


def referee(texts: Texts, point: dict[str, float]) -> float:
    """The value in Python.

    Raises
    ------
    ArithmeticError, ValueError
        If it has none, or floats do not hold it.
    """
    exact = {name: mpmath.mpf(value) for name, value in point.items()}
    functions = {"hill": hill, "reached": reached}
    plain = {"F": float, "exp": math.exp, "ln": math.log, "sqrt": math.sqrt}
    fine = {"F": mpmath.mpf, "exp": mpmath.exp, "ln": mpmath.log, "sqrt": mpmath.sqrt}
    with mpmath.workdps(30):
        right = eval(texts.python, {**fine, **functions, **exact})
        value = eval(texts.python, {**plain, **functions, **point})
        known = isinstance(value, float) and isinstance(right, mpmath.mpf)
        if not known or not 1e-60 < abs(value) < 1e60 or abs(value - right) > 1e-13 * abs(right):
            raise OffLimitsError
    return value


def points() -> list[dict[str, float]]:
    """Values of every name."""
    return [dict(zip(NAMES, row.tolist(), strict=True)) for row in POINTS]


def sensible(texts: Texts) -> list[float] | None:
    """The values at the points, or None if the formula has no value at one."""
    try:
        return [referee(texts, point) for point in points()]
    except (ArithmeticError, ValueError, TypeError):
        return None


MEANINGFUL = FORMULAS.map(lambda t: (t, sensible(t))).filter(lambda pair: pair[1] is not None)


@settings(max_examples=400, deadline=None)
@given(MEANINGFUL)
def test_read_and_written_again_it_has_the_value_of_python(pair: tuple[Texts, list[float]]) -> None:
    texts, right = pair
    tree = parse(texts.ours)
    assert parse(written(tree)) == tree
    assert parse(written(tree, bracketed=True)) == tree
    for text in (texts.ours, written(tree), written(tree, bracketed=True)):
        found = [evaluate(text, point) for point in points()]
        assert found == pytest.approx(right, rel=1e-12)


QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not shrunk: each try compiles a model."""
SEVERAL = st.lists(MEANINGFUL, min_size=12, max_size=12)


def model_of(several: list[tuple[Texts, list[float]]]) -> tuple[Model, Array]:
    """A model with these formulas as quantities, and their values (n_points, n_formulas)."""
    states = dict.fromkeys(STATES, ("0", "0"))
    quantities = {f"q_{i}": texts.ours for i, (texts, _) in enumerate(several)}
    model = small("random", states, dict.fromkeys(PARAMETERS, 1.0), quantities)
    return model, np.array([values for _, values in several]).T


@settings(max_examples=40, deadline=None, phases=QUICK)
@given(SEVERAL)
def test_generated_code_has_the_value_of_python(several: list[tuple[Texts, list[float]]]) -> None:
    model, right = model_of(several)
    code = compile_model(model)
    for point, values in zip(POINTS, right, strict=True):
        y, p = point[None, : len(STATES)], point[len(STATES) :]
        np.testing.assert_allclose(code.quantities(y, p)[0], values, rtol=1e-10)


@settings(max_examples=12, deadline=None, phases=QUICK)
@given(SEVERAL)
def test_machine_code_has_the_value_of_python(several: list[tuple[Texts, list[float]]]) -> None:
    model, right = model_of(several)
    y, p = POINTS[:, : len(STATES)], POINTS[:, len(STATES) :]
    line, _ = build_timeline(model, Scenario("none"), np.array([0.0, 1.0]))
    runs = compile_kernel(model).run(line, p, rtol=1e-6, start=y)
    np.testing.assert_allclose(runs.quantities[:, -1], right, rtol=1e-10)


@settings(max_examples=20, deadline=None, phases=QUICK)
@given(SEVERAL)
def test_exported_it_has_the_value_of_python(several: list[tuple[Texts, list[float]]]) -> None:
    model, right = model_of(several)
    runner = roadrunner.RoadRunner(sbml(model))
    for point, values in zip(points(), right, strict=True):
        for name, value in point.items():
            runner[name] = value
        found = [runner[name] for name in model.quantity_ids]
        # a power that moves with a state is exported as exp(n*ln(x)), which a base below 0 has not
        kept = np.isfinite(found) | [not set(STATES) & names(text) or "^" not in text
                                     for text in (q.formula for q in model.quantities)]  # fmt: skip
        np.testing.assert_allclose(np.array(found)[kept], values[kept], rtol=1e-9)
