"""The house, as far as import-linter does not hold it: reading order, sizes, one door for SciPy's
solvers. Layers, doors of rooms and doors of libraries are contracts in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT

import crs_sim

PACKAGE = Path(crs_sim.__file__).parent
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path.stem not in ("__init__", "__main__")]
"""All but the doors, which only name what is elsewhere."""
MOST_FILES, MOST_LINES, MOST_BODY, MOST_ARGUMENTS = 91, 400, 40, 7
SHORT_BODY, SHORT_SHARE = 25, 0.9


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def listed(package: Path) -> list[str]:
    """The entries of the table in a package's docstring, in their order."""
    return re.findall(
        r"^([\w.]+?)(?:\.py)?  ", ast.get_docstring(tree(package)) or "", re.MULTILINE
    )


def imported_files(path: Path) -> set[str]:
    """Files of its own room that a file imports anywhere in it."""
    return {
        name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for name in ([node.module] if node.module else [alias.name for alias in node.names])
    }


def functions() -> list[tuple[Path, ast.FunctionDef]]:
    return [(path, node) for path in MODULES for node in ast.walk(tree(path))
            if isinstance(node, ast.FunctionDef)]  # fmt: skip


def body_lines(function: ast.FunctionDef) -> int:
    documented = ast.get_docstring(function) is not None
    body = function.body[1:] if documented else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_layers_and_doors_are_kept():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_table_lists_every_room():
    assert sorted(listed(Path("__init__.py"))) == sorted(["errors", *ROOMS])


@pytest.mark.parametrize("room", ROOMS)
def test_room_lists_its_files_in_import_order(room):
    order = listed(Path(room, "__init__.py"))
    assert sorted(order) == sorted(path.stem for path in MODULES if path.parent.name == room)
    for place, name in enumerate(order):
        assert imported_files(Path(room, f"{name}.py")) <= set(order[:place]), name


def test_only_one_file_imports_the_solvers_of_scipy():
    users = [
        str(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scipy.integrate")
    ]
    assert users == [str(Path("solver", "ode_solver.py"))]


def test_files_and_functions_are_of_a_size_that_can_be_read_in_a_sitting():
    assert len(MODULES) <= MOST_FILES
    long = [path for path in FILES if len((PACKAGE / path).read_text().splitlines()) > MOST_LINES]
    assert not long
    bodies = {f"{path}:{node.name}": body_lines(node) for path, node in functions()}
    assert not [name for name, lines in bodies.items() if lines > MOST_BODY]
    assert sum(lines <= SHORT_BODY for lines in bodies.values()) >= SHORT_SHARE * len(bodies)


def test_argument_lists_are_short():
    counts = {f"{path}:{node.name}": len({a.arg for a in (*node.args.posonlyargs, *node.args.args,
              *node.args.kwonlyargs)} - {"self", "cls"}) for path, node in functions()}  # fmt: skip
    assert not [name for name, count in counts.items() if count > MOST_ARGUMENTS]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_star_imports(path):
    assert not any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
                   for node in ast.walk(tree(path)))  # fmt: skip
