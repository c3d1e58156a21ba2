"""A formula as text: parsed, its names found, evaluated; and the scalar functions it may call.

The functions are safe at zero, where a cytokine may be: generated code calls them too.

A solver may evaluate a concentration at 0 or slightly below. There ``x**n`` differentiated as
``n*x**n/x`` divides by zero, so values and derivatives are written out here. Only ``math`` is used:
the same source runs as Python and is compiled by `crs_sim.solver.kernel`.

Python's parser reads it (``^`` is power). Only listed operators and functions are allowed, so that
units, derivatives and listings work for every formula. Names have no meaning here.
"""

from __future__ import annotations

import ast
import copy
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import ModelError

__all__ = [
    "hill",
    "hill_slope",
    "log_ratio",
    "positive",
    "power",
    "power_slope",
    "reached",
]


def hill(x: float, K: float, n: float) -> float:
    """Saturation ``x^n/(K^n + x^n)``; 0 for x <= 0, without overflow for any x > 0.

    >>> hill(2.0, 2.0, 3.0), hill(0.0, 2.0, 3.0), hill(1e-300, 2.0, 3.0)
    (0.5, 0.0, 0.0)
    """
    if x <= 0.0:
        return 0.0
    if x < K:
        small = math.pow(x / K, n)
        return small / (1.0 + small)
    return 1.0 / (1.0 + math.pow(K / x, n))


def hill_slope(x: float, K: float, n: float, h: float) -> float:
    """Derivative of `hill` in x, given its value ``h``; at x = 0 the right derivative.

    Where the right derivative is infinite (n < 1), it is 0.

    >>> hill_slope(2.0, 2.0, 1.0, 0.5), hill_slope(0.0, 2.0, 1.0, 0.0)
    (0.125, 0.5)
    >>> hill_slope(0.0, 2.0, 2.5, 0.0)
    0.0
    """
    if x > 0.0:
        return n * h * (1.0 - h) / x
    if x == 0.0 and n == 1.0:
        return 1.0 / K
    return 0.0


def log_ratio(x: float, K: float) -> float:
    """``ln(x/K)``, and 0 for x <= 0, where it is always multiplied by zero.

    >>> log_ratio(3.0, 3.0), log_ratio(0.0, 3.0)
    (0.0, 0.0)
    """
    if x <= 0.0:
        return 0.0
    return math.log(x / K)


def positive(x: float) -> float:
    """The larger of x and 0.

    >>> positive(2.0), positive(-1.0)
    (2.0, 0.0)
    """
    return x if x > 0.0 else 0.0


def power(x: float, n: float) -> float:
    """``x^n``; 0 where it is not real (x < 0 and n not an integer).

    >>> power(4.0, 0.5), power(-2.0, 3.0), power(-1e-9, 0.5)
    (2.0, -8.0, 0.0)
    """
    if x < 0.0 and n != math.floor(n):
        return 0.0
    return math.pow(x, n)


def power_slope(x: float, n: float, value: float) -> float:
    """Derivative of `power` in x, given its value; at x = 0 it is 1 for n = 1 and 0 otherwise.

    >>> power_slope(3.0, 2.0, 9.0), power_slope(0.0, 2.0, 0.0), power_slope(0.0, 1.0, 0.0)
    (6.0, 0.0, 1.0)
    """
    if x != 0.0:
        return n * value / x
    return 1.0 if n == 1.0 else 0.0


def reached(x: float, level: float) -> float:
    """1 where ``x`` is at or above ``level``, else 0.

    >>> reached(2.0, 2.0), reached(1.0, 2.0)
    (1.0, 0.0)
    """
    return 1.0 if x >= level else 0.0


OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": math.exp,
    "ln": math.log,
    "sqrt": math.sqrt,
    "hill": hill,
    "reached": reached,
}
ARITY = {"exp": 1, "ln": 1, "sqrt": 1, "hill": 3, "reached": 2}


