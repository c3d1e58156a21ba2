"""The loops of `rosenbrock` and `segment_loop` made into machine code.

The only door to numba, which is loaded only when there is no machine code yet: the first run ever
on a machine compiles. As a program it writes the machine code to standard output; numba need not
optimize then (``NUMBA_OPT=0``), since `object_file` optimizes the whole in one go.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from types import FunctionType
from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from . import rosenbrock, segment_loop
from .machine_code import object_file
from .segment_loop import run_many

OPTIONS = {
    "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False, "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # fmt: skip
"""The code makes no arrays and is not called from Python, so support for both is left out."""
compiled = partial(numba.njit, **OPTIONS)
DRIVERS = (
    rosenbrock.fraction,
    rosenbrock.ease,
    rosenbrock.worst_error,
    rosenbrock.write_down,
    rosenbrock.sample,
    rosenbrock.note_piece,
    rosenbrock.first_step,
    rosenbrock.next_step,
    rosenbrock.finite,
    rosenbrock.advance,
    segment_loop.clear,
    segment_loop.keep,
    segment_loop.load_parameters,
    segment_loop.arrange,
    segment_loop.largest_change,
    segment_loop.steady,
    segment_loop.cycle_ends,
    segment_loop.apply_doses,
    segment_loop.initialize,
    segment_loop.fill_quantities,
    segment_loop.run_four,
    segment_loop.run_many,
)
NUMBERS = types.CPointer(types.int64)


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
def arguments(typing: Any, addresses: Any, lengths: Any) -> Any:
    """The `segment_loop.ARGUMENTS` whose arrays begin at these addresses, with these lengths."""
    groups = [_tuple_type(group) for group in segment_loop.ARGUMENTS]
    return types.Tuple(groups)(addresses, lengths), _arguments


def _tuple_type(group: type[tuple[Any, ...]]) -> Any:
    arrays = []
    for kind in segment_loop.kinds(group).values():
        entry = getattr(types, kind.dtype)
        whole = types.Array(entry, kind.dimensions, "C")
        arrays.append(types.CPointer(entry) if kind.bare else whole)
    return types.BaseTuple.from_types(arrays, group)


def _arguments(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    addresses, lengths = (_in_turn(builder, pointer) for pointer in args)
    groups = [
        context.make_tuple(
            builder, group, [_view(context, builder, kind, addresses, lengths) for kind in group]
        )
        for group in signature.return_type
    ]
    return context.make_tuple(builder, signature.return_type, groups)


def _in_turn(builder: Any, pointer: Any) -> Iterator[Any]:
    """The integers at a pointer, one after the other."""
    for k in count():
        place = builder.gep(pointer, [ir.Constant(ir.IntType(64), k)], source_etype=ir.IntType(64))
        yield builder.load(place, typ=ir.IntType(64))


def _view(
    context: Any, builder: Any, kind: Any, addresses: Iterator[Any], lengths: Iterator[Any]
) -> Any:
    """An array of this kind at the next address, with the next lengths."""
    data = builder.inttoptr(next(addresses), context.get_data_type(kind.dtype).as_pointer())
    if isinstance(kind, types.CPointer):
        next(lengths)
        return data
    array = context.make_array(kind)(context, builder)
    shape = list(islice(lengths, kind.ndim))
    size = context.get_constant(types.intp, 8)
    strides = [size]
    for n in reversed(shape[1:]):
        strides.insert(0, builder.mul(n, strides[0]))
    populate_array(array, data, shape, strides, size, None)
    return array._getvalue()


def enter(addresses: int, lengths: int, following: int) -> None:
    """`segment_loop.run_many` of arrays given by their addresses, and all lengths in order."""
    plan, members, tables, room = arguments(addresses, lengths)
    run_many(plan, members, tables, room, following != 0)


def machine_code() -> bytes:
    """The object file of the loops, with `enter` as ``step_loop``."""
    ours = {"call": call, "call_with": call_with, "arguments": arguments}
    known = {**vars(rosenbrock), **vars(segment_loop), **ours}
    for driver in DRIVERS:
        known[driver.__name__] = compiled(FunctionType(driver.__code__, known))
    whole = compiled(FunctionType(enter.__code__, known))
    whole.compile(types.void(NUMBERS, NUMBERS, types.int64))
    text = str(whole.inspect_llvm(whole.signatures[0]))
    (mangled,) = re.findall(r"^define [^@\n]*@(\w*enter\w*)\(", text, re.MULTILINE)
    return object_file(re.sub(rf"@{mangled}\b", "@step_loop", text))


if __name__ == "__main__":
    sys.stdout.buffer.write(machine_code())
