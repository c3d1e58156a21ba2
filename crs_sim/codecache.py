"""Generated code on disk: written once, whole or not at all, checked each time it is read.

The folder is the user's cache folder, or the one named by the environment variable
``CRS_SIM_CACHE``; where neither can be written, a temporary folder of this process.
"""

# Ours, since joblib.Memory and diskcache keep pickled results: neither keeps a source file to be
# imported, or checks what it reads against a checksum. Where the folder is, platformdirs says.

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import platformdirs

from .output import write_whole

MARK = "# checksum "


def folder() -> Path:
    """The folder that holds generated code, made if need be."""
    wanted = os.environ.get("CRS_SIM_CACHE") or platformdirs.user_cache_dir("crs_sim", False)
    path = Path(wanted)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError:
        return _temporary()


@lru_cache(maxsize=1)
def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="crs_sim_"))


def fingerprint(*parts: str) -> str:
    """Twelve hex digits that change when any part does.

    >>> fingerprint("a", "b") == fingerprint("a", "b"), fingerprint("ab") == fingerprint("a", "b")
    (True, False)
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@lru_cache(maxsize=8)
def made_by(modules: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Twelve hex digits of modules of this package, and of the versions of what they stand on."""
    here = Path(__file__).parent
    texts = [(here / f"{name}.py").read_text(encoding="utf-8") for name in modules]
    return fingerprint(*texts, *(version(name) for name in libraries), platform.python_version())


def stored(name: str, build: Callable[[], str]) -> Path:
    """The file ``name`` of the cache: as it is there if whole, else built and written.

    Two processes may do so at once: each writes a file of its own and renames it.
    """
    return stored_bytes(name, lambda: build().encode())


def stored_bytes(name: str, build: Callable[[], bytes]) -> Path:
    """As `stored`, for what is not text."""
    path = folder() / name
    if not is_whole(path):
        content = build()
        write_whole({path: _first_line(content) + content})
    return path


def is_whole(path: Path) -> bool:
    """Whether the file is there and its content has the checksum of its first line."""
    try:
        first, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return False
    return first + b"\n" == _first_line(content)


def read_bytes(path: Path) -> bytes:
    """The content of a file of the cache, without its checksum."""
    return path.read_bytes().partition(b"\n")[2]


def _first_line(content: bytes) -> bytes:
    return f"{MARK}{hashlib.sha256(content).hexdigest()[:16]}\n".encode()


def load(path: Path) -> ModuleType:
    """Import a generated file under a name of its own."""
    name = f"crs_sim_generated_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
