"""Atomic file writing: each file is written under a temporary name, then renamed into place."""

# Ours, since atomicwrites is archived and safer writes one file at a time: neither removes, when
# the disk is full, the other files and folders it made.

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import StorageError

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
