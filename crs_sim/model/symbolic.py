"""A model's formulas as sympy expressions, their derivatives and their constant subexpressions.

The only module that imports sympy. Symbols are created explicitly, never parsed from text: E, I, S,
N, beta and gamma have a meaning in sympy. Hill terms and powers are custom functions whose
derivatives are safe at zero.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from ..errors import ModelError, unknown_name
from . import formula
from .model import Model, Symbol

Expression = Any
"""A sympy expression; sympy has no useful type annotations."""
Line = tuple[Expression, Expression]
"""An assignment: a symbol and its expression."""

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


class Reached(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.reached`: a step, flat on both sides."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """Zero: the derivative of a step on either side."""
        return sympy.S.Zero


class LogRatio(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.log_ratio`."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """1/x by x, -1/K by K."""
        return 1 / self.args[0] if argindex == 1 else -1 / self.args[1]


class Positive(sympy.Function):  # type: ignore[misc]
    """Symbol for ``max(x, 0)``."""

    nargs = 1


class HillSlope(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.hill_slope`."""

    nargs = 4


class Hill(sympy.Function):  # type: ignore[misc]
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


class PowerSlope(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.power_slope`."""

    nargs = 3


class Power(sympy.Function):  # type: ignore[misc]
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


def name_of(call: Expression) -> str:
    """The function's name in generated code."""
    return PRINTED.get(type(call), type(call).__name__)


def number(value: float) -> Expression:
    """A number of a formula as sympy's; whole numbers as integers, so that x^2 is a product."""
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Float(value, 17)


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
    quantities = {}
    for quantity in model.quantities:
        quantities[quantity.id] = _expression(model, quantity, quantity.formula, symbols, known)
        known.add(quantity.id)
        if formula.names(quantity.formula) & varying:
            varying.add(quantity.id)
    constant = tuple(n for n in model.quantity_ids if n not in varying)
    rates = {s.id: _expression(model, s, s.rate, symbols, known) for s in model.states}
    start = {*model.parameter_ids, *constant}
    initial = {s.id: _expression(model, s, s.initial, symbols, start) for s in model.states}
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
    model: Model, owner: Symbol, text: str, symbols: dict[str, sympy.Symbol], known: set[str]
) -> Expression:
    where = f"{model.path or model.name}:{owner.line}  {owner.id}:"
    for name in sorted(formula.names(text) - known):
        if name in symbols:
            raise ModelError(f"{where} {text!r} uses {name}, which is not defined yet here")
        raise unknown_name("name", name, known, where.removesuffix(":"))
    result = sympy.sympify(formula.evaluate(text, symbols, SYMBOLIC, number))
    if result.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ModelError(f"{where} {text!r} divides by zero for all values")
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


@dataclass
class ConstantHoisting:
    """Hoists subexpressions that depend on parameters alone, to be computed once per segment.

    ``fixed`` are the constant symbols. Each hoisted part, single parameters too, becomes the next
    entry of the array ``c``, formatted by ``at``. Hill terms with an integer exponent also become
    plain products, powers of a constant exponentials.
    """

    fixed: set[Expression]
    at: Callable[[str, int], str]
    parts: dict[Expression, Expression] = field(default_factory=dict)

    def lines(self, lines: Iterable[Line]) -> tuple[list[Line], dict[Expression, Expression]]:
        """The lines with constants hoisted, and the symbols found to be constant."""
        kept: list[Line] = []
        known: dict[Expression, Expression] = {}
        for symbol, expression in lines:
            value = self.out_of(expression.xreplace(known))
            if value.is_Atom:
                known[symbol] = value
            else:
                kept.append((symbol, value))
        return kept, known

    def out_of(self, expression: Expression) -> Expression:
        """The expression with every constant part replaced by a symbol."""
        if expression.free_symbols <= self.fixed:
            return self._constant(expression)
        if expression.is_Atom:
            return expression
        if isinstance(expression, Hill) and expression.args[2].is_Integer:
            expression = _plain_hill(*expression.args)
        if isinstance(expression, Power) and expression.args[0].free_symbols <= self.fixed:
            base, exponent = expression.args
            return sympy.exp(self._constant(sympy.log(base)) * self.out_of(exponent))
        if not (expression.is_Add or expression.is_Mul):
            return expression.func(*(self.out_of(a) for a in expression.args))
        fixed = [a for a in expression.args if a.free_symbols <= self.fixed]
        rest = [self.out_of(a) for a in expression.args if not a.free_symbols <= self.fixed]
        if fixed:
            rest.append(self._constant(expression.func(*fixed)))
        return expression.func(*rest)

    def _constant(self, expression: Expression) -> Expression:
        if expression.is_number or expression in self.parts.values():
            return expression
        if expression not in self.parts:
            symbol = sympy.Symbol(self.at("c", len(self.parts)))
            self.parts[expression] = symbol
            self.fixed.add(symbol)
        return self.parts[expression]


def _plain_hill(x: Expression, K: Expression, n: Expression) -> Expression:
    """A Hill term with an integer exponent, without a power function: z/(1 + z), z = (x/K)^n."""
    z = (Positive(x) / K) ** n
    return z / (1 + z)
