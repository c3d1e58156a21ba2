"""Traced functions against plain Python, on ordinary numbers and at the edges."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from crs_sim.model import formula as primitives
from crs_sim.solver import machine_code as machinecode
from crs_sim.solver.machine_code import Machine, object_file


def run(function, columns, tmp_path, monkeypatch):
    """Trace, compile and run a function of rows 0, 1, ... into row 9."""
    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path))
    machine = Machine("test", lambda: object_file(machinecode.assemble([function])))
    (address,) = machine.addresses([function.__name__])
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    w = np.zeros((10, machinecode.LANES))
    w[: len(columns)] = columns
    call(w.ctypes.data)
    return w[9]


@pytest.mark.parametrize("x", [[-700, -1.5, 1e-9, 0.3], [1.0, 20.5, 700.0, -0.0]])
def test_exp(x, tmp_path, monkeypatch):
    def exp(w):
        w[9] = machinecode.exp(w[0])

    assert run(exp, [x], tmp_path, monkeypatch) == pytest.approx(np.exp(x), rel=5e-16)


@pytest.mark.parametrize("x", [[1e-300, 1e-9, 0.7, 1.0], [1.4142135, 1.4142136, 3.0, 1e300]])
def test_log(x, tmp_path, monkeypatch):
    def log(w):
        w[9] = machinecode.log(w[0])

    assert run(log, [x], tmp_path, monkeypatch) == pytest.approx(np.log(x), rel=5e-16, abs=5e-16)


def test_exp_and_log_at_the_edges(tmp_path, monkeypatch):
    def exp(w):
        w[9] = machinecode.exp(w[0])

    def log(w):
        w[9] = machinecode.log(w[0])

    low, high, infinite, unknown = run(exp, [[-1e9, 1e9, np.inf, np.nan]], tmp_path, monkeypatch)
    assert 0 <= low < 1e-300
    assert min(high, infinite) > 1e300
    assert math.isnan(unknown)
    monkeypatch.undo()
    zero, below, unknown, _ = run(log, [[0, -1, np.nan, 1]], tmp_path / "other", monkeypatch)
    assert zero == -np.inf
    assert math.isnan(below)
    assert math.isnan(unknown)


@pytest.mark.parametrize("name", ["hill", "power", "log_ratio", "reached"])
@pytest.mark.parametrize("n", [1.0, 1.7, 3.0])
def test_as_the_primitives(name, n, tmp_path, monkeypatch):
    x = np.array([-1e-9, 0.0, 0.4, 30.0])

    def traced(w):
        arguments = [w[0], w[1], w[2]] if name == "hill" else [w[0], w[2]]
        w[9] = getattr(machinecode, name)(*arguments)

    plain = [
        getattr(primitives, name)(v, *([0.8, n] if name == "hill" else [n])) for v in x.tolist()
    ]
    found = run(traced, [x, [0.8] * 4, [n] * 4], tmp_path, monkeypatch)
    assert found == pytest.approx(plain, rel=1e-14, abs=1e-8 if name == "power" else 0)


@pytest.mark.parametrize("n", [1.0, 1.7, 3.0])
def test_slopes_as_the_primitives(n, tmp_path, monkeypatch):
    x = np.array([-1e-9, 0.0, 0.4, 30.0])
    h = [primitives.hill(v, 0.8, n) for v in x.tolist()]

    def traced(w):
        w[9] = machinecode.hill_slope(w[0], w[1], w[2], w[3])

    plain = [primitives.hill_slope(v, 0.8, n, k) for v, k in zip(x.tolist(), h, strict=True)]
    found = run(traced, [x, [0.8] * 4, [n] * 4, h], tmp_path, monkeypatch)
    assert found == pytest.approx(plain, rel=1e-14)


def test_arithmetic_sweep_and_call(tmp_path, monkeypatch):
    def double(w):
        w[9] = -(2 * w[0] - 1) / (1 - w[1]) + 3 / w[1] - w[0]

    def twice(w):
        w.sweep(3, lambda row: row.__setitem__(4, row[0] * 10.0))
        w.call("double")

    monkeypatch.setenv("CRS_SIM_CACHE", str(tmp_path))
    machine = Machine("pair", lambda: object_file(machinecode.assemble([double, twice])))
    (address,) = machine.addresses(["twice"])
    w = np.arange(40.0).reshape(10, 4) + 2
    a, b = w[0].copy(), w[1].copy()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(w.ctypes.data)
    assert w[4:7] == pytest.approx(10 * w[0:3])
    assert w[9] == pytest.approx(-(2 * a - 1) / (1 - b) + 3 / b - a)
