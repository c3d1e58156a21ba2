"""The house: import order is the table in crs_sim/__init__.py, and each library has one door."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import crs_sim

PACKAGE = Path(crs_sim.__file__).parent
LISTED = re.findall(r"^(\w+)\.py  ", crs_sim.__doc__ or "", re.MULTILINE)
FILES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
FIGURES = {"panels", "diagnostics", "plots", "profileplots", "bandplots", "report",
           "posteriorplots", "predictiveplots", "posteriorreport", "comparisonplots",
           "sensitivityplots", "searchplots", "populationplots"}  # fmt: skip
COMMANDS = {"cli_models", "cli_profile", "cli_predict",
            "cli_population", "cli_sample", "cli_fit", "cli_sensitivity",
            "cli_search", "cli_options", "progress"}  # fmt: skip
DOORS = {
    "pint": {"units"},
    "openpyxl": {"workbook"},
    "pydantic": {"tables"},
    "antimony": {"modelfile"},
    "libsbml": {"modelfile"},
    "sympy": {"symbolic"},
    "numba": {"steploop"},
    "llvmlite": {"machinecode", "steploop"},
    "scipy.integrate": {"odesolver"},
    "lmfit": {"descents"},
    "matplotlib": FIGURES,
    "click": {"cli", *COMMANDS},
    "rich": {"cli", "cli_search", "progress"},
    "emcee": {"sampler"},
    "arviz_stats": {"convergence"},
    "SALib": {"indices"},
    "optuna": {"optimiser"},
    "pyarrow": {"parquet"},
    "dask": {"cluster"},
    "distributed": {"cluster"},
}


@cache
def nodes(file: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse((PACKAGE / f"{file}.py").read_text(encoding="utf-8"))))


@cache
def imported(file: str) -> tuple[set[str], set[str]]:
    """Files of this package, and other modules, that a file imports anywhere in it."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            ours |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            others |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return ours & set(FILES), others


def test_table_lists_every_file_once():
    assert sorted(LISTED) == FILES


@pytest.mark.parametrize("file", FILES)
def test_imports_only_files_above(file):
    ours, others = imported(file)
    assert ours <= set(LISTED[: LISTED.index(file)])
    assert not any(other.split(".")[0] == "crs_sim" for other in others)


@pytest.mark.parametrize("library", DOORS)
def test_library_has_one_door(library):
    users = {
        file for file in FILES
        if any(f"{other}.".startswith(f"{library}.") for other in imported(file)[1])
    }  # fmt: skip
    assert users == DOORS[library] & set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_no_star_imports(file):
    assert not any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
                   for node in nodes(file))  # fmt: skip