@lru_cache(maxsize=4096)
def parse(text: str) -> ast.expr:
    """The syntax tree of a formula.

    Raises
    ------
    ModelError
        If the text is not a formula, or uses an operator or function outside the dialect.
    """
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
    except SyntaxError as error:
        raise ModelError(f"{text!r} is not a formula: {error.msg}") from None
    for node in ast.walk(tree):
        _check_node(node, text)
    return tree


def _check_node(node: ast.AST, text: str) -> None:
    allowed = (ast.BinOp, ast.UnaryOp, ast.Name, ast.Constant, ast.Call, ast.expr_context)
    is_operator = type(node) in OPERATORS or isinstance(node, ast.USub | ast.UAdd)
    if not (isinstance(node, allowed) or is_operator):
        raise ModelError(f"{text!r} uses {type(node).__name__}: only + - * / ^ and functions")
    if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
        raise ModelError(f"{text!r} holds {node.value!r}, which is not a number")
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else "?"
        if name not in FUNCTIONS:
            raise ModelError(f"{text!r} calls {name!r}: known are {', '.join(sorted(FUNCTIONS))}")
        if len(node.args) != ARITY[name] or node.keywords:
            raise ModelError(f"{text!r}: {name} takes {ARITY[name]} arguments")


def numbers(text: str) -> frozenset[float]:
    """The numbers written in a formula.

    >>> sorted(numbers("a*hill(x, K, 2)^0.75"))
    [0.75, 2.0]
    """
    found = (n.value for n in ast.walk(parse(text)) if isinstance(n, ast.Constant))
    return frozenset(float(value) for value in found if isinstance(value, int | float))


def names(text: str) -> frozenset[str]:
    """The symbols a formula uses, without functions.

    >>> sorted(names("a*hill(x, K, 2)"))
    ['K', 'a', 'x']
    """
    found = {n.id for n in ast.walk(parse(text)) if isinstance(n, ast.Name)}
    return frozenset(found - set(FUNCTIONS))


def functions(text: str) -> frozenset[str]:
    """The functions a formula calls."""
    calls = (n for n in ast.walk(parse(text)) if isinstance(n, ast.Call))
    return frozenset(call.func.id for call in calls if isinstance(call.func, ast.Name))


class _Substitution(ast.NodeTransformer):
    """Substitutes formulas for names; function names are kept."""

    def __init__(self, formulas: Mapping[str, str]) -> None:
        self.formulas = formulas

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(argument) for argument in node.args]
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        # a copy of each tree: parse caches its own
        return copy.deepcopy(parse(self.formulas[node.id])) if node.id in self.formulas else node


def replaced(text: str, formulas: Mapping[str, str]) -> str:
    """The formula with some of its names substituted by formulas.

    >>> replaced("a*hill(x, K, 2)", {"x": "y + z", "K": "K_now"})
    'a * hill(y + z, K_now, 2)'
    """
    if not names(text) & formulas.keys():
        return text
    tree = _Substitution(formulas).visit(copy.deepcopy(parse(text)))
    return ast.unparse(tree).replace(" ** ", "^")


def evaluate(
    text: str,
    values: Mapping[str, Any],
    functions: Mapping[str, Callable[..., Any]] = FUNCTIONS,
    number: Callable[[float], Any] = float,
) -> Any:
    """The value of a formula, in the arithmetic of ``values`` (floats, pint, sympy).

    >>> evaluate("a*x^2", {"a": 3.0, "x": 2.0})
    12.0
    """
    return fold(parse(text), values, functions, number)


def fold(
    node: ast.expr,
    values: Mapping[str, Any],
    functions: Mapping[str, Callable[..., Any]],
    number: Callable[[float], Any],
) -> Any:
    """The value of a syntax tree; see `evaluate`."""
    if isinstance(node, ast.Constant):
        return number(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp):
        inner = fold(node.operand, values, functions, number)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        left = fold(node.left, values, functions, number)
        right = fold(node.right, values, functions, number)
        return OPERATORS[type(node.op)](left, right)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    arguments = [fold(a, values, functions, number) for a in node.args]
    return functions[node.func.id](*arguments)
