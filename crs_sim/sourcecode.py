"""A model's equations written out as a Python module: one function for each thing a solver asks.

Straight-line scalar code. Written `plain` it reads like the model; written for speed, everything
that depends on parameters alone is computed once a segment, into the array ``c``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from . import sparse
from .errors import ModelError
from .model import Model
from .symbolic import (
    PRIMITIVES,
    RESERVED,
    Chain,
    Constants,
    Equations,
    Expression,
    Line,
    Reached,
    calls,
    equations,
    name_of,
    text,
    variable,
)

HEADER = f"from math import exp, log\n\nfrom crs_sim.primitives import {', '.join(PRIMITIVES)}\n"


@dataclass(frozen=True)
class Stores:
    """What a function writes: one expression for each entry of an array."""

    array: str
    values: list[Expression]

    @property
    def stores(self) -> list[tuple[str, Expression]]:
        """Targets such as ``f[3]``, and what goes there."""
        return [(f"{self.array}[{k}]", value) for k, value in enumerate(self.values)]


@dataclass
class Function:
    """One generated function: loads, intermediate lines, repeated calls made once, stores."""

    signature: str
    purpose: str
    loads: dict[Expression, str]
    lines: list[Line]
    stores: list[tuple[str, Expression]]
    taken: set[str]
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
        whole = "\n".join(f"    {line}" for line in body or ["pass"])
        return f'def {self.signature}:\n    """{self.purpose}"""\n{whole}\n'

    def _needed(self) -> list[Line]:
        wanted = {s for _, e in self.stores for s in e.free_symbols}
        kept = []
        for symbol, expression in reversed(self.lines):
            if symbol in wanted:
                wanted |= expression.free_symbols
                kept.append((symbol, expression))
        return kept[::-1]

    def _statement(self, target: str, expression: Expression) -> list[str]:
        before = []
        for node in calls(expression):
            if node in self.repeated and node not in self.once:
                inner = node.func(*(a.xreplace(self.once) for a in node.args))
                symbol = variable(self._fresh(name_of(node)))
                before.append(f"{symbol} = {text(inner)}")
                self.once[node] = symbol
        return [*before, f"{target} = {text(expression.xreplace(self.once))}"]

    def _fresh(self, name: str) -> str:
        number = len(self.once) + 1
        while f"{name}_{number}" in self.taken:
            number += 1
        self.taken.add(f"{name}_{number}")
        return f"{name}_{number}"


class Writer:
    """Writes the functions of one model; for speed, parameters and all made of them become c."""

    def __init__(self, eq: Equations, *, plain: bool) -> None:
        """For a model's equations; ``plain`` leaves every formula as it is."""
        self.eq = eq
        self.plain = plain
        self.taken = {*(s.name for s in eq.symbols.values()), *RESERVED}
        self.loads = eq.loads()
        fixed = {eq.symbols[n] for n in (*eq.model.parameter_ids, *eq.constant)}
        self.constants = Constants(fixed)

    def function(self, name: str, purpose: str, lines: Iterable[Line], into: Stores) -> str:
        """The source of one function of (y, p, c, into), or for speed of (y, c, into)."""
        lines, stores, loads = list(lines), into.stores, self.loads
        if not self.plain:
            lines, known = self.constants.lines(lines)
            stores = [(at, self.constants.out_of(e.xreplace(known))) for at, e in stores]
            loads = {symbol: at for symbol, at in loads.items() if at[0] == "y"}
        given = "y, " if into.array != "y" else ""
        parameters = "p, c" if self.plain else "c"
        signature = f"{name}({given}{parameters}, {into.array})"
        return Function(signature, purpose, loads, lines, stores, set(self.taken)).source()

    def constant_values(self) -> str:
        """Source of ``constants(p, c)``; to be written last."""
        eq = self.eq
        lines = [(eq.symbols[n], eq.quantities[n]) for n in eq.constant]
        if self.plain:
            stores = Stores("c", [symbol for symbol, _ in lines]).stores
        else:
            stores = Stores("c", list(self.constants.parts)).stores
        loads = {symbol: at for symbol, at in self.loads.items() if at[0] == "p"}
        purpose = "What depends on parameters alone."
        return Function("constants(p, c)", purpose, loads, lines, stores, set(self.taken)).source()

    @property
    def n_constants(self) -> int:
        """Entries of the array ``c``."""
        return len(self.eq.constant) if self.plain else len(self.constants.parts)


def generate(model: Model, *, plain: bool = True) -> str:
    """The whole module as text; see `crs_sim.codegen.Code` for what its functions do.

    Raises
    ------
    ModelError, UnknownNameError
        See `crs_sim.symbolic.equations`; also for a rate that uses a step.
    """
    eq = equations(model)
    _refuse_steps(eq)
    write = Writer(eq, plain=plain)
    lines, slopes, entries = _slopes(eq, set(write.taken))
    steps = sparse.plan(len(model.states), entries)
    named = [eq.symbols[n] for n in model.quantity_ids]
    start, rates = list(eq.initial.values()), list(eq.rates.values())
    purpose = "Non-zero derivatives of the rates by the states, row by row."
    parts = [
        write.function("initial", "States at day 0.", [], Stores("y", start)),
        write.function("rates", "Change of each state per day.", eq.varying(), Stores("f", rates)),
        write.function("jacobian", purpose, lines, Stores("a", slopes)),
        write.function("quantities", "Every named quantity.", eq.varying(), Stores("q", named)),
        sparse.factor_source(steps),
        sparse.solve_source(steps),
    ]
    head = f'"""Generated from the model {model.name!r} (hash {model.hash})."""\n\n{HEADER}'
    tables = (
        f"ROWS = {[row for row, _ in entries]}\nCOLUMNS = {[column for _, column in entries]}\n"
        f"N_CONSTANTS = {write.n_constants}\nN_FACTOR = {steps.size}\n"
    )
    return "\n\n".join([head, tables, write.constant_values(), *parts])


def _refuse_steps(eq: Equations) -> None:
    used = eq.used_by_rates()
    rates = {eq.symbols[n]: rate for n, rate in eq.rates.items()}
    for symbol, expression in [*eq.varying(), *rates.items()]:
        if expression.has(Reached) and (symbol in used or symbol in rates):
            raise ModelError(
                f"{eq.model.path or eq.model.name}  {symbol} uses a step (reached) "
                "in a rate: give it a smooth form such as hill"
            )


def _slopes(
    eq: Equations, taken: set[str]
) -> tuple[list[Line], list[Expression], list[sparse.Entry]]:
    """The lines, the values and the (row, column) of the non-zero entries of the Jacobian."""
    states = [eq.symbols[n] for n in eq.model.state_ids]
    chain = Chain(states, taken)
    used = eq.used_by_rates()
    for symbol, expression in eq.varying():
        if symbol in used:
            chain.quantity(symbol, expression)
    values: list[Expression] = []
    entries: list[sparse.Entry] = []
    column = {symbol: k for k, symbol in enumerate(states)}
    for row, (name, rate) in enumerate(eq.rates.items()):
        slopes = chain.derivatives(f"rate_{name}", rate)
        for by in sorted(slopes, key=column.__getitem__):
            values.append(slopes[by])
            entries.append((row, column[by]))
    return chain.lines, values, entries
