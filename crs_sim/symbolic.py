"""A model's formulas as symbols, their derivatives, and what of them is constant in a run.

The only door to sympy. Our own symbols go in, never text: E, I, S, N, beta and gamma would mean
something there. Hill terms and powers are functions of our own with derivatives that are safe at
zero.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from . import formula
from .errors import ModelError, unknown_name
from .model import Model, Symbol

Expression = Any
"""A sympy expression; sympy has no types to speak of."""
Line = tuple[Expression, Expression]
"""A symbol and what it stands for."""

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
        """Zero: the step itself has no slope worth following."""
        return sympy.S.Zero


class LogRatio(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.log_ratio`."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """1/x and -1/K."""
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
        """In x, K or n."""
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
    """Symbol for `primitives.power`: a power whose exponent is no whole number."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> Expression:
        """In the base or the exponent."""
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
    """Prints an expression as Python that loses no digit."""

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr))

    def _print_Function(self, expr: Any) -> str:
        return f"{name_of(expr)}({', '.join(self._print(a) for a in expr.args)})"


class _ProductPrinter(_Printer):
    """Prints whole powers as squares of squares: a compiler keeps those in its vector lanes."""

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
    """An expression as Python; not plain: without powers."""
    printer = _Printer() if plain else _ProductPrinter()
    return str(printer.doprint(expression))


def calls(expression: Expression) -> Iterator[Expression]:
    """Every function call in an expression, inner ones first."""
    nodes = sympy.postorder_traversal(expression)
    return (node for node in nodes if isinstance(node, sympy.Function))


def variable(name: str) -> Expression:
    """A symbol of our own."""
    return sympy.Symbol(name)


def name_of(call: Expression) -> str:
    """The name of the function a call calls."""
    return PRINTED.get(type(call), type(call).__name__)


def number(value: float) -> Expression:
    """A number of a formula: whole ones stay whole, so that x^2 is a product."""
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Float(value, 17)


@dataclass(frozen=True)
class Equations:
    """A model's formulas as symbolic expressions, every name our own symbol."""

    model: Model
    symbols: dict[str, sympy.Symbol]
    quantities: dict[str, Expression]
    rates: dict[str, Expression]
    initial: dict[str, Expression]
    constant: tuple[str, ...]

    def loads(self) -> dict[sympy.Symbol, str]:
        """Where each symbol comes from: state y[i], parameter p[i], constant quantity c[i]."""
        model = self.model
        arrays = (("y", model.state_ids), ("p", model.parameter_ids), ("c", self.constant))
        return {self.symbols[n]: f"{a}[{k}]" for a, ids in arrays for k, n in enumerate(ids)}

    def used_by_rates(self) -> set[Expression]:
        """Symbols the rates depend on, through quantities too."""
        used = {s for rate in self.rates.values() for s in rate.free_symbols}
        for symbol, expression in reversed(self.varying()):
            if symbol in used:
                used |= expression.free_symbols
        return used

    def varying(self) -> list[Line]:
        """The quantities that depend on states, in order."""
        return [(self.symbols[n], e) for n, e in self.quantities.items() if n not in self.constant]


def equations(model: Model) -> Equations:
    """Every formula of the model as an expression.

    Raises
    ------
    ModelError, UnknownNameError
        For a name that does not exist, a quantity that uses one below it, or a division by zero.
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
    """A local variable for each id: the id itself, unless generated code uses that name."""
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
            raise ModelError(f"{where} {text!r} uses {name}, which is not known yet at this place")
        raise unknown_name("name", name, known, where.removesuffix(":"))
    result = sympy.sympify(formula.evaluate(text, symbols, SYMBOLIC, number))
    if result.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ModelError(f"{where} {text!r} divides by zero whatever the values are")
    return result.replace(
        lambda e: e.is_Pow and not e.exp.is_Integer, lambda e: Power(e.base, e.exp)
    )


class Chain:
    """Total derivatives through the named quantities: one line a non-zero derivative."""

    def __init__(self, wanted: Iterable[sympy.Symbol], taken: set[str]) -> None:
        """By the ``wanted`` symbols, with new names none of those ``taken``."""
        self.wanted = set(wanted)
        self.taken = taken
        self.lines: list[Line] = []
        self.totals: dict[sympy.Symbol, dict[sympy.Symbol, Expression]] = {}

    def quantity(self, symbol: sympy.Symbol, expression: Expression) -> None:
        """Add a named quantity: its own line, then a line for each derivative."""
        self.lines.append((symbol, expression))
        total = self.derivatives(symbol.name, expression)
        for by, value in total.items():
            total[by] = value if value.is_Atom else self._line(f"d_{symbol}_d_{by}", value)
        self.totals[symbol] = total

    def derivatives(self, name: str, expression: Expression) -> dict[sympy.Symbol, Expression]:
        """Non-zero total derivatives of an expression by the wanted symbols."""
        total: dict[sympy.Symbol, Expression] = {}
        for symbol in sorted(expression.free_symbols, key=lambda s: s.name):
            inner = {symbol: sympy.S.One} if symbol in self.wanted else self.totals.get(symbol, {})
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
class Constants:
    """Takes out of expressions what depends on parameters alone, to be computed once a segment.

    ``fixed`` are the symbols that stay constant. Each part taken out, single parameters too,
    becomes the next entry of the array ``c``, written as ``at`` says. Hill terms with a whole
    exponent turn into plain products on the way, powers of a constant into exponentials.
    """

    fixed: set[Expression]
    at: Callable[[str, int], str]
    parts: dict[Expression, Expression] = field(default_factory=dict)

    def lines(self, lines: Iterable[Line]) -> tuple[list[Line], dict[Expression, Expression]]:
        """The lines with constants taken out, and the symbols that turned out constant."""
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
    """A Hill term with a whole exponent, without a power function: z/(1 + z), z = (x/K)^n."""
    z = (Positive(x) / K) ** n
    return z / (1 + z)
