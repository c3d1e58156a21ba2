"""A model's formulas as sympy expressions, and their derivatives.

The only module that imports sympy. Symbols are created explicitly, never parsed from text: E, I, S,
N, beta and gamma have a meaning in sympy. Hill terms and powers are custom functions whose
derivatives are safe at zero.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from ..errors import ModelError, unknown_name
from . import formula
from .dialect import folded
from .model import Model, Symbol

Expression = Any
"""A sympy expression; sympy has no useful type annotations."""
Line = tuple[Expression, Expression]
"""An assignment: a symbol and its expression."""
MOST_SQUARED = 1024
"""The largest whole number that sympy computes with exactly, and exponent of a plain product."""

PRIMITIVES = ("hill", "hill_slope", "log_ratio", "positive", "power", "power_slope", "reached")
RESERVED = {
    *"ypcfjdabqwlhs",
    "exp",
    "log",
    "square",
    "rates",
    "jacobian",
    "quantities",
    *PRIMITIVES,
}


class Primitive(sympy.Function):  # type: ignore[misc]
    """A function of `crs_sim.model.formula`; of numbers alone it is a number."""

    @classmethod
    def eval(cls, *args: Expression) -> Expression | None:
        """Its value, or None."""
        if not all(a.is_Number and a.is_finite for a in args):
            return None
        return number(getattr(formula, PRINTED[cls])(*map(float, args)))


class Reached(Primitive):
    """Symbol for `primitives.reached`: a step, flat on both sides."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """Zero: the derivative of a step on either side."""
        return sympy.S.Zero


class LogRatio(Primitive):
    """Symbol for `primitives.log_ratio`."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """1/x by x, -1/K by K."""
        return 1 / self.args[0] if argindex == 1 else -1 / self.args[1]


class Positive(Primitive):
    """Symbol for ``max(x, 0)``."""

    nargs = 1


class HillSlope(Primitive):
    """Symbol for `primitives.hill_slope`."""

    nargs = 4


class Hill(Primitive):
    """Symbol for `primitives.hill`, with derivatives that reuse its value."""

    nargs = 3

    def fdiff(self, argindex: int = 1) -> Expression:
        """By x, K or n."""
        x, K, n = self.args
        if argindex == 1:
            return HillSlope(x, K, n, self)
        if argindex == 2:
            return -n * self * (1 - self) / K
        return self * (1 - self) * LogRatio(x, K)


class PowerSlope(Primitive):
    """Symbol for `primitives.power_slope`."""

    nargs = 3


class Power(Primitive):
    """Symbol for `primitives.power`: a power whose exponent is not an integer."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """By the base or the exponent."""
        x, n = self.args
        return PowerSlope(x, n, self) if argindex == 1 else self * LogRatio(x, sympy.S.One)


PRINTED = {
    Positive: "positive",
    Hill: "hill",
    HillSlope: "hill_slope",
    LogRatio: "log_ratio",
    Power: "power",
    PowerSlope: "power_slope",
    Reached: "reached",
}
SYMBOLIC: dict[str, Callable[..., Any]] = {
    "exp": sympy.exp,
    "ln": sympy.log,
    "sqrt": lambda x: Power(x, sympy.Rational(1, 2)),
    "hill": Hill,
    "reached": Reached,
}


class _Printer(StrPrinter):  # type: ignore[misc]
    """Prints an expression as Python, with all digits of each number."""

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr))

    def _print_Function(self, expr: Any) -> str:
        return f"{name_of(expr)}({', '.join(self._print(a) for a in expr.args)})"


class _ProductPrinter(_Printer):
    """Prints integer powers by repeated squaring, which a compiler can vectorise (SIMD lanes)."""

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        base, exponent = expr.args
        if not exponent.is_Integer:
            return str(super()._print_Pow(expr, rational))
        if exponent < 0:
            return f"1.0/({self._print(base**-exponent)})"
        return _product(f"({self._print(base)})", int(exponent))


def _product(base: str, exponent: int) -> str:
    if exponent == 1:
        return base
    half = f"square({_product(base, exponent // 2)})"
    return half if exponent % 2 == 0 else f"({half}*{base})"


def text(expression: Expression, *, plain: bool = True) -> str:
    """An expression as Python; with ``plain=False``, integer powers as products."""
    printer = _Printer() if plain else _ProductPrinter()
    return str(printer.doprint(expression))


def calls(expression: Expression) -> Iterator[Expression]:
    """Every function call in an expression, in postorder."""
    nodes = sympy.postorder_traversal(expression)
    return (node for node in nodes if isinstance(node, sympy.Function))


def variable(name: str) -> Expression:
    """A symbol of this name."""
    return sympy.Symbol(name)


def exponential(x: Expression) -> Expression:
    """e^x."""
    return sympy.exp(x)


def logarithm(x: Expression) -> Expression:
    """Ln x."""
    return sympy.log(x)


def name_of(call: Expression) -> str:
    """The function's name in generated code."""
    return PRINTED.get(type(call), type(call).__name__)


def number(value: float) -> Expression:
    """A number of a formula as sympy's; whole ones as integers, so that x^2 is a product."""
    whole = float(value).is_integer() and abs(value) <= MOST_SQUARED
    return sympy.Integer(int(value)) if whole else sympy.Float(value, 17)


def computed(expression: Expression) -> Expression:
    """The expression with every part that holds no name as a number.

    sympy keeps ``exp(1)`` as a constant of its own and prints it as E, which may be a name.

    Raises
    ------
    ArithmeticError
        If such a part is not a finite real number.
    """
    if expression.is_Symbol:
        return expression
    parts = tuple(computed(part) for part in expression.args)
    if parts != expression.args:
        expression = expression.func(*parts)
    if expression.free_symbols or (expression.is_Rational and abs(expression) <= MOST_SQUARED):
        return expression
    value = expression.evalf(20)
    if not (value.is_real and math.isfinite(float(value))):
        raise ArithmeticError(f"{expression} is not a finite number")
    return value if expression.is_Number else number(float(value))


