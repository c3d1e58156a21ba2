"""Generated code: right values, right derivatives, safe at zero, kept on disk."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from paths import child_environment
from small_models import LOOP, ONE, small
from waiting import PATIENCE

from crs_sim.errors import ModelError, UnknownNameError
from crs_sim.model import codegen, formula, formula as primitives
from crs_sim.model.codegen import compile_model
from crs_sim.model.source_code import generate
from crs_sim.simulation.simulation import simulate
from crs_sim.store import files as codecache


def nominal(model):
    return np.array([p.value for p in model.parameters])


def plainly(model, states):
    """The referee: every formula evaluated by itself."""
    values = {**model.values, **dict(zip(model.state_ids, states, strict=True))}
    for q in model.quantities:
        values[q.id] = formula.evaluate(q.formula, values)
    rates = [formula.evaluate(s.rate, values) for s in model.states]
    return np.array(rates), np.array([values[q] for q in model.quantity_ids])


@pytest.mark.parametrize("seed", range(5))
def test_values_equal_the_formulas(seed):
    y = np.random.default_rng(seed).uniform(0.1, 50, len(LOOP.states))
    code = compile_model(LOOP)
    rates, quantities = plainly(LOOP, y)
    assert code.rates(y, nominal(LOOP)) == pytest.approx(rates, rel=1e-12)
    assert code.quantities(y[None], nominal(LOOP))[0] == pytest.approx(quantities, rel=1e-12)


def test_inflow_is_added():
    code = compile_model(ONE)
    rates = code.rates(np.array([2.0, 0.0]), np.array([0.7]), np.array([1.0, 0.0]))
    assert rates == pytest.approx([-0.4, 1.4])


@pytest.mark.parametrize("seed", range(5))
def test_jacobian_against_differences(seed):
    y = np.random.default_rng(seed).uniform(0.1, 20, len(LOOP.states))
    code, p = compile_model(LOOP), nominal(LOOP)
    expected = np.empty((4, 4))
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-5 * y[k]
        expected[:, k] = (code.rates(y + step, p) - code.rates(y - step, p)) / (2 * step[k])
    assert code.jacobian(y, p) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0, 3.0])
def test_jacobian_is_finite_at_zero_and_just_below(exponent):
    model = LOOP.with_values(n=exponent, m=exponent)
    code = compile_model(model)
    for y in (np.zeros(4), np.full(4, -1e-12)):
        assert np.isfinite(code.jacobian(y, nominal(model))).all()
        assert np.isfinite(code.rates(y, nominal(model))).all()


def test_hill_of_exponent_one_has_its_slope_at_zero():
    model = small("h", {"A": ("0", "hill(A, K, n)")}, {"K": 4.0, "n": 1.0})
    assert compile_model(model).jacobian(np.zeros(1), nominal(model))[0, 0] == 0.25


def test_names_that_mean_something_elsewhere():
    ids = ["E", "I", "S", "N", "O", "Q", "beta", "gamma", "zeta", "pi", "y", "p", "c", "f", "q"]
    rates = {name: ("1", f"-{name}*lam") for name in ids}
    model = small("names", rates, {"lam": 2.0, "d": 1.0, "exp_1": 1.0}, {"hill_1": "E*pi + y"})
    code = compile_model(model)
    y = np.arange(1.0, len(ids) + 1)
    assert code.rates(y, nominal(model)) == pytest.approx(-2 * y)
    assert code.quantities(y[None], nominal(model))[0, 0] == y[0] * y[9] + y[10]


def test_numbers_keep_every_digit():
    number = 0.12345678901234567
    model = small("digits", {"A": ("0", f"{number!r}*A"), "B": ("0", "1/3")}, {})
    rates = compile_model(model).rates(np.ones(2), np.zeros(0))
    assert rates.tolist() == [number, 1 / 3]


OF_NUMBERS = {
    "-ln(2)/h*A": -math.log(2) / 2,
    "-sqrt(2)*A": -math.sqrt(2),
    "-exp(-1)*A": -math.exp(-1),
    "-exp(1)*A/E": -math.e / 3,
    "-exp(A/A)*A/E": -math.e / 3,
    "-2^-h*A": -0.25,
    "-2^0.5*A": -math.sqrt(2),
    "-2^(0*A)*A": -1.0,
    "-hill(1, 2, 3)*A": -1 / 9,
    "-hill(2 - 1, half, 3)*A": -8 / 9,
    "-hill(half, 2, h)*A": -1 / 17,
    "-(-2)^2*A": -4.0,
    "-ln(half*4)*A": -math.log(2),
    "(-1)^n*A": -1.0,
    "(-h)^n*A/8": -1.0,
    "-hill(2, h*exp(0), -3)*A": -0.5,
}


@pytest.mark.parametrize("rate", OF_NUMBERS)
@pytest.mark.parametrize("method", ["Rosenbrock", "LSODA"])
def test_a_function_of_numbers_alone(rate, method):
    """And of a parameter whose name is a constant of sympy."""
    values = {"h": 2.0, "E": 3.0, "n": 3.0}
    model = small(
        "numbers", {"A": ("1", rate)}, values, {"half": "1/2", "seen": "reached(half, 1)"}
    )
    run = simulate(model, days=[0.0, 1.0], method=method, rtol=1e-10)
    assert run["A"][-1] == pytest.approx(math.exp(OF_NUMBERS[rate]), rel=1e-7)
    assert run["seen"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("ln(-1)", "ln(-1) has no real value"),
        ("ln(0)", "ln(0) has no real value"),
        ("sqrt(-2)", "sqrt(-2) has no real value"),
        ("(-2)^0.5", "(-2)^0.5 has no real value"),
        ("0^-1", "0^-1 has no real value"),
        ("2^1100", "2^1100 is too large for a number"),
        ("exp(1000)", "exp(1000) is too large for a number"),
        ("1e200*1e200", "is too large for a number"),
        ("hill(A, 0, 3)", "the second argument of hill must be above 0"),
        ("hill(A, 1 - 2, k)", "the second argument of hill must be above 0"),
        ("A/(1 - 1)", "divides by zero"),
        ("A*ln(0*A)", "divides by zero"),
        ("A/(k - k)", "divides by zero"),
        ("A/none", "divides by zero"),
        ("1e200*A*1e200", "a number too large"),
    ],
)
@pytest.mark.parametrize("place", ["rate", "quantity"])
def test_a_formula_without_a_value_is_one_error(formula, words, place):
    rate, quantity = (formula, "k") if place == "rate" else ("-k*A", formula)
    model = small("bad", {"A": ("1", rate)}, {"k": 1.0}, {"none": "2 - 2", "q": quantity})
    name = "A" if place == "rate" else "q"
    for method in ("Rosenbrock", "LSODA"):
        with pytest.raises(ModelError) as caught:
            simulate(model, days=[0.0, 1.0], method=method)
        assert str(caught.value).startswith(f"bad:0  {name}: ")
        assert words in str(caught.value)


@pytest.mark.parametrize("n", [-1000, -2, 1, 2, 4, 30, 1000, 5000, 2.5])
@pytest.mark.parametrize("level", [0.0, 1e-200, 0.5, 3.0, 1e200])
def test_hill_holds_for_any_exponent(n, level):
    model = small("steep", {"A": (f"{level!r}", f"hill(A, 1, {n})")}, {"k": 1.0},
                  {"h": f"hill(A, k, {n})"})  # fmt: skip
    for method in ("Rosenbrock", "LSODA"):
        run = simulate(model, days=[0.0], method=method)
        assert run["h"][0] == pytest.approx(primitives.hill(level, 1.0, n), rel=1e-12)


@pytest.mark.parametrize("x", [0.0, -1e-9, 1e-300, 1e-12, 0.3, 2.0, 1e12])
@pytest.mark.parametrize("n", [1.0, 1.7, 4.0])
def test_primitives_slopes(x, n):
    K, step = 0.8, 1e-6 * max(x, 1e-3)
    value = primitives.hill(x, K, n)
    slope = primitives.hill_slope(x, K, n, value)
    assert 0 <= value <= 1
    assert math.isfinite(slope)
    if x > 1e-3:
        ahead, behind = primitives.hill(x + step, K, n), primitives.hill(x - step, K, n)
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("rate", "error", "words"),
    [
        ("-k*B", UnknownNameError, "one:0  A  unknown name 'B'"),
        ("late_one", ModelError, "not defined yet"),
        ("A/0", ModelError, "divides by zero"),
        ("reached(A, k)*A", ModelError, "smooth form"),
    ],
)
def test_refused(rate, error, words):
    if "late" in rate:
        model = small(
            "one", {"A": ("0", "first_one")}, {"k": 1.0}, {"first_one": "late_one", "late_one": "k"}
        )
    elif "reached" in rate:
        model = small("one", {"A": ("0", "step*A")}, {"k": 1.0}, {"step": "reached(A, k)"})
    else:
        model = small("one", {"A": ("0", rate)}, {"k": 1.0})
    with pytest.raises(error, match=words):
        generate(model)


def test_initial_values_may_use_quantities_of_parameters():
    model = small("start", {"A": ("2*half", "-k*A")}, {"k": 3.0}, {"half": "k/2"})
    assert compile_model(model).initial(np.array([3.0]))[0] == 3.0
    bad = small("start", {"A": ("2*half", "-k*A")}, {"k": 3.0}, {"half": "A/2"})
    with pytest.raises(ModelError, match="not defined yet"):
        generate(bad)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(codegen, "KNOWN", {})
    return tmp_path / "cache"


def test_cache_is_used_and_survives_corruption(fresh, monkeypatch):
    compile_model(ONE)
    (file,) = fresh.glob("*.py")
    codegen.KNOWN.clear()
    file.write_text(file.read_text()[:-40])
    compile_model(ONE)
    assert codecache.is_intact(file)
    codegen.KNOWN.clear()
    monkeypatch.setattr(codegen, "write_source", lambda *a, **k: pytest.fail("again"))
    compile_model(ONE)


def test_cache_folder_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("CRS_SIM_CACHE", str(blocked))
    monkeypatch.setattr(codegen, "KNOWN", {})
    assert compile_model(ONE).initial(np.array([0.7])).tolist() == [0.0, 0.0]


def test_two_processes_generate_at_once(fresh):
    script = (
        "from small_models import LOOP; from crs_sim.model.codegen import compile_model\n"
        "import numpy as np; print(compile_model(LOOP).rates(np.ones(4), "
        "np.array([p.value for p in LOOP.parameters])).tolist())"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=PATIENCE)[0] for process in both}
    assert len(answers) == 1
    assert "[" in answers.pop()
    assert not list(fresh.glob("*.part"))
