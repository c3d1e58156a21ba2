"""The step loop of `crs_sim.rosenbrock` compiled for one model. The only door to numba.

Per model one file is written into the cache folder: the model's functions, then the step loop, so
that numba can keep its machine code beside it. The first run ever on a machine compiles.
"""

from __future__ import annotations

import inspect
import platform
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from . import codecache, primitives, rosenbrock
from .codegen import code_key, write_source
from .model import Model
from .timeline import Timeline, amounts, parameter_versions

Array = NDArray[np.float64]

OPTIONS = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}}
PASTED = (
    rosenbrock.take_step,
    rosenbrock.error_of,
    rosenbrock.sample,
    rosenbrock.first_step,
    rosenbrock.move,
    rosenbrock.advance,
    rosenbrock.follow,
)
LOADED: dict[str, Any] = {}
"""Modules of this process by what they depend on."""
compiled = numba.njit(**OPTIONS)
cached = numba.njit(cache=True, **OPTIONS)

ENTRY = '''
@cached
def run_many(edges, days, version, version_at, parameters, first, after, state, duration, amount,
    rtol, following, states, named, steps, counts, clock, status, final):
    n = states.shape[2]
    w = np.zeros((ROWS_OF_WORK, n))
    a = np.zeros(N_FACTOR)
    table = np.zeros((parameters.shape[1], N_CONSTANTS))
    for i in range(len(parameters)):
        clock[i, RTOL] = rtol
        counts[i, :] = 0
        w[:, :] = 0.0
        for k in range(len(table)):
            constants(parameters[i, k], table[k])
        initial(table[version[0]], w[NOW])
        status[i] = DONE
        for q in range(n):
            w[SIZE, q] = max(SMALLEST_SIZE, abs(w[NOW, q]))
            if not abs(w[NOW, q]) < 1e300:
                status[i] = NO_START
        for k in range(len(state)):
            w[SIZE, state[k]] = max(w[SIZE, state[k]], amount[i, k])
        while counts[i, ROW] < len(days) and days[counts[i, ROW]] <= 0.0:
            for q in range(n):
                states[i, counts[i, ROW], q] = w[NOW, q]
            counts[i, ROW] += 1
        for segment in range(len(edges) - 1):
            if status[i] != DONE:
                break
            counts[i, SEGMENT] = segment
            w[INFLOW, :] = 0.0
            for k in range(len(state)):
                if first[k] == segment and after[k] == segment:
                    w[NOW, state[k]] += amount[i, k]
                elif first[k] <= segment < after[k]:
                    w[INFLOW, state[k]] += amount[i, k] / duration[k]
            c = table[version[segment + 1]]
            if following:
                status[i] = follow(w, c, a, edges[segment], edges[segment + 1], counts[i],
                                   clock[i], days, states[i], steps)
            else:
                status[i] = advance(w, c, a, edges[segment], edges[segment + 1], counts[i],
                                    clock[i], days, states[i], steps)
        for row in range(counts[i, ROW]):
            quantities(states[i, row], table[version_at[row]], named[i, row])
        for q in range(n):
            final[i, q] = w[NOW, q]
'''


class Ran(NamedTuple):
    """One run: its arrays, and how and where it ended."""

    states: Array
    """(n_days, n_states), filled up to the day it reached."""
    quantities: Array
    """(n_days, n_quantities), likewise."""
    status: int
    """`rosenbrock.DONE`, or why it stopped."""
    segment: int
    day: float
    last: Array
    """(n_states,) where it stood at the end."""
    steps: int
    rejected: int


def run(model: Model, line: Timeline, rtol: float) -> Ran:
    """The timeline under the model's values."""
    nominal = np.array([p.value for p in model.parameters])
    given = line.given
    n_states, n_quantities = len(model.states), len(model.quantities)
    states = np.full((1, len(line.days), n_states), np.nan)
    named = np.zeros((1, len(line.days), n_quantities))
    counts, clock = np.zeros((1, 8), np.int64), np.zeros((1, 8))
    status = np.zeros(1, np.int64)
    final = np.zeros((1, n_states))
    kernel(model).run_many(
        line.edges, line.days, line.version, line.version_at,
        parameter_versions(line, nominal)[None], given.first, given.after, given.state,
        given.duration, amounts(line, nominal)[None], rtol, False,
        states, named, np.zeros(0), counts, clock, status, final,
    )  # fmt: skip
    count = counts[0]
    return Ran(
        states[0], named[0], int(status[0]), int(count[rosenbrock.SEGMENT]),
        float(clock[0, rosenbrock.DAY]),
        final[0], int(count[rosenbrock.ACCEPTED]), int(count[rosenbrock.REJECTED]),
    )  # fmt: skip


def kernel(model: Model) -> Any:
    """The compiled module of a model: in memory, in the cache folder, or compiled now."""
    key = code_key(model)
    if key not in LOADED:
        name = f"{model.name}_kernel_{codecache.fingerprint(key, *_surroundings())}.py"
        LOADED[key] = codecache.load(codecache.stored(name, lambda: source(model)))
    return LOADED[key]


@lru_cache(maxsize=1)
def _surroundings() -> tuple[str, ...]:
    ours = codecache.own_source("rosenbrock", "timeline", "kernel")
    return ours, numba.__version__, np.__version__, platform.python_version()


def source(model: Model) -> str:
    """The text of that module: the model's functions and the step loop, each to be compiled."""
    text = write_source(model, plain=False)
    names = [n for n, v in vars(rosenbrock).items() if n[0].isupper() and n != "NDArray"]
    head, _, body = text.partition("ROWS = ")
    head = head[:head.index("from math")] + (
        "import math\nfrom math import exp, log\n\nimport numpy as np\n\n"
        "from crs_sim.kernel import cached, compiled\n"
        f"from crs_sim.rosenbrock import {', '.join(names)}\n\n"
    )
    functions = [getattr(primitives, n) for n in primitives.__all__] + list(PASTED)
    body = "ROWS = " + body.replace("\ndef ", "\n@compiled\ndef ")
    pasted = "\n\n".join("@compiled\n" + inspect.getsource(f) for f in functions)
    return head + body + "\n\n" + pasted + "\n\n" + ENTRY
