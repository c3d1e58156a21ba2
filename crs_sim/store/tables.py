"""User-written tables and TOML files, validated strictly into records: nothing is guessed.

An error message begins with its location, ``doses.csv, row 7, column unit:``; rows are numbered as
a spreadsheet shows them. Columns are separated by commas, decimals have a point: a semicolon file
from a European spreadsheet is rejected, because its ``21.033`` may mean 21033. The only module that
imports pydantic.
"""

from __future__ import annotations

import math
import re
import textwrap
import tomllib
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ..errors import CrsSimError, FileError, Mistakes, note, unknown_name, with_location
from .workbook import BEYOND, cells_by_column, file_text, header_and_rows, place

column = Field
"""What a record says of a column: its range, and its description in a template."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MISSING_WORDS = {"", "na", "n/a", "nd", "nan", "unknown", "missing", "-", "?", "none"}
"""Common entries for a missing number, without points."""
ANOTHER = ("dose", "hour")
"""Names of columns and keys that are not ``doses`` (how many) and ``hours`` (of an infusion)."""
EXAMPLE_TIME = "2024-03-11T08:30+01:00"
EXAMPLE_ZONE = 'time_zone = "Europe/Vienna"'


class CellError(ValueError):
    """Raised by a record's validation: what is wrong with one of its columns."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


class Record(BaseModel):
    """One row of a table, or one table of a TOML file; subclasses list its columns or keys.

    The description in ``column(..., description="...")`` is written into new files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def plain(cls, cells: dict[str, Any]) -> dict[str, Any]:
        """The cells before they are validated; raises CellError. By default as they are."""
        return cells

    def check(self) -> None:
        """Validate several columns together; raises CellError."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, cells: Any) -> Any:
        return cls.plain(cells) if isinstance(cells, dict) else cells

    @model_validator(mode="after")
    def _checked(self) -> Any:
        self.check()
        return self


R = TypeVar("R", bound=Record)
Table = tuple[tuple[int, R], ...]
"""Row number (as a spreadsheet shows it) and record, in the order of the file."""


def number(text: str) -> float:
    """A cell as a finite number.

    >>> number("5e6")
    5000000.0
    """
    if text.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        raise ValueError(f"{text!r} is not finite")
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number{_hint(text)}")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def number_or_text(text: str) -> float | str:
    """A cell as a number if it is one, so that 7, 7.0 and 007 are the same."""
    try:
        return number(text)
    except ValueError:
        return text


def beyond(text: str) -> tuple[str, str]:
    """The limit in a reading such as ``<4.2``, and on which side of it the level is.

    >>> beyond("> 2900"), beyond("2900"), beyond("<LOD")
    (('above', '2900'), ('', '2900'), ('', '<LOD'))
    """
    found = re.fullmatch(f"({BEYOND})({NUMBER.pattern})", text, re.ASCII)
    if found is None:
        return "", text
    return "below" if found[1][0] in "<≤" else "above", found[2]


def _hint(text: str) -> str:
    """Advice on what to write instead of a common non-numeric entry."""
    if re.fullmatch(BEYOND + NUMBER.pattern, text):
        return "; write the number alone: < and > are for levels"
    if text.startswith(("<", ">", "≤", "≥")) and "," not in text:
        return "; write the limit as a number: <4.2"
    if text.endswith("%"):
        return "; write the number without %: a fraction as 0.2, a level and its unit in two cells"
    if "," in text:
        return "; write a decimal point and no thousands separator"
    if text.lower().replace(".", "") in MISSING_WORDS:
        return "; leave out what was not measured"
    return ""


def whole(text: str) -> int:
    """A cell as a whole number."""
    value = number(text)
    if value != round(value):
        raise ValueError(f"{text!r} is not a whole number")
    return round(value)


def moment(value: str | float | datetime, zone: str = "") -> float | datetime:
    """A day number, or a date-time with its time zone; one without is in ``zone``, if given.

    >>> moment("2024-03-11T08:30+01:00").isoformat()
    '2024-03-11T08:30:00+01:00'
    >>> moment("2024-07-11 08:30:00", "Europe/Vienna").isoformat()
    '2024-07-11T08:30:00+02:00'
    """
    if isinstance(value, datetime):
        return _zoned(value, value.isoformat(), zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value)
    if NUMBER.fullmatch(text) or text.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        return number(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a number of days nor a date-time such as {EXAMPLE_TIME}"
        ) from None
    return _zoned(time, text, zone)


