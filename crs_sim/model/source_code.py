"""A model's equations written out as a Python module: one function for each thing a solver needs.

Straight-line scalar code that reads like the model. `crs_sim.solver.simd_code` writes the same for
speed, and solves linear systems with the sparse LU written out here: a model's Jacobian has the
same few non-zero entries at every step, so elimination without pivoting can be spelled out once, as
KPP does for atmospheric chemistry (Damian et al. 2002, doi:10.1016/S0098-1354(02)00128-X).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelError
from .model import Model
from .symbolic import (
    MOST_SQUARED,
    PRIMITIVES,
    RESERVED,
    ChainRule,
    Equations,
    Expression,
    Hill,
    Line,
    Positive,
    Power,
    Reached,
    calls,
    computed,
    equations,
    exponential,
    logarithm,
    name_of,
    text,
    variable,
)

Entry = tuple[int, int]
Place = Callable[[str, int], str]
"""How entry k of an array is written in the text: ``a[3]``, or its place in a larger array."""

HEADER = f"from math import exp, log\n\nfrom crs_sim.model.formula import {', '.join(PRIMITIVES)}\n"


@dataclass
class Function:
    """One generated function: loads, intermediate lines, repeated calls made once, stores."""

    signature: str
    purpose: str
    loads: dict[Expression, str]
    lines: list[Line]
    stores: list[tuple[str, Expression]]
    taken: set[str]
    plain: bool = True
    once: dict[Expression, Expression] = field(default_factory=dict)

    def source(self) -> str:
        """The function as text."""
        lines = self._needed()
        everything = [e for _, e in lines] + [e for _, e in self.stores]
        counted = Counter(call for e in everything for call in calls(e))
        self.repeated = {call for call, times in counted.items() if times > 1}
        used = {s for e in everything for s in e.free_symbols}
        body = [f"{s.name} = {where}" for s, where in self.loads.items() if s in used]
        for symbol, expression in lines:
            body += self._statement(symbol.name, expression)
        for target, expression in self.stores:
            body += self._statement(target, expression)
        return written(self.signature, self.purpose, body)

    def _needed(self) -> list[Line]:
        needed = {s for _, e in self.stores for s in e.free_symbols}
        kept = []
        for symbol, expression in reversed(self.lines):
            if symbol in needed:
                needed |= expression.free_symbols
                kept.append((symbol, expression))
        return kept[::-1]

    def _statement(self, target: str, expression: Expression) -> list[str]:
        before = []
        for node in calls(expression):
            if node in self.repeated and node not in self.once:
                inner = node.func(*(a.xreplace(self.once) for a in node.args))
                symbol = variable(self._fresh(name_of(node)))
                before.append(f"{symbol} = {text(inner, plain=self.plain)}")
                self.once[node] = symbol
        return [*before, f"{target} = {text(expression.xreplace(self.once), plain=self.plain)}"]

    def _fresh(self, name: str) -> str:
        number = len(self.once) + 1
        while f"{name}_{number}" in self.taken:
            number += 1
        self.taken.add(f"{name}_{number}")
        return f"{name}_{number}"


def written(signature: str, purpose: str, body: list[str]) -> str:
    """A function as text."""
    lines = "\n".join(f"    {line}" for line in body or ["pass"])
    return f'def {signature}:\n    """{purpose}"""\n{lines}\n'


def generate(model: Model) -> str:
    """The whole module as text; `crs_sim.model.Code` describes its functions.

    Raises
    ------
    ModelError, UnknownNameError
        See `crs_sim.model.equations`; also for a rate that uses a step.
    """
    eq = equations(model)
    refuse_steps(eq)
    sym, loads = eq.symbols, eq.loads()
    taken = {*(s.name for s in sym.values()), *RESERVED}
    lines, slopes, entries = jacobian_lines(eq, set(taken))
    constants = [(sym[n], eq.quantities[n]) for n in eq.constant]
    from_p = {s: at for s, at in loads.items() if at[0] == "p"}

    def function(signature: str, purpose: str, lines: list[Line], values: Iterable[Any]) -> str:
        stores = [(f"{signature[-2]}[{k}]", e) for k, e in enumerate(values)]
        given = from_p if signature == "constants(p, c)" else loads
        return Function(signature, purpose, given, lines, stores, set(taken)).source()

    purpose = "Non-zero derivatives of the rates by the states, row by row."
    varying = eq.varying()
    named = [sym[n] for n in model.quantity_ids]
    return "\n\n".join(
        [
            f'"""Generated from the model {model.name!r} (hash {model.hash})."""\n\n{HEADER}',
            f"ROWS = {[r for r, _ in entries]}\nCOLUMNS = {[c for _, c in entries]}\n"
            f"N_CONSTANTS = {len(constants)}\n",
            function(
                "constants(p, c)",
                "Quantities of parameters alone.",
                constants,
                [symbol for symbol, _ in constants],
            ),
            function("initial(p, c, y)", "States at day 0.", [], eq.initial.values()),
            function(
                "rates(y, p, c, f)", "Change of each state per day.", varying, eq.rates.values()
            ),
            function("jacobian(y, p, c, j)", purpose, lines, slopes),
            function("quantities(y, p, c, q)", "Every named quantity.", varying, named),
        ]
    )


def refuse_steps(eq: Equations) -> None:
    """Refuse a rate that uses a step, directly or through a quantity."""
    used = eq.used_by_rates()
    rates = {eq.symbols[n]: rate for n, rate in eq.rates.items()}
    for symbol, expression in [*eq.varying(), *rates.items()]:
        if expression.has(Reached) and (symbol in used or symbol in rates):
            raise ModelError(
                f"{eq.model.path or eq.model.name}  {symbol} uses a step (reached) "
                "in a rate: give it a smooth form such as hill"
            )


def jacobian_lines(
    eq: Equations, taken: set[str]
) -> tuple[list[Line], list[Expression], list[Entry]]:
    """The lines, the values and the (row, column) of the non-zero entries of the Jacobian."""
    states = [eq.symbols[n] for n in eq.model.state_ids]
    chain = ChainRule(states, taken)
    used = eq.used_by_rates()
    for symbol, expression in eq.varying():
        if symbol in used:
            chain.quantity(symbol, expression)
    values: list[Expression] = []
    entries: list[Entry] = []
    column = {symbol: k for k, symbol in enumerate(states)}
    for row, (name, rate) in enumerate(eq.rates.items()):
        slopes = chain.derivatives(f"rate_{name}", rate)
        for by in sorted(slopes, key=column.__getitem__):
            values.append(slopes[by])
            entries.append((row, column[by]))
    return chain.lines, values, entries


# --- what is computed once ----------------------------------------------------------------------


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
        if isinstance(expression, Hill) and expression.args[2] in range(1, MOST_SQUARED + 1):
            expression = _plain_hill(*expression.args)
        base, exponent = expression.args if isinstance(expression, Power) else (expression, None)
        if exponent is not None and base.free_symbols <= self.fixed and not base.is_nonpositive:
            return exponential(self._constant(logarithm(base)) * self.out_of(exponent))
        if not (expression.is_Add or expression.is_Mul):
            return expression.func(*(self.out_of(a) for a in expression.args))
        fixed = [a for a in expression.args if a.free_symbols <= self.fixed]
        rest = [self.out_of(a) for a in expression.args if not a.free_symbols <= self.fixed]
        if fixed:
            rest.append(self._constant(expression.func(*fixed)))
        return expression.func(*rest)

    def _constant(self, expression: Expression) -> Expression:
        if not expression.free_symbols:
            return computed(expression)
        if expression in self.parts.values():
            return expression
        if expression not in self.parts:
            symbol = variable(self.at("c", len(self.parts)))
            self.parts[expression] = symbol
            self.fixed.add(symbol)
        return self.parts[expression]


def _plain_hill(x: Expression, K: Expression, n: Expression) -> Expression:
    """A Hill term with a whole exponent above 0, without a power function.

    In K/x nothing but 1 and 0 is reached where the power overflows or vanishes; at x = 0 it is 0.
    """
    x = Positive(x)
    return x / (K + x) if n == 1 else 1 / (1 + (K / x) ** n)


# --- sparse LU -----------------------------------------------------------------------------------


def elimination_order(size: int, entries: Iterable[Entry]) -> list[int]:
    """Pivots in greedy minimum-degree order: next is the one that can fill in least (Markowitz).

    >>> elimination_order(3, [(0, 1), (0, 2), (1, 0), (2, 0)])   # an arrow: its head goes last
    [1, 0, 2]
    """
    pattern = set(entries) | {(i, i) for i in range(size)}
    left = set(range(size))
    order = []
    while left:
        rows = {k: {j for j in left if (k, j) in pattern and j != k} for k in left}
        columns = {k: {i for i in left if (i, k) in pattern and i != k} for k in left}
        pivot = min(left, key=lambda k: (len(rows[k]) * len(columns[k]), k))
        pattern |= {(i, j) for i in columns[pivot] for j in rows[pivot]}
        left.remove(pivot)
        order.append(pivot)
    return order


@dataclass(frozen=True)
class Elimination:
    """The steps of an LU of ``d*I - J``: the pivots, and each pivot's row and column below it."""

    entries: tuple[Entry, ...]
    order: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    filled: frozenset[Entry]

    @property
    def size(self) -> int:
        """Numbers kept: the entries of J, then its factor with fill-in and reciprocal pivots."""
        return len(self.entries) + len(self.filled)

    @property
    def place(self) -> dict[Entry, int]:
        """Where each entry of the factor is kept: after those of J."""
        return {entry: k for k, entry in enumerate(sorted(self.filled), len(self.entries))}


