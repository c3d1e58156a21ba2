"""Cache of generated code on disk: files are written atomically and verified by a checksum.

The folder is the user's cache folder, or the one named by the environment variable
``CRS_SIM_CACHE``; if it cannot be written, a temporary folder of this process.
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

from .output import write_atomic

MARK = "# checksum "


def cache_folder() -> Path:
    """The cache folder, created if missing."""
    name = os.environ.get("CRS_SIM_CACHE") or platformdirs.user_cache_dir("crs_sim", False)
    path = Path(name)
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
def source_fingerprint(modules: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Twelve hex digits that change with these modules' source or the libraries' versions."""
    here = Path(__file__).parent
    texts = [(here / f"{name}.py").read_text(encoding="utf-8") for name in modules]
    return fingerprint(*texts, *(version(name) for name in libraries), platform.python_version())


def cached_text(name: str, build: Callable[[], str]) -> Path:
    """The cached file ``name``: reused if its checksum is right, else built and written.

    Concurrent processes are safe: each writes its own temporary file and renames it.
    """
    return cached_bytes(name, lambda: build().encode())


def cached_bytes(name: str, build: Callable[[], bytes]) -> Path:
    """As `cached_text`, for bytes."""
    path = cache_folder() / name
    if not is_intact(path):
        content = build()
        write_atomic({path: _first_line(content) + content})
    return path


def is_intact(path: Path) -> bool:
    """Whether the file exists and its content matches the checksum in its first line."""
    try:
        first, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return False
    return first + b"\n" == _first_line(content)


def read_cached(path: Path) -> bytes:
    """The content of a cached file, without its checksum."""
    return path.read_bytes().partition(b"\n")[2]


def _first_line(content: bytes) -> bytes:
    return f"{MARK}{hashlib.sha256(content).hexdigest()[:16]}\n".encode()


def load_generated(path: Path) -> ModuleType:
    """Import a generated file as a module with a unique name."""
    name = f"crs_sim_generated_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
