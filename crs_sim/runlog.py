"""Rows of a long job on disk as they are made, so that one that was killed goes on from there.

One file of JSON lines: first what the job is of, then a line for each row. A line that was cut off
half-way is dropped; a job of something else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import StorageError
from .output import write_whole

Row = list[Any]


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
    if not path.is_file():
        write_whole({path: _line(header)})
        return []
    if not resume:
        raise StorageError(
            f"{path}  holds results already; go on with them (--resume), or choose another folder"
        )
    stored, rows, whole = _read(path)
    asked = json.loads(json.dumps(header))
    differ = [
        f"{name} {_short(stored.get(name))}, not {_short(asked.get(name))}"
        for name in {**asked, **stored}
        if stored.get(name) != asked.get(name)
    ]
    if differ:
        raise StorageError(
            f"{path}  cannot be gone on with: it was made with {'; '.join(differ)}; ask for the "
            "same, or choose another folder"
        )
    write_whole({path: whole})
    return rows


def append(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Add rows at the end.

    Raises
    ------
    StorageError
        If they cannot be written: a full disk, say. The rows before them are safe.
    """
    try:
        with path.open("ab") as file:
            file.write(b"".join(map(_line, rows)))
    except OSError as error:
        raise StorageError(
            f"{path}  cannot be written: {error.strerror or error}; make room, then --resume"
        ) from None


def _line(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> tuple[dict[str, Any], list[Row], bytes]:
    """The header, the rows, and the part of the file that holds them."""
    try:
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        header, *rows = (json.loads(line) for line in whole.splitlines())
        if not isinstance(header, dict) or not all(isinstance(row, list) for row in rows):
            raise ValueError("not what this package writes")
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path}  is damaged ({error}); delete it, or choose another folder"
        ) from None
    return header, rows, whole


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
