"""Dimensional analysis: the unit of a formula's value.

Units are propagated without conversion. Where one would be needed (in a sum, an argument, an
exponent), the result without units would be wrong, so it is an error in the formula: a wrong
dimension, or a hidden factor such as 1000.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .errors import UnitError
from .formula import parse
from .units import ONE, Unit, difference, same, show


def terms(text: str) -> list[str]:
    """The terms of a formula that is a sum.

    >>> terms("k*MAC - d*(a + b)")
    ['k*MAC', 'd*(a + b)']
    """
    return [_written(node) for node in _summands(parse(text))]


def formula_unit(text: str, units: Mapping[str, Unit]) -> Unit | None:
    """The unit of a formula's value; None for a plain 0, which fits any unit.

    Parameters
    ----------
    text : the formula; literal numbers are dimensionless
    units : unit of each name in it

    Raises
    ------
    UnitError
        Naming the part, its unit, and the unit it needs.

    Examples
    --------
    >>> from crs_sim.units import read_unit
    >>> show(formula_unit("dose/V", {"dose": read_unit("mg"), "V": read_unit("mL")}))
    'mg/mL'
    """
    return _unit_of(parse(text), units)


def _written(node: ast.expr) -> str:
    text = ast.unparse(node).replace(" ** ", "^")
    return text.replace(" * ", "*").replace(" / ", "/")


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return _summands(node.left) + _summands(node.right)
    return [node]


def _unit_of(node: ast.expr, units: Mapping[str, Unit]) -> Unit | None:
    if isinstance(node, ast.Constant):
        return None if node.value == 0 else ONE
    if isinstance(node, ast.Name):
        return units[node.id]
    if isinstance(node, ast.UnaryOp):
        return _unit_of(node.operand, units)
    if isinstance(node, ast.Call):
        return _call_unit(node, units)
    assert isinstance(node, ast.BinOp)
    if isinstance(node.op, ast.Add | ast.Sub):
        return _alike(_summands(node), units)
    if isinstance(node.op, ast.Pow):
        return _power_unit(node, units)
    left, right = _unit_of(node.left, units), _unit_of(node.right, units)
    if left is None or right is None:
        return None
    return left * right if isinstance(node.op, ast.Mult) else left / right


def _alike(nodes: list[ast.expr], units: Mapping[str, Unit]) -> Unit | None:
    first, unit = nodes[0], None
    for node in nodes:
        found = _unit_of(node, units)
        if unit is None:
            first, unit = node, found
        elif found is not None and not same(found, unit):
            raise UnitError(
                f"{_written(node)} is {show(found)}, but {_written(first)} beside it is "
                f"{show(unit)} ({difference(found, unit)})"
            )
    return unit


def _power_unit(node: ast.BinOp, units: Mapping[str, Unit]) -> Unit | None:
    base, exponent = _unit_of(node.left, units), _literal(node.right)
    _plain(node.right, units, f"the exponent of {_written(node)}")
    if base is None:
        return None
    if exponent is not None and exponent == int(exponent):
        return base ** int(exponent)
    _plain(node.left, units, f"the base of {_written(node)}, whose exponent is not an integer,")
    return ONE


def _literal(node: ast.expr) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _literal(node.operand)
        return None if inner is None else -inner
    return float(node.value) if isinstance(node, ast.Constant) else None  # type: ignore[arg-type]


def _plain(node: ast.expr, units: Mapping[str, Unit], what: str) -> None:
    unit = _unit_of(node, units)
    if unit is not None and not same(unit, ONE):
        raise UnitError(
            f"{what} must be a plain number, and {_written(node)} is {show(unit)} "
            f"({difference(unit, ONE)})"
        )


def _call_unit(node: ast.Call, units: Mapping[str, Unit]) -> Unit | None:
    name = node.func.id  # type: ignore[attr-defined]
    if name == "sqrt":
        unit = _unit_of(node.args[0], units)
        return None if unit is None else unit**0.5
    if name in ("exp", "ln"):
        _plain(node.args[0], units, f"the argument of {name}")
        return ONE
    _alike(node.args[:2], units)
    if name == "hill":
        _plain(node.args[2], units, f"the exponent of {_written(node)}")
    return ONE
