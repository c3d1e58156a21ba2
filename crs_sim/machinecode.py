"""A text of LLVM instructions made into machine code for this processor, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import llvmlite.binding as llvm  # type: ignore[import-untyped]

from . import codecache


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
    """What machine code is good for: this processor, and the compiler that writes it."""
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
    """Loaded machine code; the addresses hold as long as this lives."""

    def __init__(self, name: str, build: Callable[[], bytes]) -> None:
        """The object file kept under ``name``, built if it is not there."""
        _target()
        path = codecache.stored_bytes(f"{name}.o", build)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _own_target())
        content = codecache.read_bytes(path)
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(content))
        self._engine.finalize_object()

    def addresses(self, names: Sequence[str]) -> list[int]:
        """Where each function begins."""
        return [self._engine.get_function_address(name) for name in names]


def _own_target() -> Any:
    """A target machine to hand over: an engine takes it for itself."""
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(codemodel="jitdefault", jit=True)
