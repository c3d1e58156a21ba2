"""The loops of `crs_sim.rosenbrock` and `crs_sim.walk`, compiled. The only door to numba.

Per model one file is written into the cache folder: the model's functions, then the step loop, so
that numba can keep its machine code beside it. The first run ever on a machine compiles.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from . import codecache, rosenbrock, walk
from .codegen import code_key
from .machinecode import Machine, processor
from .model import Model
from .rosenbrock import (
    DAY,
    DONE,
    ENTRIES,
    MOVING,
    OTHER_ORDER,
    REJECTED,
    RTOL,
    SEGMENT,
    STATUS,
    USED,
)  # fmt: skip
from .timeline import Timeline, amounts, parameter_versions

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MADE_OF = ("rosenbrock", "lanes", "vectors", "machinecode")
"""The modules, beside those of the plain code, whose text decides what is compiled."""
MOST_KEPT = 100_000
"""Steps kept for a replay."""
OPTIONS = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}}
compiled = partial(numba.njit, **OPTIONS)


KNOWN: dict[str, Kernel] = {}
"""Kernels of this process by key."""
LOOPS: dict[str, Any] = {}
"""The step loop of this process by key."""
ONE_AT_A_TIME = threading.RLock()
"""Held while compiling: threads that ask for one kernel get one kernel."""
DRIVERS = (
    rosenbrock.fraction,
    rosenbrock.worst_error,
    rosenbrock.write_down,
    rosenbrock.sample,
    rosenbrock.first_step,
    rosenbrock.next_step,
    rosenbrock.finite,
    rosenbrock.advance,
    walk.choose,
    walk.arrange,
    walk.moved,
    walk.steady,
    walk.leave,
    walk.give,
    walk.begin,
    walk.name,
    walk.run_many,
)
HEAD = """\"\"\"The step loop, for numba to keep its machine code beside.\"\"\"
from __future__ import annotations
import math
import numpy as np
from crs_sim.kernel import call, call_with, compiled
from crs_sim.rosenbrock import {names}
from crs_sim.walk import {more}
"""


def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    address, array, *numbers = args
    data = context.make_array(signature.args[1])(context, builder, array).data
    double = ir.DoubleType()
    kind = ir.FunctionType(ir.VoidType(), [double.as_pointer(), *[double] * len(numbers)])
    builder.call(builder.inttoptr(address, kind.as_pointer()), [data, *numbers])
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def call(typing: Any, address: Any, w: Any) -> Any:
    """Call the machine code at an address on a work array."""
    return types.void(types.int64, w), _emit


@intrinsic  # type: ignore[untyped-decorator]
def call_with(typing: Any, address: Any, w: Any, number: Any) -> Any:
    """Call the machine code at an address on a work array and a number."""
    return types.void(types.int64, w, types.float64), _emit


ARRAY = types.float64[::1]
INDICES = types.int64[::1]
TABLE, INTEGERS, STACK = types.float64[:, ::1], types.int64[:, ::1], types.float64[:, :, ::1]
SIGNATURE = types.void(
    INDICES, ARRAY, INTEGERS, ARRAY, INDICES, INDICES, INTEGERS, ARRAY, STACK, TABLE, TABLE,
    types.boolean, STACK, STACK, ARRAY, TABLE, INTEGERS, TABLE,
)  # fmt: skip
"""Of `walk.run_many`: given beforehand, so that nothing is compiled at the first call."""


@dataclass(frozen=True)
class Runs:
    """What came of many runs of one timeline.

    Parameters
    ----------
    states : (n_runs, n_days, n_states); from the day a run failed on, NaN
    quantities : (n_runs, n_days, n_quantities)
    final : (n_runs, n_states) where each run ended, or failed
    status : (n_runs,) one of `rosenbrock.WORDS`; 0 if all went well
    reached : (n_runs,) last day reached
    segment : (n_runs,) last segment begun
    accepted, rejected : (n_runs,) steps
    steps : sizes of the accepted steps of the first run, for `Kernel.replay`; 0 where a steady
        state was reached
    moving : (n_runs,) the state that moved most in the last cycle before a steady state
    """

    states: Array
    quantities: Array
    final: Array
    status: Indices
    reached: Array
    segment: Indices
    accepted: Indices
    rejected: Indices
    steps: Array
    moving: Indices


@dataclass(frozen=True, eq=False)
class Kernel:
    """A model's compiled step loop."""

    machine: Machine
    model: Indices
    loop: Any
    n_states: int
    n_quantities: int

    def run(
        self, line: Timeline, values: Array, *, rtol: float = 1e-6, start: Array | None = None
    ) -> Runs:
        """Run a timeline for many parameter vectors, four at a time, with error control.

        Parameters
        ----------
        line : Timeline, cut again for values under which doses come at other times
        values : (n_runs, n_parameters)
        rtol : float
        start : (n_runs, n_states), instead of the model's initial states

        A failed run takes nothing with it: the others of its four are run again by themselves.
        """
        parts = []
        for rows in _together(line, values):
            begin = None if start is None else start[rows]
            parts.append((rows, self._run(line.at(values[rows[0]]), values[rows], rtol, begin)))
        return _gathered(parts)

    def _run(self, line: Timeline, values: Array, rtol: float, start: Array | None) -> Runs:
        runs = self._call(line, values, rtol, start, np.empty(MOST_KEPT))
        failed = np.flatnonzero(runs.status != DONE)
        if len(values) == 1 or len(failed) == 0:
            return runs
        for i in failed:
            one = slice(i, i + 1)
            begin = None if start is None else start[one]
            alone = self._call(line, values[one], rtol, begin, np.empty(MOST_KEPT))
            for name in ("states", "quantities", "final", "status", "reached", "segment", "moving"):
                getattr(runs, name)[one] = getattr(alone, name)
        return runs

    def begun(self, line: Timeline, values: Array) -> Runs:
        """Day 0 alone, before any dose: the model's initial states for values (n_parameters,)."""
        first = replace(line, edges=line.edges[:1])
        return self._call(first.sampled(line.edges[:1]), values[None], 0.0, None, np.empty(0))

    def replay(
        self, line: Timeline, values: Array, steps: Array, *, start: Array | None = None
    ) -> Runs:
        """Run a timeline over the steps of another run (`Runs.steps`), without error control.

        With the same steps the outcome depends smoothly on the parameters: a difference between
        two runs is a derivative and not noise. Where a value moves a dose, the steps stretch with
        the segments; ``line`` is the timeline as the run that is followed had it.
        """
        parts = []
        for rows in _together(line, values):
            other = line.at(values[rows[0]])
            follow = steps if other is line else line.carried(steps, other)
            begin = None if start is None else start[rows]
            if follow is None:
                runs = self._call(other, values[rows], 0.0, begin, np.empty(0), following=True)
                runs.status[:] = OTHER_ORDER
            else:
                runs = self._call(other, values[rows], 0.0, begin, follow, following=True)
            parts.append((rows, runs))
        return _gathered(parts)

    def _call(
        self, line: Timeline, values: Array, rtol: float, start: Array | None, steps: Array,
        following: bool = False,
    ) -> Runs:  # fmt: skip
        n_runs, given = len(values), line.given
        shape = (n_runs, len(line.days))
        states = np.full((*shape, self.n_states), np.nan)
        named = np.full((*shape, self.n_quantities), np.nan)
        final = np.zeros((n_runs, self.n_states))
        counts, clock = np.zeros((n_runs, ENTRIES), dtype=np.int64), np.zeros((n_runs, 2))
        clock[:, RTOL] = rtol
        parameters, amount = parameter_versions(line, values), amounts(line, values)
        self.loop(
            self.model, line.edges, line.marks, line.days, line.version, line.version_at,
            np.array([given.first, given.after, given.state]), given.duration, parameters, amount,
            np.zeros((0, self.n_states)) if start is None else np.ascontiguousarray(start),
            following, states, named, steps, final, counts, clock,
        )  # fmt: skip
        return Runs(
            states, named, final, counts[:, STATUS], clock[:, DAY], counts[:, SEGMENT],
            counts[:, USED], counts[:, REJECTED], steps[: counts[0, USED]], counts[:, MOVING],
        )  # fmt: skip


