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
