"""What a person writes after an option, as numbers and names; and numbers as a person reads them.

The command line imports it at once, so it imports nothing that takes time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError

HOURS = {"h": 1.0, "min": 1 / 60, "d": 24.0, "day": 24.0, "days": 24.0, "": 1.0}
ALONE = {"until": "--until", "every": "--every", "run": "--from", "plot": "--plot"}
"""Options of a single patient's run."""


def hours_between(text: str) -> float:
    """Hours from what a person writes.

    >>> [hours_between(t) for t in ("6h", "30min", "0.25d", "12")]
    [6.0, 0.5, 6.0, 12.0]
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-z]*)\s*", text)
    try:
        if match is None or match[2] not in HOURS:
            raise ValueError
        return float(match[1]) * HOURS[match[2]]
    except ValueError:
        raise InputError(f"--every {text}  is no time; write 6h, 30min or 0.25d") from None


def parameter_values(texts: Sequence[str]) -> dict[str, float]:
    """Parameters by name from ``name=value`` texts; a name given twice is refused."""
    values: dict[str, float] = {}
    for text in texts:
        name, sign, number = (part.strip() for part in text.partition("="))
        if not (name and sign):
            raise InputError(f"--set {text}  has no value; write --set name=value")
        if name in values:
            raise InputError(f"--set {text}  sets {name} for the second time; keep one")
        try:
            values[name] = float(number)
        except ValueError:
            raise InputError(f"--set {text}  {number!r} is no number; write {name}=1.5") from None
    return values


def short(value: float) -> str:
    """A number in at most three digits; what a solver leaves of zero is zero.

    >>> [short(x) for x in (21033.0, 0.2912, -1e-22, 4.0)]
    ['21000', '0.291', '0', '4']
    """
    if abs(value) < 1e-6:
        return "0"
    return f"{float(f'{value:.3g}'):.6g}"


class DataSetAsked(NamedTuple):
    """A data set as it was asked for: the file, the model, and what maps one to the other."""

    data: Path
    model: str
    columns: Path | None


def _refuse_tables(patients: str | tuple[str, ...]) -> None:
    """Refuse a table where a folder belongs, with what to type instead."""
    for name in (patients,) if isinstance(patients, str) else patients:
        if name.lower().endswith(".csv"):
            raise InputError(
                f"{name}  is a table: a NONMEM or Monolix data set is given as --data {name} "
                "--model MODEL; a patient by the folder with patient.toml"
            )


def data_set(
    command: str, patients: str | tuple[str, ...] | None, options: dict[str, Any],
    given: Collection[str] = (),
) -> DataSetAsked | None:  # fmt: skip
    """The data set to be used, taken out of the options; None if it is ``patients`` instead.

    Raises
    ------
    InputError
        If it is neither or both, or ``given`` holds an option that says nothing of a data set.
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
                f"{ALONE[name]}  says nothing with --data, which is sampled at its own records"
            )
    return DataSetAsked(data, model, columns)
