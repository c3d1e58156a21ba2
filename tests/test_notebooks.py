"""The notebooks run from top to bottom, without a Jupyter kernel."""

from __future__ import annotations

import ast
import json

import pytest
from paths import ROOT, tracked

NAMES = ("01_simulate", "02_fit", "03_new_patient", "04_compare")


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) >= 4
    names: dict[str, object] = {}
    for number, source in enumerate(sources):
        tree = ast.parse(source)
        shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, cell {number}", "exec"), names)
        if shown is not None:  # what a notebook would show must be able to show itself
            value = eval(compile(ast.Expression(shown.value), name, "eval"), names)
            assert repr(value)
            if hasattr(value, "_repr_png_"):
                assert value._repr_png_()


def test_every_notebook_is_tested_and_kept_without_output():
    paths = tracked("notebooks/*.ipynb")
    assert tuple(path.stem for path in paths) == NAMES
    for path in paths:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells)
