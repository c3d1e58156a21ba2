"""Results of long jobs on disk: JSON lines appended as they are made, and Parquet tables.

The file is in JSON lines format, one line a row; the first line may be a header that identifies the
job. An incomplete last line is dropped, and its row computed again.

The only module that imports pyarrow.
"""

# Ours, since jsonlines (4.0, 2023) stops at a last line that was cut off or skips every bad one,
# and adds new lines behind it.

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import StorageError
from .files import check_folder, write_atomic

if TYPE_CHECKING:
    import pandas as pd

Row = list[Any]
T = TypeVar("T")


def open_log(path: Path, header: Mapping[str, Any], *, resume: bool) -> list[Row]:
    """The rows of an existing log; if there is none, start a new log and return no rows.

    Parameters
    ----------
    path : of the file
    header : the settings that determine the results of the job; must be JSON serialisable
    resume : whether to resume from existing rows

    Raises
    ------
    StorageError
        If rows exist without ``resume``, if they are of another job, or if the file cannot be read
        or written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = pathlib.Path(folder) / "rows.jsonl"
    ...     _ = open_log(log, {"seed": 1}, resume=False)
    ...     append_rows(log, [[0, 1.5]])
    ...     open_log(log, {"seed": 1}, resume=True)
    [[0, 1.5]]
    """
    empty = path.is_file() and _no_rows(path)
    check_log(path, resume=resume or empty)
    if empty or not path.is_file():
        write_atomic({path: _line(header)})
        return []
    stored, *rows = read_rows(path, lambda content: content) or [None]
    if not isinstance(stored, dict) or not all(isinstance(row, list) for row in rows):
        raise _damaged(path, "not written by this package")
    requested = json.loads(json.dumps(header))
    differ = [
        f"{name} {_short(stored.get(name))}, not {_short(requested.get(name))}"
        for name in {**requested, **stored}
        if stored.get(name) != requested.get(name)
    ]
    check_same_job(path, differ)
    return rows


def check_same_job(place: Path, differ: Sequence[str]) -> None:
    """Raise a StorageError if a stored job differs from the requested one."""
    if differ:
        raise StorageError(
            f"{place}  cannot be resumed: it was made with {'; '.join(differ)}; use the same "
            "settings, or choose another folder"
        )


def check_log(path: Path, *, resume: bool) -> None:
    """Check, before a long job, that a log can be created, or resumed if it exists.

    Raises
    ------
    StorageError
    """
    check_folder(path.parent)
    if path.exists() and not resume:
        raise StorageError(
            f"{path}  holds results already; resume them (--resume), delete it, or choose "
            "another folder"
        )


def check_resume(folder: Path, what: str, *, there: bool, resume: bool) -> None:
    """Raise a StorageError if results exist without ``resume``, or ``resume`` finds none."""
    if there and not resume:
        raise StorageError(
            f"{folder}  already holds {what}; add --resume to resume it, or give a new folder"
        )
    if resume and not there:
        raise StorageError(f"{folder}  holds nothing to resume; leave out --resume")


def append_rows(path: Path, rows: Sequence[Mapping[str, Any] | Sequence[Any]]) -> None:
    """Append rows, in place of an incomplete last line.

    Raises
    ------
    StorageError
        If they cannot be written, for instance to a full disk. Earlier rows are kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_incomplete_line(path)
        with path.open("ab") as file:
            file.write(b"".join(map(_line, rows)))
    except OSError as error:
        raise StorageError(
            f"{path}  cannot be written: {error.strerror or error}; free some space, then --resume"
        ) from None


def read_rows(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """Each complete line of a file, parsed; an empty list if there is no file.

    Raises
    ------
    StorageError
        If the file cannot be read, or a line cannot be parsed.
    """
    try:
        raw = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StorageError(f"{path}  cannot be read: {error.strerror or error}") from None
    found = list[T]()
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(path, f"line {number}: {type(error).__name__}: {error}") from None
    return found


def _no_rows(path: Path) -> bool:
    """Whether the file holds no rows: the job ended before its first one, e.g. by a bad option."""
    found = read_rows(path, lambda content: content)
    return not found or (len(found) == 1 and isinstance(found[0], dict))


def _drop_incomplete_line(path: Path) -> None:
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(f"{path}  is damaged ({reason}); delete it, or choose another folder")


def _line(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


METADATA_KEY = b"crs_sim"


def parquet_bytes(columns: Mapping[str, Any], metadata: Mapping[str, object]) -> bytes:
    """A table as the content of a Parquet file.

    Parameters
    ----------
    columns : name to (n_rows,) numbers or strings; strings are dictionary encoded
    metadata : metadata, must be JSON serialisable

    Examples
    --------
    >>> content = parquet_bytes({"member": np.arange(3)}, {"model": "crs"})
    >>> content[:4]
    b'PAR1'
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for name, values in columns.items():
        array = pa.array(np.asarray(values).tolist(), pa.string()) if _texts(values) else pa.array(
            np.asarray(values))  # fmt: skip
        arrays[name] = array.dictionary_encode() if _texts(values) else array
    table = pa.table(arrays).replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd")
    return bytes(stream.getvalue().to_pybytes())


def _texts(values: Any) -> bool:
    return np.asarray(values).dtype.kind in "OU"


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file made by `parquet_bytes`.

    Raises
    ------
    StorageError
        If it is not such a file, or incomplete.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = (pq.read_schema(path).metadata or {})[METADATA_KEY]
        return dict(json.loads(metadata))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = "no metadata of crs-sim" if isinstance(error, KeyError) else str(error)
        raise StorageError(f"{path}  is not a complete part ({reason}); delete it") from None


def read_parquet(
    paths: Sequence[Path], columns: Sequence[str] | None = None, *, where: str = "", value: str = ""
) -> pd.DataFrame:
    """Several such files as one table, in the order given.

    Parameters
    ----------
    paths : files of the same columns
    columns : names of the columns to read (default: all)
    where, value : keep the rows in which this column has this value (default: all rows)

    Raises
    ------
    StorageError
        If one is incomplete.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    kept = [(where, "==", value)] if where else None
    for path in paths:
        try:
            # read each file by itself, so that no folder name becomes a partition column
            table = pq.ParquetFile(path).read(columns=columns) if kept is None else pq.read_table(
                path, columns=columns, filters=kept, partitioning=None)  # fmt: skip
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{path}  is not a complete part ({error}); delete it") from None
        parts.append(_frame(table))
    return pd.concat(parts, ignore_index=True)


def _frame(table: Any) -> pd.DataFrame:
    """A DataFrame, with strings of dtype object in every version of pandas."""
    import pandas as pd

    columns = {}
    for name in table.column_names:
        values = table[name].combine_chunks().to_pylist() if "dictionary" in str(
            table[name].type) else table[name].to_numpy()  # fmt: skip
        columns[name] = np.array(values, dtype=object) if isinstance(values, list) else values
    return pd.DataFrame(columns)