def _zoned(time: datetime, text: str, zone: str) -> datetime:
    if time.tzinfo is not None:
        return time
    if not zone:
        raise ValueError(
            f"{text!r} has no time zone; write it as {EXAMPLE_TIME}, or once {EXAMPLE_ZONE} beside "
            "the infusion"
        )
    local = time.replace(tzinfo=time_zone(zone))
    offset = local.utcoffset()
    if offset is None or offset != local.replace(fold=1).utcoffset():
        raise ValueError(f"{text!r} is where clocks change in {zone}; write it as {EXAMPLE_TIME}")
    if time.time() == time.min.time():
        note(f"{time:%Y-%m-%d} without an hour is read as 00:00 in {zone}")
    return time.replace(tzinfo=timezone(offset))  # of one zone, a difference is of clocks


def time_zone(name: str) -> ZoneInfo:
    """The time zone of a name such as Europe/Vienna, or a ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a known time zone; write {EXAMPLE_ZONE}") from None


def _moment(value: Any, info: ValidationInfo) -> float | datetime:
    return moment(value, (info.context or {}).get("zone", ""))


Number = Annotated[float, BeforeValidator(number)]
NotNegative = Annotated[float, BeforeValidator(number), column(ge=0)]
Positive = Annotated[float, BeforeValidator(number), column(gt=0)]
Whole = Annotated[int, BeforeValidator(whole)]
Moment = Annotated[float | datetime, BeforeValidator(_moment)]
Real = Annotated[float, column(allow_inf_nan=False)]
"""A finite number in a TOML file; the types above read the text of a cell."""


def read_table(path: Path, record: type[R], zone: str = "") -> Table[R]:
    """Every row of a comma-separated file, or of a sheet of a workbook, as a checked record.

    The first row that is neither blank nor a comment (its first cell starts with ``#``) names the
    columns, in any order; optional columns may be absent. Spaces around cells, blank rows, trailing
    commas, a byte-order mark and any line ending are accepted. An empty cell means a missing value.
    Date-times without a time zone are in ``zone``, if it is given.

    Raises
    ------
    FileError, UnknownNameError
        Naming file, row and column.
    """
    row, cells, rows = header_and_rows(path)
    header = _header(path, row, cells, record)
    table = tuple(
        (n, checked(record, cells_by_column(path, n, header, c), path, n, zone=zone))
        for n, c in rows
    )
    if not table:
        raise FileError(
            f"{place(path)}: has a header but no rows; add a row, or delete the file if "
            "there is no data"
        )
    return table


def read_toml(path: Path, record: type[R]) -> R:
    """A TOML file as a checked record.

    Raises
    ------
    FileError, UnknownNameError
        Naming file and key, or the line that is not valid TOML.
    """
    try:
        content = tomllib.loads(file_text(path))
    except tomllib.TOMLDecodeError as error:
        raise FileError(
            f"{place(path)}: is not TOML: {error}. Write a number bare, with a decimal point and "
            "without its unit, and a text in quotation marks"
        ) from None
    return checked(record, content, path, zone=str(content.get("time_zone", "")))


def check_duplicates(path: Path, table: Table[R], ignoring: tuple[str, ...] = ()) -> None:
    """Raise a FileError if two rows are equal in all but the ignored columns."""
    seen: dict[str, int] = {}
    for row, record in table:
        content = repr(sorted(record.model_dump(exclude=set(ignoring)).items()))
        if content in seen:
            raise FileError(
                f"{place(path, row)}: repeats row {seen[content]}; delete one of the two"
            )
        seen[content] = row


def column_comments(record: type[Record], width: int = 100) -> str:
    """The columns of a table described in comment lines, to be put above its header."""
    longest = max(map(len, record.model_fields))
    lines: list[str] = []
    for name, field in record.model_fields.items():
        indent = f"#   {'':{longest}}  "
        text = f"#   {name:{longest}}  {field.description}"
        lines += textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines)


def _header(path: Path, row: int, cells: list[str], record: type[Record]) -> list[str]:
    known = record.model_fields
    for name in filter(None, cells):
        if name not in known:
            error = unknown_name("column", name, known, elsewhere=ANOTHER)
            raise with_location(place(path, row), error)
    for name, field in known.items():
        if field.is_required() and name not in cells:
            raise FileError(
                f"{place(path, row)}: there is no column {name!r}; columns are {', '.join(known)}"
            )
    return cells


def checked(
    record: type[R], content: Mapping[str, Any], path: Path, row: int = 0,
    *, named: Mapping[str, str] = MappingProxyType({}), zone: str = "",
) -> R:  # fmt: skip
    """One row of a table, or the content of a TOML file, as a checked record.

    ``named`` are the names of columns in the file, where they differ from the record's; ``zone`` is
    the time zone of date-times without one.

    Raises
    ------
    FileError, UnknownNameError
        Naming file, row and column.
    """
    try:
        return record.model_validate(dict(content), context={"zone": zone})
    except ValidationError as error:
        # a misspelt key first: it may be why another one is missing
        found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        mistakes = Mistakes(
            [_error(record, e, path, row, named) for e in (found if row else found[:1])]
        )
    mistakes.report()
    raise AssertionError("a validation error has at least one mistake")


def _error(
    record: type[Record], error: Any, path: Path, row: int, named: Mapping[str, str]
) -> CrsSimError:
    """A pydantic error as one of this package's, with its location."""
    cause = error.get("ctx", {}).get("error")
    keys = list(error["loc"])
    if isinstance(cause, CellError):
        keys.append(cause.column)
    keys = keys[:1] if row else keys
    name = str(keys[0]) if keys else ""
    col = f"{named[name]} ({name})" if named.get(name, name) != name else name
    where = place(path, row, col) if row else place(path, key=_key(keys))
    known = _fields_at(record, keys)
    if error["type"] == "extra_forbidden":
        return with_location(where, unknown_name("key", str(keys[-1]), known, elsewhere=ANOTHER))
    if error["type"] == "literal_error":
        parts = get_args(known[str(keys[-1])].annotation)  # of one Literal, or of it and None
        choices = [c for part in parts for c in get_args(part) or (part,) if isinstance(c, str)]
        return with_location(where, unknown_name(str(keys[-1]), str(error["input"]), choices))
    or_delete = ", or delete the row" if row and error["type"] == "missing" else ""
    return FileError(f"{where}: {cause if cause is not None else _words(error)}{or_delete}")


def _words(error: Any) -> str:
    context, found = error.get("ctx", {}), error["input"]
    number = str(found).removesuffix(".0")  # some versions of pydantic tell what they made of it
    match error["type"]:
        case "missing":
            return "is empty or missing; fill it in"
        case "greater_than":
            return f"must be above {context['gt']:g}, not {number}"
        case "greater_than_equal":
            sign = "is negative" if context["ge"] == 0 else "is too small"
            return f"{number} {sign}; it must be at least {context['ge']:g}"
        case "less_than_equal":
            return f"{number} is too large; it must be at most {context['le']:g}"
        case "finite_number":
            return f"{found} is not finite"
        case "int_from_float" | "int_type" if isinstance(error["input"], float):
            return f"must be a whole number, not {found!r}"
        case "float_type" | "int_type":
            return f"must be a number, not {found!r}"
        case "string_too_short":
            return "is empty; fill it in"
        case "string_pattern_mismatch":
            return f"{found!r} is not a valid name; use letters, digits and _, a letter first"
        case "string_type":
            return f"must be text in quotation marks, not {found!r}"
        case _:
            return f"{error['msg']} (found {found!r})"


def _key(keys: list[Any]) -> str:
    """The path of a TOML key in words: ``changes 2, key factor`` or ``key values.weight``."""
    heads: list[str] = []
    while len(keys) > 1 and isinstance(keys[1], int):
        heads.append(f"{keys[0]} {keys[1] + 1}")
        keys = keys[2:]
    last = f"key {'.'.join(map(str, keys))}" if keys else ""
    return ", ".join(filter(None, (*heads, last)))


def _fields_at(record: type[Record], keys: list[Any]) -> dict[str, Any]:
    """The fields of the (nested) record that holds the last key of a path."""
    for key in keys[:-1]:
        if isinstance(key, str) and key in record.model_fields:
            annotation = record.model_fields[key].annotation
            inner = (annotation, *get_args(annotation))
            nested = [a for a in inner if isinstance(a, type) and issubclass(a, Record)]
            record = nested[0] if nested else record
    return dict(record.model_fields)
