"""A model's equations written out as a Python module: one function for each thing a solver asks.

Straight-line scalar code that reads like the model. `crs_sim.lanes` writes the same for speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import sparse
from .errors import ModelError
from .model import Model
from .symbolic import (
    PRIMITIVES,
    RESERVED,
    Chain,
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
    """The whole module as text; see `crs_sim.codegen.Code` for what its functions do.

    Raises
    ------
    ModelError, UnknownNameError
        See `crs_sim.symbolic.equations`; also for a rate that uses a step.
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
