"""Straight-line Python made into machine code for this processor, and kept on disk.

A function that takes an array ``w`` and does nothing but arithmetic on its entries (no branch, no
loop over data) is called once with a `Memory` whose entries are `Vector`s: each operation writes
one LLVM instruction, which acts on four SIMD lanes at once. `assemble` makes a text of such
functions, `object_file` compiles it, and `Machine` loads what was compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import llvmlite.binding as llvm  # type: ignore[import-untyped]
from llvmlite import ir  # type: ignore[import-untyped]

from ..store import cached_bytes, read_cached

LANES = 4
DOUBLE = ir.VectorType(ir.DoubleType(), LANES)
WHOLE = ir.VectorType(ir.IntType(64), LANES)
FUSE = ("contract",)
"""Allows a product and a sum to become one instruction."""
EXP_TERMS = tuple(1.0 / math.factorial(k) for k in range(14))
LOG_TERMS = tuple(1.0 / k for k in range(3, 22, 2))


class Vector:
    """Four numbers of the program that is being written; arithmetic on them writes instructions."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        """A value of that builder."""
        self.builder, self.value = builder, value

    def like(self, other: Vector | float) -> Vector:
        """A number as a vector beside this one."""
        if isinstance(other, Vector):
            return other
        return Vector(self.builder, ir.Constant(DOUBLE, [float(other)] * LANES))

    def _with(self, operation: str, left: Vector | float, right: Vector | float) -> Vector:
        write = getattr(self.builder, operation)
        value = write(self.like(left).value, self.like(right).value, flags=FUSE)
        return Vector(self.builder, value)

    def __add__(self, other: Vector | float) -> Vector:
        """Sum."""
        return self._with("fadd", self, other)

    __radd__ = __add__

    def __sub__(self, other: Vector | float) -> Vector:
        """Difference."""
        return self._with("fsub", self, other)

    def __rsub__(self, other: float) -> Vector:
        """Difference from a number."""
        return self._with("fsub", other, self)

    def __mul__(self, other: Vector | float) -> Vector:
        """Product."""
        return self._with("fmul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Vector | float) -> Vector:
        """Quotient."""
        return self._with("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Vector:
        """Quotient of a number."""
        return self._with("fdiv", other, self)

    def __neg__(self) -> Vector:
        """Negative."""
        return self._with("fsub", -0.0, self)

    def when(self, relation: str, limit: Vector | float, otherwise: Vector | float) -> Vector:
        """This where it is in that relation to the limit, else the other; NaN is in none."""
        return choose(self, relation, limit, self, otherwise)

    def integer(self) -> Any:
        """Its bits."""
        return self.builder.bitcast(self.value, WHOLE)

    def from_integer(self, bits: Any) -> Vector:
        """The vector of these bits."""
        return Vector(self.builder, self.builder.bitcast(bits, DOUBLE))


def choose(
    x: Vector, relation: str, limit: Vector | float, yes: Vector | float, no: Vector | float
) -> Vector:
    """``yes`` where x is in relation (">", "==", ...) to the limit, else ``no``."""
    test = x.builder.fcmp_ordered(relation, x.value, x.like(limit).value)
    return Vector(x.builder, x.builder.select(test, x.like(yes).value, x.like(no).value))


def _index(k: int) -> Any:
    return ir.Constant(ir.IntType(32), k)


class Memory:
    """The rows of a work array, four lanes each, behind a pointer."""

    def __init__(self, builder: Any, pointer: Any) -> None:
        """Rows that begin at the pointer."""
        self.builder, self.pointer = builder, pointer

    def call(self, name: str, *numbers: Vector) -> None:
        """Call another function of the module on the same array."""
        whole = self.builder.module.globals[name]
        zero = _index(0)
        scalars = [self.builder.extract_element(x.value, zero) for x in numbers]
        self.builder.call(whole, [self.pointer, *scalars])

    def sweep(self, rows: int, act: Callable[[Memory], None]) -> None:
        """Act on ``rows`` rows in turn: the i-th time, row k is row k + i."""
        builder, count = self.builder, ir.IntType(64)
        before = builder.block
        body, after = builder.append_basic_block(), builder.append_basic_block()
        builder.branch(body)
        builder.position_at_end(body)
        i = builder.phi(count)
        i.add_incoming(ir.Constant(count, 0), before)
        offset = builder.mul(i, ir.Constant(count, LANES))
        place = builder.gep(self.pointer, [offset], inbounds=True, source_etype=ir.DoubleType())
        act(Memory(builder, place))
        successor = builder.add(i, ir.Constant(count, 1))
        i.add_incoming(successor, builder.block)
        more = builder.icmp_signed("<", successor, ir.Constant(count, rows))
        builder.cbranch(more, body, after)
        builder.position_at_end(after)

    def spread(self, number: Any) -> Vector:
        """A number that the program is called with, in every lane."""
        lone = self.builder.insert_element(ir.Constant(DOUBLE, ir.Undefined), number, _index(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return Vector(self.builder, self.builder.shuffle_vector(lone, lone, mask))

    def _place(self, row: int) -> Any:
        offset = ir.Constant(ir.IntType(64), row * LANES)
        place = self.builder.gep(self.pointer, [offset], source_etype=ir.DoubleType())
        return self.builder.bitcast(place, DOUBLE.as_pointer())

    def __getitem__(self, row: int) -> Vector:
        """Load a row."""
        return Vector(self.builder, self.builder.load(self._place(row), align=8, typ=DOUBLE))

    def __setitem__(self, row: int, value: Vector | float) -> None:
        """Store a row."""
        if not isinstance(value, Vector):
            value = Vector(self.builder, None).like(value)
        self.builder.store(value.value, self._place(row), align=8)


def of_vectors(function: Callable[..., Vector]) -> Callable[..., Vector]:
    """A function of vectors that takes numbers beside them."""

    @wraps(function)
    def called(*arguments: Vector | float) -> Vector:
        beside = next(a for a in arguments if isinstance(a, Vector))
        return function(*(beside.like(a) for a in arguments))

    return called


def square(x: Vector) -> Vector:
    """x times x."""
    return x * x


def magnitude(x: Vector) -> Vector:
    """The absolute value."""
    mask = ir.Constant(WHOLE, [0x7FFFFFFFFFFFFFFF] * LANES)
    return x.from_integer(x.builder.and_(x.integer(), mask))


def larger(x: Vector, y: Vector) -> Vector:
    """The larger of two; NaN if x is."""
    return choose(x, "<=", y, y, x)


def unless(x: Vector, value: Vector) -> Vector:
    """The value where x is below 0, else infinity."""
    return choose(x, "<", 0.0, value, math.inf)


def polynomial(terms: Sequence[float], x: Vector) -> Vector:
    """The sum of terms[k] x^k, in pairs, which a processor computes in parallel."""
    parts = [x.like(term) for term in terms]
    while len(parts) > 1:
        pairs = [low + high * x for low, high in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
        x = x * x
    return parts[0]


def exp(x: Vector) -> Vector:
    """e^x within 2 ulp: x = k ln 2 + r, Taylor to r^13; held below -708, infinite above 709."""
    given = x
    x = choose(x, "<", -708.0, -708.0, x)
    x = choose(x, ">", 709.0, 709.0, x)
    shifted = x * 1.4426950408889634 + 6755399441055744.0
    k = shifted - 6755399441055744.0
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    p = polynomial(EXP_TERMS, r)
    builder = x.builder
    exponent = builder.add(shifted.integer(), ir.Constant(WHOLE, [1023] * LANES))
    value = p * x.from_integer(builder.shl(exponent, ir.Constant(WHOLE, [52] * LANES)))
    return choose(given, ">", 709.0, math.inf, value)


def log(x: Vector) -> Vector:
    """Ln x within 2 ulp: x = 2^e m, 2 artanh((m - 1)/(m + 1)) as a series; -inf at 0, NaN below."""
    builder, bits = x.builder, x.integer()
    fraction = builder.and_(bits, ir.Constant(WHOLE, [0x000FFFFFFFFFFFFF] * LANES))
    m = x.from_integer(builder.or_(fraction, ir.Constant(WHOLE, [0x3FF0000000000000] * LANES)))
    power_of_2 = builder.lshr(bits, ir.Constant(WHOLE, [52] * LANES))
    raised = builder.or_(power_of_2, ir.Constant(WHOLE, [0x4330000000000000] * LANES))
    e = x.from_integer(raised) - (4503599627370496.0 + 1023.0)
    e = choose(m, ">", math.sqrt(2.0), e + 1.0, e)
    m = choose(m, ">", math.sqrt(2.0), m * 0.5, m)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    p = polynomial(LOG_TERMS, s)
    value = e * math.log(2.0) + (2.0 * f + 2.0 * f * s * p)
    value = choose(x, ">", 0.0, value, math.nan)
    return choose(x, "==", 0.0, -math.inf, value)


@of_vectors
def hill(x: Vector, K: Vector, n: Vector) -> Vector:
    """As `crs_sim.model.hill`."""
    return choose(x, "<=", 0.0, 0.0, 1.0 / (1.0 + exp(n * log(K / x))))


@of_vectors
def hill_slope(x: Vector, K: Vector, n: Vector, h: Vector) -> Vector:
    """As `crs_sim.model.hill_slope`."""
    at_zero = choose(n, "==", 1.0, 1.0 / K, 0.0)
    at_zero = choose(x, "==", 0.0, at_zero, 0.0)
    return choose(x, "<=", 0.0, at_zero, n * h * (1.0 - h) / x)


@of_vectors
def log_ratio(x: Vector, K: Vector) -> Vector:
    """As `crs_sim.model.log_ratio`."""
    return choose(x, "<=", 0.0, 0.0, log(x / K))


def positive(x: Vector) -> Vector:
    """As `crs_sim.model.positive`."""
    return choose(x, "<", 0.0, 0.0, x)


def _whole(x: Vector) -> Vector:
    """The nearest whole number, of numbers below 2^51."""
    return (x + 6755399441055744.0) - 6755399441055744.0


@of_vectors
def power(x: Vector, n: Vector) -> Vector:
    """As `crs_sim.model.power`."""
    at_zero = choose(n, ">", 0.0, 0.0, choose(n, "==", 0.0, 1.0, math.inf))
    size = exp(n * log(magnitude(x)))
    half = n * 0.5
    signed = choose(_whole(half), "==", half, size, -size)
    below = choose(_whole(n), "==", n, signed, 0.0)
    return choose(x, "==", 0.0, at_zero, choose(x, "<", 0.0, below, size))


@of_vectors
def power_slope(x: Vector, n: Vector, value: Vector) -> Vector:
    """As `crs_sim.model.power_slope`."""
    at_zero = choose(n, "==", 1.0, 1.0, 0.0)
    return choose(x, "==", 0.0, at_zero, n * value / x)


@of_vectors
def reached(x: Vector, level: Vector) -> Vector:
    """As `crs_sim.model.reached`."""
    return choose(x, ">=", level, 1.0, 0.0)


def assemble(functions: Iterable[Callable[..., None]]) -> str:
    """Functions of a work array, and of a number if they take one, as the text of an LLVM module.

    A function may call those before it by `Memory.call`.
    """
    module, double = ir.Module(), ir.DoubleType()
    for function in functions:
        numbers = function.__code__.co_argcount - 1
        kind = ir.FunctionType(ir.VoidType(), [double.as_pointer(), *[double] * numbers])
        whole = ir.Function(module, kind, function.__name__)
        builder = ir.IRBuilder(whole.append_basic_block())
        memory = Memory(builder, whole.args[0])
        function(memory, *(memory.spread(a) for a in whole.args[1:]))
        builder.ret_void()
    return str(module)


# --- text to machine code ------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _target() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, codemodel="jitdefault", jit=True
    )


@lru_cache(maxsize=1)
def processor() -> str:
    """What machine code depends on: this processor, and the compiler's version."""
    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.get_host_cpu_name()} {features} {llvmlite.__version__}"


def object_file(text: str) -> bytes:
    """The object file of a module, optimized."""
    module = llvm.parse_assembly(text)
    module.triple = _target().triple
    module.data_layout = str(_target().target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(_target(), options)
    builder.getModulePassManager().run(module, builder)
    return bytes(_target().emit_object(module))


class Machine:
    """Loaded machine code; its addresses are valid as long as this object exists."""

    def __init__(self, name: str, build: Callable[[], bytes]) -> None:
        """The object file cached under ``name``, built if it is missing."""
        _target()
        path = cached_bytes(f"{name}.o", build)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _own_target())
        content = read_cached(path)
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(content))
        self._engine.finalize_object()

    def addresses(self, names: Sequence[str]) -> list[int]:
        """The address of each function."""
        return [self._engine.get_function_address(name) for name in names]


def _own_target() -> Any:
    """A target machine for one engine, which takes ownership of it."""
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(codemodel="jitdefault", jit=True)
