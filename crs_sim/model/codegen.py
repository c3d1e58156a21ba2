"""A model made runnable: its generated functions with arrays in and out, cached on disk.

`crs_sim.model.source_code` writes them, and with sympy is loaded only when the cache lacks them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..store import cached_text, fingerprint, load_generated, source_fingerprint
from .model import Model

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
"""The array types of the package; shapes stand in the docstrings."""

WRITTEN_BY = ("model/dialect", "model/symbolic", "model/source_code", "model/formula")
"""The modules that determine what is generated."""


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
        """Named quantities, (n_days, n_quantities); NaN on a day on which one has no value.

        Parameters
        ----------
        states : (n_days, n_states)
        p : (n_parameters,), or (n_days, n_parameters) where parameters change on the way
        """
        table = np.full((len(states), self.n_quantities), np.nan)
        c = self.constants(p) if p.ndim == 1 else []
        for row, y in enumerate(states.tolist()):
            here = p if p.ndim == 1 else p[row]
            # the machine code of the same equations has no exceptions
            with suppress(ArithmeticError, ValueError):
                self.functions.quantities(
                    y, here.tolist(), c if p.ndim == 1 else self.constants(here), table[row]
                )
        return table


KNOWN: dict[str, Code] = {}
"""Compiled models of this process by key; a model of other values shares its code."""


def code_key(model: Model) -> str:
    """What the generated code depends on: the model's equations, our code, the libraries."""
    ours = source_fingerprint(WRITTEN_BY, ("sympy",))
    return fingerprint(model.name, model.hash, repr(model.parameter_ids), ours)


def compile_model(model: Model) -> Code:
    """The runnable form of a model, generated once and kept in memory and on disk.

    Raises
    ------
    ModelError, UnknownNameError
        For names, steps and divisions that cannot be (see `crs_sim.model.equations`).
    """
    key = code_key(model)
    if key not in KNOWN:
        path = cached_text(f"{model.name}_{key}.py", lambda: write_source(model))
        source = path.read_text(encoding="utf-8")
        sizes = (len(model.states), len(model.parameters), len(model.quantities))
        KNOWN[key] = Code(key, source, load_generated(path), *sizes)
    return KNOWN[key]


def write_source(model: Model) -> str:
    """The generated module as text; sympy is loaded only here, when the cache has nothing."""
    from .source_code import generate

    return generate(model)
