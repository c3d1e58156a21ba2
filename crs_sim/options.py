"""Parse the values of command-line options, and format numbers for printing.

The command line imports this file at start-up, so it imports nothing slow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError

HOURS = {"h": 1.0, "min": 1 / 60, "d": 24.0, "day": 24.0, "days": 24.0, "": 1.0}
ALONE = {"until": "--until", "every": "--every", "run": "--from", "plot": "--plot"}
"""Options that apply only to a single patient, not to --data."""


def hours_between(text: str) -> float:
    """Parse a time interval into hours.

    >>> [hours_between(t) for t in ("6h", "30min", "0.25d", "12")]
    [6.0, 0.5, 6.0, 12.0]
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-z]*)\s*", text)
    try:
        if match is None or match[2] not in HOURS:
            raise ValueError
        return float(match[1]) * HOURS[match[2]]
    except ValueError:
        raise InputError(f"--every {text}  is not a time; write 6h, 30min or 0.25d") from None


def parameter_values(texts: Sequence[str]) -> dict[str, float]:
    """Parameters by name from ``name=value`` texts; a name given twice is refused."""
    values: dict[str, float] = {}
    for text in texts:
        name, sign, number = (part.strip() for part in text.partition("="))
        if not (name and sign):
            raise InputError(f"--set {text}  has no value; write --set name=value")
        if name in values:
            raise InputError(f"--set {text}  sets {name} a second time; keep one")
        try:
            values[name] = float(number)
        except ValueError:
            raise InputError(f"--set {text}  {number!r} is no number; write {name}=1.5") from None
    return values


def format_short(value: float) -> str:
    """Format a number with at most three significant digits; below 1e-6 it is shown as 0.

    >>> [format_short(x) for x in (21033.0, 0.2912, -1e-22, 4.0)]
    ['21000', '0.291', '0', '4']
    """
    if abs(value) < 1e-6:
        return "0"
    return f"{float(f'{value:.3g}'):.6g}"


class DataSetSource(NamedTuple):
    """The data set named on the command line: file, model, and column map."""

    data: Path
    model: str
    columns: Path | None


def _refuse_tables(patients: str | tuple[str, ...]) -> None:
    """Refuse a table where a folder is expected, and state what to type instead."""
    for name in (patients,) if isinstance(patients, str) else patients:
        if name.lower().endswith(".csv"):
            raise InputError(
                f"{name}  is a table: a NONMEM or Monolix data set is given as --data {name} "
                "--model MODEL; a patient by the folder with patient.toml"
            )


def data_set(
    command: str, patients: str | tuple[str, ...] | None, options: dict[str, Any],
    given: Collection[str] = (),
) -> DataSetSource | None:  # fmt: skip
    """Remove the data set from the options and return it; None if ``patients`` is given instead.

    Raises
    ------
    InputError
        If neither or both are given, or ``given`` contains an option that does not apply to a data
        set.
    """
    data, model, columns = (options.pop(name) for name in ("data", "model", "columns"))
    if patients and not (data or model or columns):
        _refuse_tables(patients)
        return None
    if patients or data is None or model is None:
        raise InputError(f"{command}  takes a PATIENT, or --data STUDY.csv with --model MODEL")
    for name in given:
        if name in ALONE:
            raise InputError(
                f"{ALONE[name]}  does not apply with --data, which is sampled at its own records; "
                "leave it out"
            )
    return DataSetSource(data, model, columns)
