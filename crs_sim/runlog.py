"""Rows of a long job on disk as they are made, so that one that was killed goes on from there.

A file of JSON lines, a line for each row; before them, where the rows do not say it themselves,
what the job is of. A last line that was cut off half-way is dropped, and its row made again.
"""

# Ours, since jsonlines (4.0, 2023) stops at a last line that was cut off or skips every bad one,
# and adds new lines behind it.

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import StorageError
from .output import check_folder, write_whole

Row = list[Any]
Made = TypeVar("Made")


def begin(path: Path, header: Mapping[str, Any], *, resume: bool) -> list[Row]:
    """The rows that are there already; none, and a new file, where nothing is.

    Parameters
    ----------
    path : of the file
    header : what decides the numbers of the job, by name; must go into JSON
    resume : whether to go on with rows that are there

    Raises
    ------
    StorageError
        If there are rows and nobody asked to go on with them, or they are of another job, or the
        file cannot be read or written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = pathlib.Path(folder) / "rows.jsonl"
    ...     _ = begin(log, {"seed": 1}, resume=False)
    ...     append(log, [[0, 1.5]])
    ...     begin(log, {"seed": 1}, resume=True)
    [[0, 1.5]]
    """
    empty = path.is_file() and _no_rows(path)
    check_new(path, resume=resume or empty)
    if empty or not path.is_file():
        write_whole({path: _line(header)})
        return []
    stored, *rows = read(path, lambda content: content) or [None]
    if not isinstance(stored, dict) or not all(isinstance(row, list) for row in rows):
        raise _damaged(path, "not what this package writes")
    asked = json.loads(json.dumps(header))
    differ = [
        f"{name} {_short(stored.get(name))}, not {_short(asked.get(name))}"
        for name in {**asked, **stored}
        if stored.get(name) != asked.get(name)
    ]
    refuse_another(path, differ)
    return rows


def refuse_another(place: Path, differ: Sequence[str]) -> None:
    """Raise a StorageError if a job that is there differs in anything from the one asked for."""
    if differ:
        raise StorageError(
            f"{place}  cannot be gone on with: it was made with {'; '.join(differ)}; ask for the "
            "same, or choose another folder"
        )


def check_new(path: Path, *, resume: bool) -> None:
    """Refuse, before long work, a file that is there and not to go on, or that cannot be made.

    Raises
    ------
    StorageError
    """
    check_folder(path.parent)
    if path.exists() and not resume:
        raise StorageError(
            f"{path}  holds results already; go on with them (--resume), delete it, or choose "
            "another folder"
        )


def check_resume(folder: Path, what: str, *, there: bool, resume: bool) -> None:
    """Raise a StorageError if what is there is not to go on, or nothing is there to go on with."""
    if there and not resume:
        raise StorageError(
            f"{folder}  holds {what} already; add --resume to go on with it, or give a new folder"
        )
    if resume and not there:
        raise StorageError(f"{folder}  holds nothing to resume; leave out --resume")


def append(path: Path, rows: Sequence[Mapping[str, Any] | Sequence[Any]]) -> None:
    """Add rows at the end, in place of a line that was cut off there.

    Raises
    ------
    StorageError
        If they cannot be written: a full disk, say. The rows before them are safe.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_cut_line(path)
        with path.open("ab") as file:
            file.write(b"".join(map(_line, rows)))
    except OSError as error:
        raise StorageError(
            f"{path}  cannot be written: {error.strerror or error}; make room, then --resume"
        ) from None


def read(path: Path, made_of: Callable[[Any], Made]) -> list[Made]:
    """What is made of each whole line of a file; nothing if there is no file.

    Raises
    ------
    StorageError
        If it cannot be read, or nothing can be made of a line.
    """
    try:
        raw = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StorageError(f"{path}  cannot be read: {error.strerror or error}") from None
    found = list[Made]()
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(made_of(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(path, f"line {number}: {type(error).__name__}: {error}") from None
    return found


def _no_rows(path: Path) -> bool:
    """Whether a job of ours ended before its first row: refused, say, for a bad option."""
    found = read(path, lambda content: content)
    return not found or (len(found) == 1 and isinstance(found[0], dict))


def _drop_cut_line(path: Path) -> None:
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _damaged(path: Path, why: str) -> StorageError:
    return StorageError(f"{path}  is damaged ({why}); delete it, or choose another folder")


def _line(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