def _together(line: Timeline, values: Array) -> list[Indices]:
    """Rows of values under which doses come at the same times, the first row's first."""
    if not len(line.moving) or len(values) == 0:
        return [np.arange(len(values))]
    _, which = np.unique(values[:, line.moving], axis=0, return_inverse=True)
    kinds = dict.fromkeys(which.ravel().tolist())
    return [np.flatnonzero(which.ravel() == kind) for kind in kinds]


def _gathered(parts: list[tuple[Indices, Runs]]) -> Runs:
    """Runs of several cuts of a timeline as one, in the order of their rows; steps of the first."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    columns = {
        name: np.concatenate([getattr(runs, name) for _, runs in parts])[order]
        for name in Runs.__dataclass_fields__
        if name != "steps"
    }
    return Runs(**columns, steps=parts[0][1].steps)


def compile_kernel(model: Model, say: Callable[[str], None] | None = None) -> Kernel:
    """The compiled form of a model, made once and kept in memory and on disk.

    A kernel may be run from several threads at once.

    Parameters
    ----------
    model : Model
    say : called with a line of text before anything that takes seconds; by default the line
        goes to standard error

    Raises
    ------
    ModelError, UnknownNameError
        As `crs_sim.codegen.compile_model`.
    """
    ours = codecache.made_by(MADE_OF, ("llvmlite",))
    key = codecache.fingerprint(code_key(model), ours, processor())
    with ONE_AT_A_TIME:
        if key not in KNOWN:
            KNOWN[key] = _kernel(model, key, step_loop(say))
    return KNOWN[key]


def _kernel(model: Model, key: str, loop: Any) -> Kernel:
    path = codecache.stored(f"{model.name}_lanes_{key}.py", lambda: _write(model))
    module = codecache.load(path)
    machine = Machine(f"{model.name}_{key}", lambda: _instructions(module))
    places = [module.PLACES[name] for name in rosenbrock.PLACES]
    numbers = np.array([*machine.addresses(rosenbrock.FUNCTIONS), *places])
    return Kernel(machine, numbers, loop, len(model.states), len(model.quantities))


def step_loop(say: Callable[[str], None] | None = None) -> Any:
    """The compiled `walk.run_many`, from numba's cache if it is there and sound."""
    ours = codecache.made_by(("rosenbrock", "walk", "kernel"), ("numba", "numpy"))
    key = codecache.fingerprint(ours, processor())
    if key not in LOOPS:
        LOOPS[key] = _step_loop(key, say or _to_stderr)
    return LOOPS[key]


