"""Tables as Parquet files, each with a header that says what it belongs to.

The only file that knows pyarrow.
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

SAYS = b"crs_sim"


def parquet_bytes(columns: Mapping[str, Any], says: Mapping[str, object]) -> bytes:
    """A table as the content of a Parquet file.

    Parameters
    ----------
    columns : name to (n_rows,) numbers or texts; texts that repeat are kept once
    says : what stands in the header, must go into JSON

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
    table = pa.table(arrays).replace_schema_metadata({SAYS: json.dumps(says).encode()})
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd")
    return bytes(stream.getvalue().to_pybytes())


def _texts(values: Any) -> bool:
    return np.asarray(values).dtype.kind in "OU"


def header_of(path: Path) -> dict[str, Any]:
    """What stands in the header of a file that `parquet_bytes` made.

    Raises
    ------
    StorageError
        If it is none, or not whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        says = (pq.read_schema(path).metadata or {})[SAYS]
        return dict(json.loads(says))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = "no header of crs-sim" if isinstance(error, KeyError) else str(error)
        raise StorageError(f"{path}  is no complete part ({reason}); delete it") from None


def read_parquet(
    paths: Sequence[Path], columns: Sequence[str] | None = None, *, where: str = "", value: str = ""
) -> pd.DataFrame:
    """Several such files as one table, in their order.

    Parameters
    ----------
    paths : files of the same columns
    columns : names of those wanted (default: all)
    where, value : keep the rows in which this column has this text (default: all rows)

    Raises
    ------
    StorageError
        If one is not whole.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    kept = [(where, "==", value)] if where else None
    for path in paths:
        try:
            # a schema of its own for each file: no folder is taken for a column
            table = pq.ParquetFile(path).read(columns=columns) if kept is None else pq.read_table(
                path, columns=columns, filters=kept, partitioning=None)  # fmt: skip
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{path}  is no complete part ({error}); delete it") from None
        parts.append(_frame(table))
    return pd.concat(parts, ignore_index=True)


def _frame(table: Any) -> pd.DataFrame:
    """As pandas has it, texts as plain objects whatever string type pandas prefers."""
    import pandas as pd

    columns = {}
    for name in table.column_names:
        values = table[name].combine_chunks().to_pylist() if "dictionary" in str(
            table[name].type) else table[name].to_numpy()  # fmt: skip
        columns[name] = np.array(values, dtype=object) if isinstance(values, list) else values
    return pd.DataFrame(columns)
