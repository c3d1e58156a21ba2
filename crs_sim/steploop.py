"""The loops of `crs_sim.rosenbrock` and `crs_sim.walk` made into machine code.

The only door to numba, which is loaded when there is no machine code yet and never again: the
first run ever on a machine compiles. As a program it writes the machine code to standard output;
it may then be told to optimize nothing (``NUMBA_OPT=0``), since `object_file` does so at once for
the whole.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from types import FunctionType
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from . import rosenbrock, walk
from .machinecode import object_file
from .rosenbrock import Array, Counters
from .walk import run_many

OPTIONS = {
    "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False, "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # fmt: skip
"""No array is made inside and nothing is called from Python: what serves these is left out."""
compiled = partial(numba.njit, **OPTIONS)
DRIVERS = (
    rosenbrock.fraction,
    rosenbrock.ease,
    rosenbrock.worst_error,
    rosenbrock.write_down,
    rosenbrock.sample,
    rosenbrock.first_step,
    rosenbrock.next_step,
    rosenbrock.finite,
    rosenbrock.advance,
    walk.clear,
    walk.keep,
    walk.share,
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
POINTERS = {"i": types.CPointer(types.int64), "f": types.CPointer(types.float64)}


def _emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    address, data, *numbers = args
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


@intrinsic  # type: ignore[untyped-decorator]
def view(typing: Any, pointer: Any, lengths: Any) -> Any:
    """The array of these lengths that begins at a pointer."""
    kind = types.Array(pointer.dtype, len(lengths), "C")
    return kind(pointer, lengths), _view


def _view(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.return_type)(context, builder)
    shape = cgutils.unpack_tuple(builder, args[1])
    size = context.get_constant(types.intp, 8)
    strides = [size]
    for n in reversed(shape[1:]):
        strides.insert(0, builder.mul(n, strides[0]))
    populate_array(array, args[0], shape, strides, size, None)
    return array._getvalue()


def enter(
    n: Counters, m: Counters, edges: Array, marks: Counters, days: Array, version: Counters,
    version_at: Counters, given: Counters, duration: Array, parameters: Array, amount: Array,
    start: Array, states: Array, named: Array, steps: Array, final: Array, counts: Counters,
    clock: Array, w: Array, before: Array, aside: Array,
) -> None:  # fmt: skip
    """`walk.run_many` for pointers: ``n`` says whether steps are followed, then each array's
    lengths."""
    run_many(
        m, view(edges, (n[2],)), view(marks, (n[3], n[4])), view(days, (n[5],)), version,
        version_at, view(given, (n[8], n[9])), view(duration, (n[10],)),
        view(parameters, (n[11], n[12], n[13])), view(amount, (n[14], n[15])),
        view(start, (n[16], n[17])), n[0] != 0, view(states, (n[18], n[19], n[20])),
        view(named, (n[21], n[22], n[23])), view(steps, (n[24],)),
        view(final, (n[25], n[26])), view(counts, (n[27], n[28])),
        view(clock, (n[29], n[30])), w, before, aside,
    )  # fmt: skip


def machine_code() -> bytes:
    """The object file of the loops, with `enter` as ``step_loop``."""
    known = {**vars(rosenbrock), **vars(walk), "call": call, "call_with": call_with, "view": view}
    for driver in DRIVERS:
        known[driver.__name__] = compiled(FunctionType(driver.__code__, known))
    whole = compiled(FunctionType(enter.__code__, known))
    whole.compile(types.void(*(POINTERS[array[0]] for array in ("i1", *walk.ARRAYS))))
    text = str(whole.inspect_llvm(whole.signatures[0]))
    (mangled,) = re.findall(r"^define [^@\n]*@(\w*enter\w*)\(", text, re.MULTILINE)
    return object_file(re.sub(rf"@{mangled}\b", "@step_loop", text))


if __name__ == "__main__":
    sys.stdout.buffer.write(machine_code())
