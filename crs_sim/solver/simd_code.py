"""A model's equations written for speed: four parameter sets side by side in one flat array.

Everything that depends on parameters alone is computed once. Every function is straight-line code,
which `crs_sim.solver.machine_code` makes into vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..model import (
    RESERVED,
    ConstantHoisting,
    Elimination,
    Equations,
    Expression,
    Function,
    Line,
    Model,
    elimination,
    equations,
    factor_lines,
    jacobian_lines,
    refuse_steps,
    solve_lines,
    written,
)
from .machine_code import Memory, Vector, assemble
from .rosenbrock import DENSE, GAMMA, LANES, STAGES, A, C

IMPORTED = (
    "exp", "hill", "hill_slope", "larger", "log", "log_ratio", "magnitude", "positive", "power",
    "power_slope", "reached", "square", "unless",
)  # fmt: skip
"""What a generated file imports from `crs_sim.solver.machine_code`."""


@dataclass(frozen=True)
class Layout:
    """Where each array of a model begins in the work array, counted in rows of lanes."""

    n_states: int
    n_factor: int
    n_quantities: int
    n_parameters: int

    @property
    def rows(self) -> dict[str, int]:
        """The first row of each array; the constants, whose number is not fixed yet, come last."""
        n = self.n_states
        rows = {
            "RATE": STAGES,
            "NEW": 9,
            "BEND": 10,
            "SIZE": 13,
            "NOW": 14,
            "INFLOW": 15,
            "BETWEEN": 16,
            "START": 17,
            "EASE": 18,
        }
        first = {name: row * n for name, row in rows.items()}
        first["WORST"] = 19 * n
        first["STEP"] = first["WORST"] + 1
        first["FACTOR"] = first["STEP"] + 1
        first["Q"] = first["FACTOR"] + self.n_factor
        first["P"] = first["Q"] + self.n_quantities
        first["CONSTANTS"] = first["P"] + self.n_parameters
        return first

    def places(self, n_constants: int) -> dict[str, int]:
        """Where each array begins, in numbers; and the sizes NL of n_states rows, WORK of all."""
        places = {name: row * LANES for name, row in self.rows.items()}
        whole = places["CONSTANTS"] + n_constants * LANES
        return places | {"NL": self.n_states * LANES, "WORK": whole}

    def at(self, array: str, k: int) -> str:
        """How entry k of an array is written."""
        return f"w[{self.rows[array] + k}]"


class Writer:
    """Writes the functions of one model, collecting constants as it goes."""

    def __init__(self, eq: Equations, layout: Layout) -> None:
        """For a model's equations, in this layout."""
        self.eq, self.layout = eq, layout
        self.taken = {*(s.name for s in eq.symbols.values()), *RESERVED}
        fixed = {eq.symbols[n] for n in (*eq.model.parameter_ids, *eq.constant)}
        self.constants = ConstantHoisting(fixed, lambda _, k: layout.at("CONSTANTS", k))

    def function(
        self, name: str, states: str, lines: Iterable[Line], **into: Iterable[Expression]
    ) -> str:
        """The source of one function: reads the states at one place, writes to others."""
        lines, known = self.constants.lines(lines)
        stores = [
            (self.layout.at(place, k), self.constants.out_of(value.xreplace(known)))
            for place, values in into.items()
            for k, value in enumerate(values)
        ]
        ids = self.eq.model.state_ids
        loads = {self.eq.symbols[n]: self.layout.at(states, k) for k, n in enumerate(ids)}
        purpose = f"{name.capitalize()} into {' and '.join(into)}, states at {states}."
        taken = set(self.taken)
        return Function(f"{name}(w)", purpose, loads, lines, stores, taken, plain=False).source()

    def constant_values(self) -> str:
        """Source of ``constants(w)``; to be written last."""
        eq = self.eq
        lines = [(eq.symbols[n], eq.quantities[n]) for n in eq.constant]
        stores = [(str(symbol), value) for value, symbol in self.constants.parts.items()]
        ids = eq.model.parameter_ids
        loads = {eq.symbols[n]: self.layout.at("P", k) for k, n in enumerate(ids)}
        purpose = "What depends on parameters alone."
        taken = set(self.taken)
        return Function("constants(w)", purpose, loads, lines, stores, taken, plain=False).source()


def generate(model: Model) -> str:
    """The model's functions as straight-line text, from which `machine_text` makes instructions.

    Raises
    ------
    ModelError, UnknownNameError
        As `crs_sim.model.generate`.
    """
    eq = equations(model)
    refuse_steps(eq)
    lines, slopes, entries = jacobian_lines(eq, {*(s.name for s in eq.symbols.values()), *RESERVED})
    steps = elimination(len(model.states), entries)
    sizes = (len(model.states), steps.size, len(model.quantities), len(model.parameters))
    layout = Layout(*sizes)
    write = Writer(eq, layout)
    named = [eq.symbols[n] for n in model.quantity_ids]
    functions = [
        write.function("initial", "NOW", [], NOW=eq.initial.values()),
        write.function("rates", "NEW", eq.varying(), RATE=eq.rates.values()),
        write.function("jacobian", "NOW", lines, FACTOR=slopes, START=eq.rates.values()),
        write.function("quantities", "NOW", eq.varying(), Q=named),
        write.constant_values(),
        *_elimination(steps, layout),
        _worst_error(layout, steps),
        *_dense_output(layout),
    ]
    head = [
        f'"""Generated from the model {model.name!r} (hash {model.hash})."""',
        f"from crs_sim.solver.machine_code import {', '.join(IMPORTED)}",
        f"PLACES = {layout.places(len(write.constants.parts))}",
    ]
    return "\n\n\n".join(["\n".join(head), *functions])