@dataclass(frozen=True)
class Equations:
    """A model's formulas as symbolic expressions, with a symbol for each name."""

    model: Model
    symbols: dict[str, sympy.Symbol]
    quantities: dict[str, Expression]
    rates: dict[str, Expression]
    initial: dict[str, Expression]
    constant: tuple[str, ...]

    def loads(self) -> dict[sympy.Symbol, str]:
        """The array element of each symbol: state y[i], parameter p[i], constant quantity c[i]."""
        model = self.model
        arrays = (("y", model.state_ids), ("p", model.parameter_ids), ("c", self.constant))
        return {self.symbols[n]: f"{a}[{k}]" for a, ids in arrays for k, n in enumerate(ids)}

    def used_by_rates(self) -> set[Expression]:
        """Symbols the rates depend on, directly or through quantities."""
        used = {s for rate in self.rates.values() for s in rate.free_symbols}
        for symbol, expression in reversed(self.varying()):
            if symbol in used:
                used |= expression.free_symbols
        return used

    def varying(self) -> list[Line]:
        """The quantities that depend on states, in model order."""
        return [(self.symbols[n], e) for n, e in self.quantities.items() if n not in self.constant]


def equations(model: Model) -> Equations:
    """Every formula of the model as an expression.

    Raises
    ------
    ModelError, UnknownNameError
        For an unknown name, a quantity that uses a later one, or a division by zero.
    """
    symbols = {name: sympy.Symbol(local) for name, local in _local_names(model).items()}
    known = {*model.parameter_ids, *model.state_ids}
    varying = set(model.state_ids)
    quantities: dict[str, Expression] = {}
    values: dict[str, Expression] = dict(symbols)
    for quantity in model.quantities:
        found = _expression(model, quantity, quantity.formula, values, known)
        quantities[quantity.id] = found
        if found.is_Number:
            values[quantity.id] = found
        known.add(quantity.id)
        if formula.names(quantity.formula) & varying:
            varying.add(quantity.id)
    constant = tuple(n for n in model.quantity_ids if n not in varying)
    rates = {s.id: _expression(model, s, s.rate, values, known) for s in model.states}
    start = {*model.parameter_ids, *constant}
    initial = {s.id: _expression(model, s, s.initial, values, start) for s in model.states}
    return Equations(model, symbols, quantities, rates, initial, constant)


def _local_names(model: Model) -> dict[str, str]:
    """A local variable name for each id: the id itself, unless generated code uses it."""
    taken = set(model.symbols)
    names = {}
    for name in model.symbols:
        local = name
        while local in RESERVED or keyword.iskeyword(local) or (local != name and local in taken):
            local += "_"
        taken.add(local)
        names[name] = local
    return names


def _expression(
    model: Model, owner: Symbol, text: str, values: Mapping[str, Expression], known: set[str]
) -> Expression:
    where = f"{model.path or model.name}:{owner.line}  {owner.id}:"
    for name in sorted(formula.names(text) - known):
        if name in values:
            raise ModelError(f"{where} {text!r} uses {name}, which is not defined yet here")
        raise unknown_name("name", name, known, where.removesuffix(":"))
    try:
        tree = folded(text)
        result = computed(sympy.sympify(tree.fold(values, SYMBOLIC, number)))
    except ModelError as error:
        raise ModelError(f"{where} {error}") from None
    except ArithmeticError:
        what = "divides by zero, or holds a number too large, for all values of its names"
        raise ModelError(f"{where} {text!r} {what}") from None
    return result.replace(
        lambda e: e.is_Pow and not e.exp.is_Integer, lambda e: Power(e.base, e.exp)
    )


class ChainRule:
    """Total derivatives by the chain rule through the quantities, as assignments."""

    def __init__(self, variables: Iterable[sympy.Symbol], taken: set[str]) -> None:
        """Differentiate by ``variables``; new symbols avoid the names in ``taken``."""
        self.variables = set(variables)
        self.taken = taken
        self.lines: list[Line] = []
        self.totals: dict[sympy.Symbol, dict[sympy.Symbol, Expression]] = {}

    def quantity(self, symbol: sympy.Symbol, expression: Expression) -> None:
        """Add a named quantity: its line, then a line for each derivative."""
        self.lines.append((symbol, expression))
        total = self.derivatives(symbol.name, expression)
        for by, value in total.items():
            total[by] = value if value.is_Atom else self._line(f"d_{symbol}_d_{by}", value)
        self.totals[symbol] = total

    def derivatives(self, name: str, expression: Expression) -> dict[sympy.Symbol, Expression]:
        """Non-zero total derivatives of an expression by the variables."""
        total: dict[sympy.Symbol, Expression] = {}
        for symbol in sorted(expression.free_symbols, key=lambda s: s.name):
            inner = (
                {symbol: sympy.S.One} if symbol in self.variables else self.totals.get(symbol, {})
            )
            slope = expression.diff(symbol) if inner else sympy.S.Zero
            if slope.is_zero:
                continue
            if len(inner) > 1 and not slope.is_Atom:
                slope = self._line(f"d_{name}_d_{symbol}", slope)
            for by, value in inner.items():
                total[by] = total.get(by, sympy.S.Zero) + slope * value
        return {by: value for by, value in total.items() if not value.is_zero}

    def _line(self, name: str, expression: Expression) -> sympy.Symbol:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.lines.append((sympy.Symbol(name), expression))
        return self.lines[-1][0]
