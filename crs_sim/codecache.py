"""Generated code on disk: written once, whole or not at all, checked each time it is read.

The folder is the user's cache folder, or the one named by the environment variable
``CRS_SIM_CACHE``; where neither can be written, a temporary folder of this process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import platformdirs

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


def own_source(*modules: str) -> str:
    """The text of modules of this package, so that a change of code changes a fingerprint."""
    here = Path(__file__).parent
    return "".join((here / f"{name}.py").read_text(encoding="utf-8") for name in modules)


def stored(name: str, build: Callable[[], str]) -> Path:
    """The file ``name`` of the cache: as it is there if whole, else built and written.

    Two processes may do so at once: each writes a file of its own and renames it.
    """
    path = folder() / name
    if not is_whole(path):
        text = build()
        write(path, f"{MARK}{fingerprint(text)}\n{text}")
    return path


def is_whole(path: Path) -> bool:
    """Whether the file is there and its text has the checksum of its first line."""
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return first == f"{MARK}{fingerprint(text)}"


def write(path: Path, text: str) -> None:
    """Write a file in one piece: readers see the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


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
