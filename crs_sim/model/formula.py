"""A formula as text: parsed, its names found, evaluated; and the scalar functions it may call.

The functions are safe at zero, where a cytokine may be: generated code calls them too.

A solver may evaluate a concentration at 0 or slightly below. There ``x**n`` differentiated as
``n*x**n/x`` divides by zero, so values and derivatives are written out here. Only ``math`` is used:
the same source runs as Python and is compiled by `crs_sim.solver.kernel`.

This is the only reader and the only printer of formulas. The grammar, loosest first::

    sum      product (("+" | "-") product)*
    product  signed (("*" | "/") signed)*
    signed   ("+" | "-") signed | power
    power    atom ["^" signed]                 a^b^c is a^(b^c), -a^b is -(a^b)
    atom     number | name | name "(" sum ("," sum)* ")" | "(" sum ")"

A number is digits with at most one point and an exponent; names have no meaning here. The list of
operators and functions is closed: units, derivatives and listings work for every formula.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
    if n < 0.0:
        # the same number, of powers that cannot overflow
        x, K, n = K, x, -n
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


SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": lambda x, n: power(x, n) if isinstance(x, float) and isinstance(n, float) else x**n,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": math.exp,
    "ln": math.log,
    "sqrt": lambda x: power(x, 0.5),
    "hill": hill,
    "reached": reached,
}
BINDING = {"+": (1, 1, 2, " + "), "-": (1, 1, 2, " - "), "*": (2, 2, 3, " * "),
           "/": (2, 2, 3, " / "), "^": (4, 5, 3, "^")}  # fmt: skip
"""How strongly a sign binds, its operands must at least, and how it is written."""
ARITY = {"exp": 1, "ln": 1, "sqrt": 1, "hill": 3, "reached": 2}
TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<name>[A-Za-z_]\w*)(?![\w.])|(?P<sign>[-+*/^(),])|(?P<other>[\w.]+|.)",
    re.ASCII | re.DOTALL,
)
DEEPEST, LONGEST = 50, 300
"""Brackets inside each other, and terms of one sum, that a formula may have."""


@dataclass(frozen=True)
class Tree:
    """A formula or a part of one.

    Parameters
    ----------
    kind : str, number, name, minus (a sign before ``parts``), sign (between two) or function
    head : str, the name, the sign (a key of `SIGNS`) or the function (a key of `FUNCTIONS`)
    parts : tuple of Tree, the operands or arguments
    value : float, of a number, which is never negative
    """

    kind: str
    head: str = ""
    parts: tuple[Tree, ...] = ()
    value: float = 0.0

    def everything(self) -> Iterator[Tree]:
        """The tree and every part of it."""
        yield self
        for part in self.parts:
            yield from part.everything()

    def changed(self, change: Callable[[Tree], Tree]) -> Tree:
        """With every part, from the innermost outwards, replaced by its change."""
        return change(replace(self, parts=tuple(part.changed(change) for part in self.parts)))

    def fold(self, values: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]],
             number: Callable[[float], Any]) -> Any:  # fmt: skip
        """Its value; see `evaluate`."""
        if self.kind == "number":
            return number(self.value)
        if self.kind == "name":
            return values[self.head]
        parts = [part.fold(values, functions, number) for part in self.parts]
        if self.kind == "minus":
            return -parts[0]
        return (functions if self.kind == "function" else SIGNS)[self.head](*parts)


# --- text to tree ---------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def parse(text: str) -> Tree:
    """The tree of a formula.

    Raises
    ------
    ModelError
        If the text is not a formula, or uses a number, operator or function outside the dialect.
    """
    return _Reader(text).whole()


def literal(text: str) -> float:
    """The value of digits with at most one point and an exponent.

    Raises
    ------
    ModelError
        For a number that is too large for a float, or so small that it would be 0.
    """
    value = float(text)
    if math.isinf(value):
        raise ModelError(f"{text} is not a finite number: the largest is 1.8e308")
    if value == 0.0 and re.search("[1-9]", re.split("[eE]", text)[0]):
        raise ModelError(f"{text} is so small a number that it would be read as 0")
    return value


class _Reader:
    """Reads one formula, a token at a time."""

    def __init__(self, text: str) -> None:
        self.text, self.depth = text, 0
        self.tokens = [m for m in TOKEN.finditer(text) if not m[0].isspace()][::-1]

    def error(self, what: str) -> ModelError:
        return ModelError(f"{self.text!r} is not a formula: {what}")

    def taken(self, *signs: str) -> str:
        """The next token if it is one of these signs, else ""."""
        return self.tokens.pop()[0] if self.tokens and self.tokens[-1][0] in signs else ""

    def whole(self) -> Tree:
        tree = self.sum()
        if self.tokens:
            raise self.unexpected("an operator")
        return tree

    def unexpected(self, needed: str) -> ModelError:
        """What to say of the next token."""
        if not self.tokens:
            return self.error(f"it ends where {needed} should be")
        token = self.tokens[-1]
        if not token["other"]:
            return self.error(f"{token[0]!r} stands where {needed} should be")
        if token[0][0] in ".0123456789":
            advice = "write digits with at most one point and an exponent, as 1000 or 2.5e-3"
            return ModelError(f"{self.text!r} holds {token[0]!r}, not a number: {advice}")
        return ModelError(f"{self.text!r} uses {token[0]!r}: only + - * / ^ and functions")

    def sum(self) -> Tree:
        return self.row(("+", "-"), self.product)

    def product(self) -> Tree:
        return self.row(("*", "/"), self.signed)

    def row(self, signs: tuple[str, ...], operand: Callable[[], Tree]) -> Tree:
        tree = operand()
        for _ in range(LONGEST):
            if not (sign := self.taken(*signs)):
                return tree
            tree = Tree("sign", sign, (tree, operand()))
        raise self.error(f"more than {LONGEST} operations in a row: name parts of it with :=")

    def inner(self, read: Callable[[], Tree]) -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} brackets, signs or powers inside each other")
        tree = read()
        self.depth -= 1
        return tree

    def signed(self) -> Tree:
        if sign := self.taken("+", "-"):
            tree = self.inner(self.signed)
            return Tree("minus", "-", (tree,)) if sign == "-" else tree
        base = self.atom()
        return Tree("sign", "^", (base, self.inner(self.signed))) if self.taken("^") else base

    def atom(self) -> Tree:
        if self.taken("("):
            return self.bracket(self.sum)
        if not self.tokens or not (self.tokens[-1]["number"] or self.tokens[-1]["name"]):
            raise self.unexpected("a number, a name or '('")
        token = self.tokens.pop()
        if token["number"]:
            return Tree("number", value=literal(token[0]))
        return self.call(token[0]) if self.taken("(") else Tree("name", token[0])

    def bracket(self, read: Callable[[], Tree]) -> Tree:
        tree = self.inner(read)
        if not self.taken(")"):
            raise self.unexpected("')'")
        return tree

    def call(self, name: str) -> Tree:
        if name not in FUNCTIONS:
            known = ", ".join(sorted(FUNCTIONS))
            raise ModelError(f"{self.text!r} calls {name!r}: known are {known}")

        tree = self.bracket(lambda: Tree("function", name, tuple(self.arguments())))
        if len(tree.parts) != ARITY[name]:
            raise ModelError(f"{self.text!r}: {name} takes {ARITY[name]} arguments")
        return tree

    def arguments(self) -> Iterator[Tree]:
        yield self.sum()
        while self.taken(","):
            yield self.sum()


# --- tree to text and value -----------------------------------------------------------------------


def written(tree: Tree, *, bracketed: bool = False) -> str:
    """A tree as text, which `parse` reads as that tree; ``bracketed`` for any other reader.

    >>> written(parse("(-2)^2*A - (b - c)")), written(parse("-a^2"), bracketed=True)
    ('(-2)^2 * A - (b - c)', '(-(a^2))')
    """
    return _written(tree, 0, bracketed)


def _written(tree: Tree, least: int, full: bool) -> str:
    """Text that binds at least so: 1 a sum, 2 a product, 3 a minus, 4 a power, 5 an atom."""
    if tree.kind == "number":
        whole = tree.value.is_integer() and tree.value < 1e15
        return f"{tree.value:.0f}" if whole else repr(tree.value)
    if tree.kind == "name":
        return tree.head
    if tree.kind == "function":
        return f"{tree.head}({', '.join(_written(part, 0, full) for part in tree.parts)})"
    if tree.kind == "minus":
        binds, text = 3, f"-{_written(tree.parts[0], 3, full)}"
    else:
        binds, before, after, sign = BINDING[tree.head]
        left, right = _written(tree.parts[0], before, full), _written(tree.parts[1], after, full)
        text = f"{left}{sign}{right}"
    return f"({text})" if full or binds < least else text


def numbers(text: str) -> frozenset[float]:
    """The numbers written in a formula.

    >>> sorted(numbers("a*hill(x, K, 2)^0.75"))
    [0.75, 2.0]
    """
    return frozenset(part.value for part in parse(text).everything() if part.kind == "number")


def names(text: str) -> frozenset[str]:
    """The symbols a formula uses, without functions.

    >>> sorted(names("a*hill(x, K, 2)"))
    ['K', 'a', 'x']
    """
    return frozenset(part.head for part in parse(text).everything() if part.kind == "name")


def functions(text: str) -> frozenset[str]:
    """The functions a formula calls."""
    return frozenset(part.head for part in parse(text).everything() if part.kind == "function")


def replaced(text: str, formulas: Mapping[str, str]) -> str:
    """The formula with some of its names substituted by formulas.

    >>> replaced("a*hill(x, K, 2)", {"x": "y + z", "K": "K_now"})
    'a * hill(y + z, K_now, 2)'
    """
    if not names(text) & formulas.keys():
        return text

    def change(part: Tree) -> Tree:
        known = part.kind == "name" and part.head in formulas
        return parse(formulas[part.head]) if known else part

    return written(parse(text).changed(change))


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
    return parse(text).fold(values, functions, number)