def _step_loop(key: str, say: Callable[[str], None]) -> Any:
    path = codecache.stored(f"step_loop_{key}.py", _loop_text)
    run_many = codecache.load(path).run_many
    kept = Path(run_many.stats.cache_path)
    if not list(kept.glob(f"{path.stem}*.nbc")):
        say("crs-sim: compiling the solver, once for this machine; this takes about 10 s")
    try:
        run_many.compile(SIGNATURE)
    except (EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError):
        for broken in kept.glob(f"{path.stem}*.nb?"):
            broken.unlink(missing_ok=True)
        run_many = codecache.load(path).run_many
        run_many.compile(SIGNATURE)
    return run_many


def _loop_text() -> str:
    names = ["Array", "Counters", *(n for n in vars(rosenbrock) if n.isupper())]
    more = [n for n in vars(walk) if n.isupper() and n not in names]
    texts = [inspect.getsource(function) for function in DRIVERS]
    marked = [f"@compiled()\n{text}" for text in texts[:-1]] + [
        f"@compiled(cache=True)\n{texts[-1]}"
    ]
    return "\n\n".join([HEAD.format(names=", ".join(names), more=", ".join(more)), *marked])


def _write(model: Model) -> str:
    from .lanes import generate

    return generate(model)


def _instructions(module: Any) -> str:
    from .lanes import machine_text

    return machine_text(module)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
