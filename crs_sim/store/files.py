"""Files: written atomically, found among the shipped ones, cached for this machine.

Names such as ``crs`` or ``ruemmele2025`` are looked up here when they are not a path.

The folder is the user's cache folder, or the one named by the environment variable
``CRS_SIM_CACHE``; if it cannot be written, a temporary folder of this process.
"""

# Ours, since atomicwrites is archived and safer writes one file at a time: neither removes, when
# the disk is full, the other files and folders it made.
# Ours, since joblib.Memory and diskcache keep pickled results: neither keeps a source file to be
# imported, or checks what it reads against a checksum. The folder is that of platformdirs.

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import platformdirs

from ..errors import InputError, StorageError, note, unknown_name

if TYPE_CHECKING:
    import pandas as pd


def write_atomic(files: Mapping[Path, bytes]) -> None:
    """Write these files atomically; if one cannot be written, none is.

    Missing folders are created. An existing file is replaced.

    Raises
    ------
    StorageError
        Naming the file that cannot be written.
    """
    ours = f"{os.getpid()}.{threading.get_ident()}.part"
    parts = {path: path.with_name(f".{path.name}.{ours}") for path in files}
    path, made = Path(), list[Path]()
    try:
        for path, content in files.items():
            if path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            made += [folder for folder in reversed(path.parents) if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content)
        for path, part in parts.items():
            new = () if path.exists() else (path,)
            part.replace(path)
            made += new
        made.clear()
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{path}  cannot be written: {reason}; choose another place") from None
    finally:
        for left in (*parts.values(), *reversed(made)):
            with suppress(OSError):
                left.rmdir() if left.is_dir() else left.unlink(missing_ok=True)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(markdown(("a", "b"), [("1", "x|y")]))
    | a | b |
    | --- | --- |
    | 1 | x\\|y |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def level_text(value: float, digits: int = 3) -> str:
    """A level or endpoint as people read it: three digits, and none that mean nothing.

    >>> [level_text(x) for x in (21033.0, 0.2912, 4.0, 5.33e8, 6.8e-5, -2e-4, -1e-22)]
    ['21000', '0.291', '4', '5.33e8', '<0.001', '>-0.001', '0']
    """
    size = abs(value)
    if size < 1e-6:
        return "0"
    if size < 1e-3:
        return "<0.001" if value > 0 else ">-0.001"
    text = f"{value:.{digits}g}" if size >= 1e6 else f"{float(f'{value:.{digits}g}'):.6g}"
    return text.replace("e+0", "e").replace("e+", "e")


def json_file(content: Mapping[str, Any]) -> bytes:
    """A mapping as the content of a JSON file."""
    return (json.dumps(content, indent=1) + "\n").encode()


def csv_file(table: pd.DataFrame, digits: int | None = None, *, separator: str = ",") -> bytes:
    """A table as the content of a CSV file; all digits of numbers unless ``digits`` is given."""
    shown = None if digits is None else f"%.{digits}g"
    text: str = table.to_csv(sep=separator, index=False, float_format=shown, lineterminator="\n")
    return text.encode()


def check_folder(folder: str | Path) -> None:
    """Check, before a long computation, that a folder can be created and written to.

    Raises
    ------
    StorageError
        Naming the folder; nothing is created.
    """
    path = Path(folder)
    nearest = next(p for p in (path, *path.resolve().parents) if p.exists())
    if not nearest.is_dir():
        raise StorageError(f"{path}  cannot be a folder: {nearest} is a file; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"{path}  cannot be written: no permission in {nearest}; choose another")


KINDS = {
    "models": "model", "fits": "problem", "fits/data": "patient", "fits/priors": "prior",
    "fits/populations": "population",
}  # fmt: skip
PACKAGE = Path(__file__).resolve().parent.parent


def root() -> Path:
    """The folder that holds ``models/`` and ``fits/``."""
    inside_wheel = PACKAGE / "_shipped"
    return inside_wheel if inside_wheel.is_dir() else PACKAGE.parent


def results_folder(path: Path) -> Path:
    """The folder for results about a path: itself, or for one in the wheel, its relative path.

    >>> results_folder(Path("p7/runs")).as_posix()
    'p7/runs'
    """
    wheel = PACKAGE / "_shipped"
    resolved = path.resolve()
    return resolved.relative_to(wheel) if resolved.is_relative_to(wheel) else path


def is_plain(name: str | Path) -> bool:
    """Whether a name may be a shipped one: it has no separator, as ``./crs`` has."""
    return Path(name).name == str(name)


def locate(name: str | Path, folder: str, marker: str) -> Path:
    """Resolve a path (to a folder or its marker file) or a shipped name to the folder.

    A shipped name is that of the shipped one also where a file or a folder without the marker has
    the same name here; a note says so. With a separator, ``./crs``, it is a path.

    Parameters
    ----------
    name : a path, or a shipped name such as "crs"
    folder : where shipped names live under `root`, e.g. "models"
    marker : the file that such a folder must contain, e.g. "model.ant"

    Raises
    ------
    InputError, UnknownNameError
        If the folder exists without its marker, or nothing of that name exists.
    """
    path, shipped = Path(name), root() / folder
    if (path / marker).is_file():
        return path
    if is_plain(name) and (shipped / path / marker).is_file():
        if path.exists():
            what = "folder" if path.is_dir() else "file"
            note(f"{name} is the shipped {KINDS[folder]} of that name, not the {what} {name} here, "
                 f"which would be ./{name}")  # fmt: skip
        return shipped / path
    if path.is_file():
        return path.parent if path.name == marker else path
    if path.is_dir():
        raise InputError(f"{path}  has no {marker}; is it the right folder?")
    known = [p.parent.name for p in shipped.glob(f"*/{marker}")]
    raise unknown_name(f"{KINDS[folder]} (no such folder or shipped name)", str(name), known)


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
def text_of(record: Any, *later: str) -> str:
    """The repr of a dataclass, without the ``later`` fields that have their default.

    Hashes on disk are of such texts: they hold when a field is added that few have.
    """
    usual = {f.name: f.default for f in fields(record) if f.name in later}
    shown = (f for f in fields(record)
             if f.repr and usual.get(f.name, ...) != getattr(record, f.name))  # fmt: skip
    words = ", ".join(f"{f.name}={getattr(record, f.name)!r}" for f in shown)
    return f"{type(record).__name__}({words})"


def source_fingerprint(modules: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Twelve hex digits that change with these modules' source or the libraries' versions.

    A name with an ending is that of another file they read.
    """
    files = [PACKAGE / (name if "." in name else f"{name}.py") for name in modules]
    texts = [path.read_text(encoding="utf-8") for path in files]
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


def package_version() -> str:
    """The version of this package."""
    try:
        return version("crs-sim")
    except PackageNotFoundError:  # a folder that was never installed
        return "0+unknown"


LIBRARIES = ("crs_sim", "numpy", "scipy", "lmfit", "pandas", "numba", "sympy", "antimony")


def versions() -> dict[str, str]:
    """Versions of Python and of every library the results depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed as a package"
    return found