def _worst_error(layout: Layout, steps: Elimination) -> str:
    """Source of the error of the last step, lane by lane, in units of states.

    A pivot below 0 means that something grows faster than such a step can follow: the method damps
    it, and its error estimate does not show that. The error is then infinite.
    """
    lines = []
    for q in range(layout.n_states):
        now, new = f"magnitude({layout.at('NOW', q)})", f"magnitude({layout.at('NEW', q)})"
        least = f"fraction * {layout.at('SIZE', q)} * {layout.at('EASE', q)}"
        size = f"larger({now}, {new}) + {least}"
        error = f"magnitude(w[{7 * layout.n_states + q}]) / ({size})"
        lines.append(f"worst = {error if q == 0 else f'larger({error}, worst)'}")
        over_pivot = f"-{layout.at('FACTOR', steps.place[q, q])}"
        lines.append(f"damped = {over_pivot if q == 0 else f'larger({over_pivot}, damped)'}")
    lines.append(f"{layout.at('WORST', 0)} = unless(damped, worst)")
    return written("lane_errors(w, fraction)", "Largest error of the last step into WORST.", lines)


def _dense_output(layout: Layout) -> list[str]:
    """Source of the states between the ends of the last step, and of going to its end."""
    n = layout.n_states
    bends = [
        f"{layout.at('BEND', d * n + q)} = "
        + " + ".join(f"{float(DENSE[d, r])!r} * w[{r * n + q}]" for r in range(STAGES))
        for d in range(3)
        for q in range(n)
    ]
    points, ends = ["y = 1.0 - x"], []
    for q in range(n):
        now, new, size = (layout.at(name, q) for name in ("NOW", "NEW", "SIZE"))
        bend = [layout.at("BEND", d * n + q) for d in range(3)]
        curve = f"{new} + y * ({bend[0]} + x * ({bend[1]} + x * {bend[2]}))"
        points.append(f"{layout.at('BETWEEN', q)} = y * {now} + x * ({curve})")
        ends += [f"{now} = {new}", f"{size} = larger(magnitude({new}), {size})"]
    return [
        written("bend(w)", "Coefficients of the dense output of the last step.", bends),
        written("between(w, x)", "States at a share x of the last step.", points),
        written("move(w)", "Go to the end of the last step.", ends),
    ]


def _elimination(steps: Elimination, layout: Layout) -> list[str]:
    place = {"a": "FACTOR", "f": "RATE"}

    def at(array: str, k: int) -> str:
        return layout.at(place[array], k)

    return [
        written("factor(w, d)", "LU of d*I - J.", factor_lines(steps, at)),
        written("solve(w)", "Solve into RATE.", solve_lines(steps, at)),
    ]


def machine_text(module: Any) -> str:
    """The LLVM text of a generated module's functions and of the step built on them."""
    places = module.PLACES
    row = {name: place // LANES for name, place in places.items()}
    n = row["NL"]

    def take_step(w: Memory, h: Vector) -> None:
        per_step = 1.0 / h
        w.call("factor", per_step / GAMMA)
        for i in range(STAGES):
            if i:
                w.sweep(n, partial(_point, row=row, n=n, i=i))
                w.call("rates")
            w.sweep(n, partial(_slope, row=row, n=n, i=i, per_step=per_step))
            w.call("solve")
        w.sweep(n, partial(_end, row=row, n=n))

    names = (
        "constants", "initial", "rates", "jacobian", "quantities", "factor", "solve",
        "lane_errors", "bend", "between", "move",
    )  # fmt: skip
    return assemble([*(getattr(module, name) for name in names), take_step])


def _point(r: Memory, row: dict[str, int], n: int, i: int) -> None:
    """Keep the stage before, and go to the point of stage i."""
    last = r[row["RATE"]]
    r[(i - 1) * n] = last
    point = r[row["NOW"]] if i < 6 else r[row["NEW"]] + last
    for k in range(min(i, len(A[0])) if i < 6 else 0):
        point = point + float(A[i, k]) * (last if k == i - 1 else r[k * n])
    r[row["NEW"]] = point


def _slope(r: Memory, row: dict[str, int], n: int, i: int, per_step: Vector) -> None:
    """Add the inflow and what stage i takes from those before; the first came with the Jacobian."""
    slope = r[row["RATE" if i else "START"]] + r[row["INFLOW"]]
    for k in range(i):
        slope = slope + (float(C[i, k]) * per_step) * r[k * n]
    r[row["RATE"]] = slope


def _end(r: Memory, row: dict[str, int], n: int) -> None:
    """Keep the last stage, which is the error, and go to the new states."""
    r[(STAGES - 1) * n] = r[row["RATE"]]
    r[row["NEW"]] = r[row["NEW"]] + r[row["RATE"]]