def elimination(size: int, entries: Iterable[Entry]) -> Elimination:
    """Eliminate symbolically: the order, the fill-in, and what each pivot touches.

    >>> arrow = [(0, 1), (0, 2), (1, 0), (2, 0)]
    >>> len(elimination(3, arrow).filled)    # 4 entries, 3 pivots: no fill-in
    7
    """
    given = tuple(sorted(set(entries)))
    order = elimination_order(size, given)
    pattern = set(given) | {(i, i) for i in range(size)}
    left = set(range(size))
    rows, columns = [], []
    for pivot in order:
        left.remove(pivot)
        row = tuple(j for j in sorted(left) if (pivot, j) in pattern)
        column = tuple(i for i in sorted(left) if (i, pivot) in pattern)
        pattern |= {(i, j) for i in column for j in row}
        rows.append(row)
        columns.append(column)
    return Elimination(given, tuple(order), tuple(rows), tuple(columns), frozenset(pattern))


def factor_lines(steps: Elimination, at: Place) -> list[str]:
    """Lines that leave in array ``a``, after the entries of J, the LU of d*I - J."""
    given = {entry: k for k, entry in enumerate(steps.entries)}
    lines = []
    for entry in sorted(steps.filled):
        known = f" - {at('a', given[entry])}" if entry in given else ""
        lines.append(f"{_name(entry)} = {'d' if entry[0] == entry[1] else '0.0'}{known}")
    for pivot, row, column in zip(steps.order, steps.rows, steps.columns, strict=True):
        lines.append(f"{_name((pivot, pivot))} = 1.0 / {_name((pivot, pivot))}")
        for i in column:
            below = _name((i, pivot))
            lines.append(f"{below} *= {_name((pivot, pivot))}")
            lines += [f"{_name((i, j))} -= {below} * {_name((pivot, j))}" for j in row]
    return lines + [f"{at('a', k)} = {_name(entry)}" for entry, k in steps.place.items()]


def solve_lines(steps: Elimination, at: Place) -> list[str]:
    """Lines that turn array ``f`` into the solution x of (d*I - J) x = f."""
    place = steps.place
    lines = [f"b{i} = {at('f', i)}" for i in range(len(steps.order))]
    for pivot, column in zip(steps.order, steps.columns, strict=True):
        lines += [f"b{i} -= {at('a', place[i, pivot])} * b{pivot}" for i in column]
    for pivot, row in zip(reversed(steps.order), reversed(steps.rows), strict=True):
        known = "".join(f" - {at('a', place[pivot, j])} * b{j}" for j in row)
        lines.append(f"b{pivot} = (b{pivot}{known}) * {at('a', place[pivot, pivot])}")
    return lines + [f"{at('f', i)} = b{i}" for i in range(len(steps.order))]


def _name(entry: Entry) -> str:
    return f"m{entry[0]}_{entry[1]}"
