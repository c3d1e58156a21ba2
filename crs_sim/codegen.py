"""A model made runnable: readable Python source for its values, rates, Jacobian and quantities.

Straight-line scalar code, the same text for plain Python and for `crs_sim.kernel`. Derivatives go
through the named quantities by the chain rule, so the Jacobian stays as short as the model.
"""

from __future__ import annotations

import keyword
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy.printing.str import StrPrinter

from . import codecache, formula, sparse
from .errors import ModelError, unknown_name
from .model import Model, Symbol

Array = NDArray[np.float64]
Line = tuple[sympy.Symbol, sympy.Expr]

PRIMITIVES = ("hill", "hill_slope", "log_ratio", "power", "power_slope", "reached")
HEADER = f"from math import exp, log\n\nfrom crs_sim.primitives import {', '.join(PRIMITIVES)}\n"
RESERVED = {*"ypcfjdabq", "exp", "log", *PRIMITIVES}


class Reached(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.reached`: a step, flat on both sides."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """Zero: the step itself has no slope worth following."""
        return sympy.S.Zero


class LogRatio(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.log_ratio`."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """1/x and -1/K."""
        return 1 / self.args[0] if argindex == 1 else -1 / self.args[1]


class HillSlope(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.hill_slope`."""

    nargs = 4


class Hill(sympy.Function):  # type: ignore[misc]
    """Symbol for `primitives.hill`, with derivatives that reuse its value."""

    nargs = 3

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
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

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        """In the base or the exponent."""
        x, n = self.args
        return PowerSlope(x, n, self) if argindex == 1 else self * LogRatio(x, sympy.S.One)


PRINTED = {
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


class Printer(StrPrinter):  # type: ignore[misc]
    """Prints an expression as Python that loses no digit."""

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return repr(float(expr))

    def _print_Function(self, expr: Any) -> str:
        name = PRINTED.get(type(expr), type(expr).__name__)
        return f"{name}({', '.join(self._print(a) for a in expr.args)})"


def number(value: float) -> sympy.Expr:
    """A number of a formula: whole ones stay whole, so that x^2 is a product."""
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Float(value, 17)


@dataclass(frozen=True)
class Equations:
    """A model's formulas as symbolic expressions, every name our own symbol."""

    model: Model
    symbols: dict[str, sympy.Symbol]
    quantities: dict[str, sympy.Expr]
    rates: dict[str, sympy.Expr]
    initial: dict[str, sympy.Expr]
    constant: tuple[str, ...]

    def loads(self) -> dict[sympy.Symbol, str]:
        """Where each symbol comes from: state y[i], parameter p[i], constant quantity c[i]."""
        model = self.model
        arrays = (("y", model.state_ids), ("p", model.parameter_ids), ("c", self.constant))
        return {self.symbols[n]: f"{a}[{k}]" for a, ids in arrays for k, n in enumerate(ids)}

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
) -> sympy.Expr:
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
        self.totals: dict[sympy.Symbol, dict[sympy.Symbol, sympy.Expr]] = {}

    def quantity(self, symbol: sympy.Symbol, expression: sympy.Expr) -> None:
        """Add a named quantity: its own line, then a line for each derivative."""
        self.lines.append((symbol, expression))
        total = self.derivatives(symbol.name, expression)
        for by, value in total.items():
            total[by] = value if value.is_Atom else self._line(f"d_{symbol}_d_{by}", value)
        self.totals[symbol] = total

    def derivatives(self, name: str, expression: sympy.Expr) -> dict[sympy.Symbol, sympy.Expr]:
        """Non-zero total derivatives of an expression by the wanted symbols."""
        total: dict[sympy.Symbol, sympy.Expr] = {}
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

    def _line(self, name: str, expression: sympy.Expr) -> sympy.Symbol:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        self.lines.append((sympy.Symbol(name), expression))
        return self.lines[-1][0]


@dataclass
class Function:
    """One generated function: loads, intermediate lines, repeated calls made once, stores."""

    signature: str
    purpose: str
    loads: dict[sympy.Symbol, str]
    lines: list[Line]
    stores: list[tuple[str, sympy.Expr]]
    taken: set[str]
    once: dict[sympy.Expr, sympy.Symbol] = field(default_factory=dict)

    def source(self) -> str:
        """The function as text."""
        lines = self._needed()
        everything = [e for _, e in lines] + [e for _, e in self.stores]
        nodes = (n for e in everything for n in sympy.preorder_traversal(e))
        calls = Counter(n for n in nodes if isinstance(n, sympy.Function))
        self.repeated = {call for call, times in calls.items() if times > 1}
        used = {s for e in everything for s in e.free_symbols}
        body = [f"{s.name} = {where}" for s, where in self.loads.items() if s in used]
        for symbol, expression in lines:
            body += self._statement(symbol.name, expression)
        for target, expression in self.stores:
            body += self._statement(target, expression)
        text = "\n".join(f"    {line}" for line in body or ["pass"])
        return f'def {self.signature}:\n    """{self.purpose}"""\n{text}\n'

    def _needed(self) -> list[Line]:
        wanted = {s for _, e in self.stores for s in e.free_symbols}
        kept = []
        for symbol, expression in reversed(self.lines):
            if symbol in wanted:
                wanted |= expression.free_symbols
                kept.append((symbol, expression))
        return kept[::-1]

    def _statement(self, target: str, expression: sympy.Expr) -> list[str]:
        before = []
        for node in sympy.postorder_traversal(expression):
            if node in self.repeated and node not in self.once:
                inner = node.func(*(a.xreplace(self.once) for a in node.args))
                symbol = sympy.Symbol(self._fresh(PRINTED.get(type(node), type(node).__name__)))
                before.append(f"{symbol} = {Printer().doprint(inner)}")
                self.once[node] = symbol
        return [*before, f"{target} = {Printer().doprint(expression.xreplace(self.once))}"]

    def _fresh(self, name: str) -> str:
        number = len(self.once) + 1
        while f"{name}_{number}" in self.taken:
            number += 1
        self.taken.add(f"{name}_{number}")
        return f"{name}_{number}"


def generate(model: Model) -> str:
    """The whole generated module as text; see `Code` for what its functions do."""
    eq = equations(model)
    loads = eq.loads()
    sym = eq.symbols
    taken = {*(s.name for s in sym.values()), *RESERVED}
    states = [sym[n] for n in model.state_ids]
    jacobian, entries = _jacobian(eq, states, set(taken))
    steps = sparse.plan(len(states), entries)

    def function(signature: str, purpose: str, lines: list[Line], stores: Any) -> str:
        return Function(signature, purpose, loads, lines, list(stores), set(taken)).source()

    constants = [(sym[n], eq.quantities[n]) for n in eq.constant]
    no_constants = {s: w for s, w in loads.items() if not w.startswith("c[")}
    first = Function(
        "constants(p, c)",
        "Quantities of parameters alone.",
        no_constants,
        constants,
        [(f"c[{k}]", s) for k, (s, _) in enumerate(constants)],
        set(taken),
    ).source()
    parts = [
        f'"""Generated from the model {model.name!r} (hash {model.hash})."""\n\n{HEADER}',
        _tables(eq, entries, steps),
        first,
        function(
            "initial(p, c, y)",
            "States at day 0.",
            [],
            ((f"y[{k}]", e) for k, e in enumerate(eq.initial.values())),
        ),
        function(
            "rates(y, p, c, f)",
            "Change of each state per day.",
            eq.varying(),
            ((f"f[{k}]", e) for k, e in enumerate(eq.rates.values())),
        ),
        jacobian,
        function(
            "quantities(y, p, c, q)",
            "Every named quantity.",
            eq.varying(),
            ((f"q[{k}]", sym[n]) for k, n in enumerate(model.quantity_ids)),
        ),
        sparse.factor_source(steps),
        sparse.solve_source(steps),
    ]
    return "\n\n".join(parts)


def _jacobian(
    eq: Equations, states: list[sympy.Symbol], taken: set[str]
) -> tuple[str, list[sparse.Entry]]:
    """Source of ``jacobian(y, p, c, j)``, and the (row, column) of each entry of ``j``."""
    chain = Chain(states, taken)
    used = _used_by_rates(eq)
    rate_of = {sym: eq.rates[n] for n, sym in eq.symbols.items() if n in eq.rates}
    for symbol, expression in [*eq.varying(), *rate_of.items()]:
        if expression.has(Reached) and (symbol in used or symbol in rate_of):
            raise ModelError(
                f"{eq.model.path or eq.model.name}  {symbol} uses a step (reached) "
                "in a rate: give it a smooth form such as hill"
            )
    for symbol, expression in eq.varying():
        if symbol in used:
            chain.quantity(symbol, expression)
    stores: list[tuple[str, sympy.Expr]] = []
    entries: list[sparse.Entry] = []
    column = {symbol: k for k, symbol in enumerate(states)}
    for row, (name, rate) in enumerate(eq.rates.items()):
        slopes = chain.derivatives(f"rate_{name}", rate)
        for by in sorted(slopes, key=column.__getitem__):
            stores.append((f"j[{len(entries)}]", slopes[by]))
            entries.append((row, column[by]))
    purpose = "Non-zero derivatives of the rates by the states, row by row."
    text = Function("jacobian(y, p, c, j)", purpose, eq.loads(), chain.lines, stores, taken)
    return text.source(), entries


def _used_by_rates(eq: Equations) -> set[sympy.Symbol]:
    used = {s for rate in eq.rates.values() for s in rate.free_symbols}
    for symbol, expression in reversed(eq.varying()):
        if symbol in used:
            used |= expression.free_symbols
    return used


def _tables(eq: Equations, entries: list[sparse.Entry], steps: sparse.Elimination) -> str:
    rows, columns = [r for r, _ in entries], [c for _, c in entries]
    return (
        f"ROWS = {rows}\nCOLUMNS = {columns}\n"
        f"N_CONSTANTS = {len(eq.constant)}\nN_FACTOR = {steps.size}\n"
    )


@dataclass(frozen=True, eq=False)
class Code:
    """A model's generated functions, with arrays in and out.

    Parameters are vectors in the order of ``model.parameter_ids``, states of ``model.state_ids``,
    quantities of ``model.quantity_ids``. ``functions`` is the generated module itself.
    """

    key: str
    source: str
    functions: Any
    n_states: int
    n_parameters: int
    n_quantities: int

    def constants(self, p: Array) -> list[float]:
        """Quantities that depend on parameters alone."""
        c = [0.0] * self.functions.N_CONSTANTS
        self.functions.constants(p.tolist(), c)
        return c

    def initial(self, p: Array) -> Array:
        """States at day 0, (n_states,), for parameters ``p`` (n_parameters,)."""
        y = [0.0] * self.n_states
        self.functions.initial(p.tolist(), self.constants(p), y)
        return np.array(y, dtype=float)

    def rates(self, y: Array, p: Array, u: Array | None = None) -> Array:
        """Change per day of each state, (n_states,), plus ``u``, what running infusions add."""
        f = [0.0] * self.n_states
        self.functions.rates(y.tolist(), p.tolist(), self.constants(p), f)
        return np.array(f, dtype=float) if u is None else np.array(f, dtype=float) + u

    def jacobian(self, y: Array, p: Array) -> Array:
        """Derivative of rate i by state j, (n_states, n_states)."""
        entries = [0.0] * len(self.functions.ROWS)
        self.functions.jacobian(y.tolist(), p.tolist(), self.constants(p), entries)
        matrix = np.zeros((self.n_states, self.n_states))
        matrix[self.functions.ROWS, self.functions.COLUMNS] = entries
        return matrix

    def quantities(self, states: Array, p: Array) -> Array:
        """Named quantities, (n_days, n_quantities).

        Parameters
        ----------
        states : (n_days, n_states)
        p : (n_parameters,), or (n_days, n_parameters) where parameters change on the way
        """
        table = np.empty((len(states), self.n_quantities))
        c = self.constants(p) if p.ndim == 1 else []
        for row, y in enumerate(states.tolist()):
            here = p if p.ndim == 1 else p[row]
            self.functions.quantities(
                y, here.tolist(), c if p.ndim == 1 else self.constants(here), table[row]
            )
        return table


KNOWN: dict[str, Code] = {}
"""Compiled models of this process by key; a model of other values shares its code."""


def code_key(model: Model) -> str:
    """What the generated code depends on: the model's equations, our code, the libraries."""
    ours = codecache.own_source("codegen", "sparse", "primitives", "formula")
    ids = repr((model.name, model.parameter_ids))
    versions = (sympy.__version__, platform.python_version())
    return codecache.fingerprint(model.hash, ids, ours, *versions)


def compile_model(model: Model) -> Code:
    """The runnable form of a model, generated once and kept in memory and on disk.

    Raises
    ------
    ModelError, UnknownNameError
        See `equations`.
    """
    return _compiled(code_key(model), model)


def _compiled(key: str, model: Model) -> Code:
    if key not in KNOWN:
        path = codecache.stored(f"{model.name}_{key}.py", lambda: generate(model))
        source = path.read_text(encoding="utf-8")
        sizes = (len(model.states), len(model.parameters), len(model.quantities))
        KNOWN[key] = Code(key, source, codecache.load(path), *sizes)
    return KNOWN[key]
