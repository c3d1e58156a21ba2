"""Tables as Parquet files, with metadata that identify the run they belong to.

The only module that imports pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import StorageError

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"crs_sim"


def parquet_bytes(columns: Mapping[str, Any], says: Mapping[str, object]) -> bytes:
    """A table as the content of a Parquet file.

    Parameters
    ----------
    columns : name to (n_rows,) numbers or strings; strings are dictionary encoded
    says : metadata, must be JSON serialisable

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
    table = pa.table(arrays).replace_schema_metadata({METADATA_KEY: json.dumps(says).encode()})
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
