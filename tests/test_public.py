"""The public names: there, lazy, and showing themselves well."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_case import write_case

import crs_sim

SOURCE = Path(crs_sim.__file__)
PROMISED = {
    "load_model", "load_patient", "load_problem", "load_run", "simulate", "fit", "Dose", "Schedule",
    "Change", "Scenario", "Model", "Simulation", "peak", "day_of_peak", "auc", "days_above",
    "worst_grade", "vasopressor_days",
}  # fmt: skip


@pytest.mark.parametrize("name", crs_sim.__all__)
def test_public_name_is_there_and_documented(name):
    value = getattr(crs_sim, name)
    assert value.__doc__


def test_promised_names_are_public():
    assert set(crs_sim.__all__) >= PROMISED
    assert set(crs_sim.__all__) <= set(dir(crs_sim))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(SOURCE.with_suffix(".pyi").read_text(encoding="utf-8"))
    seen = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom)
            for alias in node.names}  # fmt: skip
    assert seen | {"__version__"} == set(crs_sim.__all__)


def test_import_does_nothing():
    code = (
        "import sys, crs_sim\n"
        "print([m for m in sys.modules if m.startswith('crs_sim.') or m == 'numpy'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE.parent.parent, text=True,
                          capture_output=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"attribute simulat$"):
        crs_sim.simulat  # noqa: B018


def test_version_is_a_text():
    assert crs_sim.__version__[0].isdigit()


def test_five_lines_and_their_reprs(tmp_path):
    folder = write_case(tmp_path)
    model = crs_sim.load_model(folder / "model")
    case = crs_sim.load_patient(folder / "data")
    run = crs_sim.simulate(model, case.scenario, until=10)
    problem = crs_sim.load_problem(folder / "fit")
    best = crs_sim.fit(problem, starts=1, workers=1)
    stored = crs_sim.load_run(crs_sim.save_run(best, tmp_path / "fit"), model)

    assert repr(model).startswith("Model('tiny': 1 states, 7 parameters, 3 quantities, hash ")
    assert repr(case) == "Patient('tiny': 5 doses of 1 drugs, 11 observations)"
    assert repr(run).startswith("Simulation('tiny', 'tiny': 41 days 0 to 10, 5 doses")
    assert repr(best).startswith("Fit('tiny': 2 parameters, 11 observations, cost ")
    assert crs_sim.worst_grade(run) == 4
    assert crs_sim.peak(run, "amount") == pytest.approx(10, rel=1e-9)
    assert stored.values == pytest.approx(best.values)
    assert list(run.table())[:2] == ["day", "A"]
    for thing in (problem, stored):
        assert type(thing).__name__ in repr(thing)


def test_no_public_name_is_a_file_of_the_package():
    """Importing the file would put it in the name's place."""
    files = {path.stem for path in SOURCE.parent.glob("*.py")}
    assert not files & set(crs_sim.__all__)
