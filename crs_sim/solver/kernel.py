"""The compiled loops joined to a model: `Kernel` runs it, replays it, and gives its gradients.

Both the step loop, one for all models, and a model's functions are machine code in the cache
folder, called by address: the compilers are loaded only when it is missing there.

An adaptive solver takes other steps for other parameters, and a difference of two such runs is
mostly noise. Over the steps of one run (`crs_sim.solver.Kernel.replay`) the result is a smooth
function of the parameters, so a small difference quotient is as good as a derivative; four
parameters are varied at a time, side by side.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dosing import Timeline, amounts, parameter_versions
from ..errors import CrsSimError
from ..model import Array, Indices, Model, code_key
from ..store import cached_text, fingerprint, load_generated, source_fingerprint
from . import rosenbrock
from .machine_code import Machine, object_file, processor
from .rosenbrock import (
    DAY,
    DONE,
    ENTRIES,
    HEAD,
    LANES,
    MOVING,
    NL,
    NODES,
    OTHER_ORDER,
    PIECES,
    REJECTED,
    RTOL,
    SEGMENT,
    STATUS,
    USED,
    WORK,
)
from .segment_loop import ARGUMENTS, Members, Plan, Room, Runs, Tables, gathered, kinds

MADE_OF = ("solver/rosenbrock", "solver/simd_code", "solver/machine_code")
"""The modules that determine what is compiled for a model, beside those of the plain code."""
LOOP_MADE_OF = ("dosing/event_times", *(f"solver/{name}" for name in (
    "rosenbrock", "segment_loop", "step_loop", "machine_code")))  # fmt: skip
"""The modules that determine the step loop."""
MOST_KEPT = 100_000
"""Steps stored for a replay."""
PIECES_AT_FIRST = 4096
"""Steps for which there is room at first where courses between samples are kept."""

KNOWN: dict[str, Kernel] = {}
"""Kernels of this process by key."""
LOOPS: dict[str, Loop] = {}
"""The step loop of this process by key."""
ONE_AT_A_TIME = threading.RLock()
"""Held while compiling, so that threads that need the same kernel compile it once."""

ADDRESSES = np.ctypeslib.ndpointer(np.int64, 1, flags="C_CONTIGUOUS")
"""Addresses of arrays, or their lengths, as `step_loop.enter` takes them."""
TAKEN = [named for group in ARGUMENTS for named in kinds(group).items()]
"""Name and kind of every array that goes with them, in order."""


@dataclass(frozen=True, eq=False)
class Loop:
    """The compiled `segment_loop.run_many`."""

    machine: Machine
    function: Callable[..., int]

    def __call__(
        self, plan: Plan, members: Members, *, tables: Tables, room: Room, following: bool
    ) -> None:
        """Call it; other threads run meanwhile.

        Raises
        ------
        TypeError
            For an array of another kind than compiled: it would be read as if it were of that kind.
        """
        arrays: list[Array | Indices] = [*plan, *members, *tables, *room]
        for array, (name, kind) in zip(arrays, TAKEN, strict=True):
            alike = array.dtype == kind.dtype and array.ndim == kind.dimensions
            if not (alike and array.flags.c_contiguous):
                raise TypeError(
                    f"{name}: {array.dtype} array of {array.ndim} dimensions where compiled code "
                    f"takes a contiguous {kind.dtype} array of {kind.dimensions}"
                )
        addresses = np.array([array.ctypes.data for array in arrays], dtype=np.int64)
        lengths = np.array([n for array in arrays for n in array.shape], dtype=np.int64)
        nothing = ctypes.byref(ctypes.c_void_p())  # for a result and an error, of which none comes
        status = self.function(nothing, nothing, addresses, lengths, following)
        assert status == 0


@dataclass(frozen=True, eq=False)
class Asked:
    """How some runs are to be made: see `Kernel.run` and `Kernel.replay`."""

    rtol: float = 0.0
    start: Array | None = None
    steps: Array = field(default_factory=lambda: np.empty(0))
    watched: tuple[int, ...] = ()
    following: bool = False


@dataclass(frozen=True, eq=False)
class Kernel:
    """A model's compiled step loop."""

    machine: Machine
    model: Indices
    loop: Loop
    n_states: int
    n_quantities: int

    def run(
        self, line: Timeline, values: Array, *, rtol: float = 1e-6, start: Array | None = None,
        watched: Sequence[int] = (),
    ) -> Runs:  # fmt: skip
        """Run a timeline for many parameter vectors, four at a time, with error control.

        Parameters
        ----------
        line : Timeline, cut again for values under which doses come at other times
        values : (n_runs, n_parameters)
        rtol : float
        start : (n_runs, n_states), instead of the model's initial states
        watched : indices of the states whose courses between the samples are kept

        A failed run does not affect the three beside it: failed ones are run again on their own.
        """
        parts = []
        for rows in _together(line, values):
            begin = None if start is None else start[rows]
            asked = Asked(rtol, begin, np.empty(MOST_KEPT), tuple(watched))
            parts.append((rows, self._run(line.at(values[rows[0]]), values[rows], asked)))
        return gathered(parts)

    def _run(self, line: Timeline, values: Array, asked: Asked) -> Runs:
        runs, start = self._call(line, values, asked), asked.start
        failed = np.flatnonzero(runs.status != DONE)
        if len(values) == 1 or len(failed) == 0:
            return runs
        for i in failed:
            one = slice(i, i + 1)
            begin = None if start is None else start[one]
            own = replace(asked, start=begin, steps=np.empty(MOST_KEPT))
            alone = self._call(line, values[one], own)
            for name in ("states", "quantities", "final", "status", "reached", "segment", "moving"):
                getattr(runs, name)[one] = getattr(alone, name)
            runs.pieces[one] = alone.pieces
        return runs

    def begun(self, line: Timeline, values: Array) -> Runs:
        """Day 0 alone, before any dose: the model's initial states for values (n_parameters,)."""
        first = replace(line, edges=line.edges[:1])
        every = Asked(watched=tuple(range(self.n_states)))
        return self._call(first.sampled(line.edges[:1]), values[None], every, most=1)

    def replay(
        self, line: Timeline, values: Array, steps: Array, *, start: Array | None = None,
        watched: Sequence[int] = (),
    ) -> Runs:  # fmt: skip
        """Run a timeline over the steps of another run (`Runs.steps`), without error control.

        With the same steps the outcome depends smoothly on the parameters: a difference between
        two runs is a derivative and not noise. Where a value moves a dose, the steps are scaled
        with the segments; ``line`` is the timeline of the run whose steps are repeated.
        """
        parts = []
        for rows in _together(line, values):
            other = line.at(values[rows[0]])
            follow = steps if other is line else line.carried(steps, other)
            begin = None if start is None else start[rows]
            taken = np.empty(0) if follow is None else follow
            asked = Asked(0.0, begin, taken, tuple(watched), following=True)
            runs = self._call(other, values[rows], asked)
            if follow is None:
                runs.status[:] = OTHER_ORDER
            parts.append((rows, runs))
        return gathered(parts)

    def _call(
        self, line: Timeline, values: Array, asked: Asked, most: int = PIECES_AT_FIRST
    ) -> Runs:
        given = np.array([line.given.first, line.given.after, line.given.state])
        plan = Plan(
            line.edges, line.marks, line.days, line.version, line.version_at, given,
            line.given.duration, np.array(asked.watched, dtype=np.int64),
        )  # fmt: skip
        start, steps = asked.start, asked.steps
        own = np.zeros((0, self.n_states)) if start is None else np.ascontiguousarray(start)
        members = Members(parameter_versions(line, values), amounts(line, values), own)
        tables = self._tables((len(values), len(line.days), most), asked)
        row = self.model[NL]
        room = Room(self.model, np.zeros(self.model[WORK]), np.zeros(row), np.zeros(row))
        self.loop(plan, members, tables=tables, room=room, following=asked.following)
        leader = np.arange(len(values)) // LANES * LANES  # four runs share their steps
        counts, clock = tables.counts[leader], tables.clock[leader]
        longest = int(counts[:, PIECES].max(initial=0))
        if asked.watched and longest > most:
            return self._call(line, values, asked, longest)
        pieces = [
            tables.pieces[i // LANES, :n, :, i % LANES].T for i, n in enumerate(counts[:, PIECES])
        ]
        return Runs(
            tables.states, tables.named, tables.final, counts[:, STATUS], clock[:, DAY],
            counts[:, SEGMENT], counts[:, USED], counts[:, REJECTED], steps[: counts[0, USED]],
            counts[:, MOVING], pieces,
        )  # fmt: skip

    def _tables(self, shape: tuple[int, int, int], asked: Asked) -> Tables:
        """Empty tables for this many runs, days and pieces, for the loop to fill."""
        n_runs, n_days, n_pieces = shape
        counts, clock = np.zeros((n_runs, ENTRIES), dtype=np.int64), np.zeros((n_runs, 2))
        clock[:, RTOL] = asked.rtol
        states = np.full((n_runs, n_days, self.n_states), np.nan)
        named = np.full((n_runs, n_days, self.n_quantities), np.nan)
        groups, rows = -(-n_runs // LANES), HEAD + NODES * len(asked.watched)
        pieces = np.empty((groups, n_pieces if asked.watched else 0, rows, LANES))
        final = np.zeros((n_runs, self.n_states))
        return Tables(states, named, final, asked.steps, counts, clock, pieces)


def _together(line: Timeline, values: Array) -> list[Indices]:
    """Rows of values under which doses come at the same times, the first row's first."""
    if not len(line.moving) or len(values) == 0:
        return [np.arange(len(values))]
    _, which = np.unique(values[:, line.moving], axis=0, return_inverse=True)
    kinds = dict.fromkeys(which.ravel().tolist())
    return [np.flatnonzero(which.ravel() == kind) for kind in kinds]


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
        As `crs_sim.model.compile_model`.
    """
    ours = source_fingerprint(MADE_OF, ("llvmlite",))
    key = fingerprint(code_key(model), ours, processor())
    with ONE_AT_A_TIME:
        if key not in KNOWN:
            with ThreadPoolExecutor(1) as beside:
                loop = beside.submit(step_loop, say)
                machine, numbers = _functions(model, key)
            sizes = len(model.states), len(model.quantities)
            KNOWN[key] = Kernel(machine, numbers, loop.result(), *sizes)
    return KNOWN[key]


def _functions(model: Model, key: str) -> tuple[Machine, Indices]:
    """A model's machine code, and the addresses and places that the step loop needs."""
    path = cached_text(f"{model.name}_lanes_{key}.py", lambda: _write(model))
    module = load_generated(path)
    machine = Machine(f"{model.name}_{key}", lambda: _instructions(module))
    places = [module.PLACES[name] for name in rosenbrock.PLACES]
    return machine, np.array([*machine.addresses(rosenbrock.FUNCTIONS), *places])


def step_loop(say: Callable[[str], None] | None = None) -> Loop:
    """The compiled `segment_loop.run_many`, from the cache if it is there and undamaged."""
    ours = source_fingerprint(LOOP_MADE_OF, ("numba", "llvmlite"))
    key = fingerprint(ours, processor())
    if key not in LOOPS:
        machine = Machine(
            f"step_loop_{key}",
            lambda: _compiled_loop(say or partial(print, file=sys.stderr, flush=True)),
        )
        pointers = (ctypes.c_void_p, ctypes.c_void_p, ADDRESSES, ADDRESSES)
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, ctypes.c_int64)
        (address,) = machine.addresses(["step_loop"])
        LOOPS[key] = Loop(machine, kind(address))
    return LOOPS[key]


def _compiled_loop(say: Callable[[str], None]) -> bytes:
    """The object file of the step loop, made by another process while this one compiles a model.

    So numba, and the environment variable that turns its optimizer off, stay out of this process.
    """
    say("crs-sim: compiling the solver, once for this machine; this takes about 10 s")
    paths = (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH"))
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NUMBA_OPT": "0"}
    with suppress(OSError):
        command = [sys.executable, "-P", "-m", "crs_sim.solver.step_loop"]
        environment = {**os.environ, **ours}
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if done.returncode < 0:
            raise CrsSimError(f"the compiler was stopped (signal {-done.returncode}): run it again")
    from .step_loop import machine_code

    return machine_code()


def _write(model: Model) -> str:
    from .simd_code import generate

    return generate(model)


def _instructions(module: Any) -> bytes:
    from .simd_code import machine_text

    return object_file(machine_text(module))


LOG_STEP = 1e-7
"""Change of a parameter's logarithm: rounding (1e-16/1e-6) and curvature (1e-6) stay small."""


@dataclass(frozen=True)
class Gradient:
    """A run and its derivatives by the logarithm of some parameters.

    Parameters
    ----------
    run : Runs, of one run
    states : (n_free, n_days, n_states) change per unit of the natural logarithm
    quantities : (n_free, n_days, n_quantities)
    failed : (n_free,) bool, where the varied run failed and the derivative is not a number
    """

    run: Runs
    states: Array
    quantities: Array
    failed: NDArray[np.bool_]


def gradient(
    kernel: Kernel, line: Timeline, values: Array, free: Sequence[int], *, rtol: float = 1e-6
) -> Gradient:
    """Run a timeline once with error control, then once more for each free parameter.

    Parameters
    ----------
    kernel, line : what is run
    values : (n_parameters,), none of the free ones 0
    free : indices of the parameters to vary
    rtol : float, of the run itself; the derivatives are as accurate as it is
    """
    line = line.at(values)
    run = kernel.run(line, values[None], rtol=rtol)
    varied = side_by_side(kernel, line, values, free, run.steps)
    states, quantities = varied.states - run.states, varied.quantities - run.quantities
    return Gradient(run, states / LOG_STEP, quantities / LOG_STEP, varied.status != 0)


def side_by_side(
    kernel: Kernel, line: Timeline, values: Array, free: Sequence[int], steps: Array,
    log_step: float | Array = LOG_STEP, watched: Sequence[int] = (),
) -> Runs:  # fmt: skip
    """A run over its own steps again (`Runs.steps`), once for each free parameter, varied.

    With unchanged parameters it would be the same to the last bit: the run itself is the reference.
    Parameters as of `gradient`; ``log_step`` is the change of each free parameter's logarithm, one
    for all or (n_free,), ``watched`` as of `Kernel.run`.
    """
    table = np.tile(values, (len(free), 1))
    table[range(len(free)), list(free)] *= np.exp(log_step)
    return kernel.replay(line, table, steps, watched=watched)
