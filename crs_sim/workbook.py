"""An Excel workbook as rows of text, sheet by sheet. The only module that imports openpyxl.

A sheet has a path inside the workbook, ``patient7.xlsx/doses``. Its cells are checked like those of
a CSV file.
"""

# Ours round openpyxl, since pandas.read_excel and calamine give values only: a formula that was
# saved without its value is to them an empty cell.

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from .errors import FileError, unknown_name

SUFFIX = ".xlsx"
UNSUPPORTED = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
"""Other spreadsheet formats, rejected with advice."""
COMMENT = "#"
"""A sheet whose name, or a row whose first cell, begins with this is not read."""
NARROW, WIDE = 14, 60
GREY, BLACK = "00777777", "00000000"


def is_workbook(path: Path) -> bool:
    """Whether a path is an Excel workbook; other spreadsheet formats raise an error.

    Raises
    ------
    FileError
        For another spreadsheet format.
    """
    if path.suffix.lower() in UNSUPPORTED:
        raise FileError(f"{path.name}: save it as an Excel workbook ({SUFFIX}), then try again")
    return path.suffix.lower() == SUFFIX


def is_sheet(path: Path) -> bool:
    """Whether a path is a sheet: a workbook's path followed by a sheet name."""
    return path.parent.suffix.lower() == SUFFIX and not path.parent.is_dir()


def has_sheet(path: Path) -> bool:
    """Whether the workbook has that sheet."""
    return path.name in _open(path.parent, values=True).sheetnames


def check_sheets(path: Path, known: Iterable[str]) -> None:
    """Raise an error for a sheet that would not be read.

    Raises
    ------
    FileError, UnknownNameError
        If it is not a workbook, or has an unknown sheet; with the closest match.
    """
    known = tuple(known)
    for name in _open(path, values=True).sheetnames:
        if name not in known and not name.startswith(COMMENT):
            error = unknown_name("sheet", name, known)
            raise type(error)(
                f"{path.name}: {error}; or begin its name with {COMMENT} to have it ignored"
            )


def sheet_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Row number and cells as text of every row that is neither blank nor a comment.

    Raises
    ------
    FileError
        For merged cells, an error value, or a formula whose value was not saved.
    """
    values, formulas = (_open(path.parent, values=v)[path.name] for v in (True, False))
    if formulas.merged_cells.ranges:
        first = min(merged.coord for merged in formulas.merged_cells.ranges)
        raise FileError(f"{_place(path)}: cells {first} are merged; unmerge them")
    rows = []
    for row, (cells, written) in enumerate(zip(values.rows, formulas.rows, strict=True), start=1):
        texts = [_text(path, cell, source) for cell, source in zip(cells, written, strict=True)]
        if any(texts) and not texts[0].startswith(COMMENT):
            rows.append((row, texts))
    return rows


def workbook_bytes(sheets: Mapping[str, Iterable[list[str]]]) -> bytes:
    """An Excel file from rows of text by sheet; numeric text becomes numbers.

    Rows that begin with ``#`` are set in grey, the first other row of a sheet in bold.
    """
    from openpyxl import Workbook
    from openpyxl.styles import Font

    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet, header = book.create_sheet(name), True
        for row in rows:
            sheet.append([_number(cell) for cell in row])
            comment = bool(row) and row[0].startswith(COMMENT)
            for cell in sheet[sheet.max_row]:
                cell.font = Font(bold=header and not comment, color=GREY if comment else BLACK)
            header = header and comment
        for column in "ABCDEFGHIJ":
            sheet.column_dimensions[column].width = NARROW
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _open(path: Path, *, values: bool) -> Any:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with path.open("rb") as file:
            return load_workbook(io.BytesIO(file.read()), data_only=values)
    except OSError as error:
        raise FileError(f"{path.name}: cannot be read: {error.strerror}") from None
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError):
        raise FileError(
            f"{path.name}: is not a readable Excel workbook; open it in a spreadsheet and "
            f"save it again as {SUFFIX}, without a password"
        ) from None


def _text(path: Path, cell: Any, written: Any) -> str:
    value, where = cell.value, f"{_place(path)}, cell {cell.coordinate}"
    if cell.data_type == "e":
        raise FileError(f"{where}: is {value}; correct its formula")
    if written.data_type == "f" and value is None:
        raise FileError(
            f"{where}: is a formula whose value was not saved; save the file in a spreadsheet, or "
            "write the number"
        )
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value).strip()


def _number(text: str) -> str | float | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def _place(path: Path) -> str:
    return f"{path.parent.name}, sheet {path.name}"
