"""The written-out LU against numpy, on random patterns."""

from __future__ import annotations

import numpy as np
import pytest

from crs_sim.model.source_code import elimination, factor_lines, solve_lines


def written(array, k):
    return f"{array}[{k}]"


@pytest.mark.parametrize("size", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("seed", range(4))
def test_solves_like_numpy(size, seed):
    rng = np.random.default_rng(seed)
    entries = [(i, j) for i in range(size) for j in range(size) if rng.random() < 0.15]
    steps = elimination(size, entries)
    names = {"d": 9.0, "a": np.empty(steps.size), "f": rng.normal(size=size)}
    values = rng.normal(size=len(steps.entries))
    matrix = np.zeros((size, size))
    for (i, j), value in zip(steps.entries, values, strict=True):
        matrix[i, j] = value
    names["a"][: len(values)] = values
    b = names["f"].copy()
    lines = factor_lines(steps, written) + solve_lines(steps, written)
    exec("\n".join(lines), names)
    assert names["f"] == pytest.approx(np.linalg.solve(9 * np.eye(size) - matrix, b), rel=1e-9)


def test_a_chain_fills_in_nothing():
    chain = [(i, i - 1) for i in range(1, 40)] + [(i, i) for i in range(40)]
    assert len(elimination(40, chain).filled) == len(chain)


def test_an_arrow_is_eliminated_from_its_tips():
    arrow = [(0, k) for k in range(1, 20)] + [(k, 0) for k in range(1, 20)]
    assert len(elimination(20, arrow).filled) == len(arrow) + 20
