"""The step loop of `crs_sim.rosenbrock` compiled for one model. The only door to numba.

Per model one file is written into the cache folder: the model's functions, then the step loop, so
that numba can keep its machine code beside it. The first run ever on a machine compiles.
"""

from __future__ import annotations

import inspect
import platform
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from . import codecache, primitives, rosenbrock
from .codegen import code_key, write_source
from .model import Model

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
compiled = numba.njit(**OPTIONS)
cached = numba.njit(cache=True, **OPTIONS)

ENTRY = '''
@cached
def run_many(edges, days, version, version_at, parameters, first, after, state, duration, amount,
    rtol, following, states, named, steps, counts, clock, status):
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
                status[i] = follow(w, c, a, edges[segment], edges[segment + 1], counts[i], clock[i], days, states[i], steps)
            else:
                status[i] = advance(w, c, a, edges[segment], edges[segment + 1], counts[i], clock[i], days, states[i], steps)
        for row in range(counts[i, ROW]):
            quantities(states[i, row], table[version_at[row]], named[i, row])
'''


def kernel(model: Model) -> Any:
    ours = codecache.own_source("rosenbrock", "timeline", "kernel")
    versions = (numba.__version__, np.__version__, platform.python_version())
    key = codecache.fingerprint(code_key(model), ours, *versions)
    path = codecache.stored(f"{model.name}_kernel_{key}.py", lambda: source(model))
    return codecache.load(path)


def source(model: Model) -> str:
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
