"""An Excel workbook as rows of text, sheet by sheet. The only module that imports openpyxl.

A sheet has a path inside the workbook, ``patient7.xlsx/doses``. Its cells are checked like those of
a CSV file.
"""

# Ours, around openpyxl, since pandas.read_excel and calamine give values only: a formula that was
# saved without its value is to them an empty cell.

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from ..errors import FileError, unknown_name

SUFFIX = ".xlsx"
UNSUPPORTED = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
"""Other spreadsheet formats, rejected with advice."""
COMMENT = "#"
"""A sheet whose name, or a row whose first cell, begins with this is not read."""
LIKE = 0.8  # of 0 to 1, of two names
TABLES = (".csv", ".tsv", ".txt", ".tab", ".dat", ".xls", ".xlsx", ".xlsm", ".ods", ".gz", ".zip")
"""Endings of files that may hold a table."""
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


def is_there(path: Path) -> bool:
    """Whether a table is there, as a file or a sheet.

    Raises
    ------
    FileError
        If it is a link to nothing; or if it is not there, but a file of a similar name is, which
        would be passed over.
    """
    if is_sheet(path):
        return has_sheet(path)
    if path.exists():
        return True
    if path.is_symlink():
        raise FileError(f"{place(path)}: is a link to nothing; correct the link, or remove it")
    near = [name for name in sorted(p.name for p in path.parent.iterdir()) if _alike(name, path)]
    if near:
        raise FileError(
            f"{place(path)}: does not exist, but {near[0]!r} does; save it as {path.name}, or "
            "rename or remove it"
        )
    return False


def _alike(name: str, path: Path) -> bool:
    """Whether a file's name is that of this table misspelt, longer, or with another ending."""
    stem = Path(name.lower()).name.partition(".")[0]
    likeness = SequenceMatcher(None, stem, path.stem).ratio()
    table = Path(name).suffix.lower() in TABLES
    return (likeness > LIKE and (table or stem == path.stem)) or (table and path.stem in stem)


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
    if not hasattr(values, "rows"):
        raise FileError(f"{_place(path)}: is a chart, not a table")
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
    from openpyxl.reader.excel import ExcelReader

    try:
        reader = ExcelReader(io.BytesIO(path.read_bytes()), data_only=values)
        reader.read()
        listed = [sheet.name for sheet in reader.parser.sheets]
    except OSError as error:
        raise FileError(f"{path.name}: cannot be read: {error.strerror}") from None
    except Exception:  # openpyxl raises many exception types for a damaged file
        raise FileError(
            f"{path.name}: is not a readable Excel workbook; open it in a spreadsheet and "
            f"save it again as {SUFFIX}, without a password"
        ) from None
    for name in listed:
        if name not in reader.wb.sheetnames:  # openpyxl leaves out what it does not find
            raise FileError(f"{path.name}, sheet {name}: is damaged; save the workbook again")
    return reader.wb


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


COMMENT_LINE = re.compile(r'\s*"?\s*#')
BEYOND = r"(?:[<>]=?|[≤≥])\s*"
"""A sign before the limit that a level is below or above, as a regular expression."""
HASHED_HEADER = re.compile(r'\s*"?#\s*"?ID"?\s*[,;\t]', re.IGNORECASE)


def place(path: Path, row: int = 0, column: str = "", key: str = "") -> str:
    """A location in a file, as every message begins with it.

    >>> place(Path("case/doses.csv"), 7, "unit")
    'case/doses.csv, row 7, column unit'
    >>> place(Path("case.xlsx/doses"), 7, "unit")
    'case.xlsx, sheet doses, row 7, column unit'
    """
    file = f"{path.parent.name}/{path.name}" if path.parent.name else path.name
    if is_sheet(path):
        file = f"{path.parent.name}, sheet {path.name}"
    parts = [file, f"row {row}" if row else "", f"column {column}" if column else ""]
    return ", ".join(part for part in (*parts, key) if part)


def read_cells(path: Path) -> tuple[int, list[str], tuple[tuple[int, dict[str, str]], ...]]:
    """A file of any columns: the header's row, the columns, the cells by row.

    Rows are recognised as in `read_table`; empty cells are left out. Columns may also be separated
    by semicolons or tabs, then with decimal commas if all numbers have them; the header may begin
    with ``#ID``.

    Raises
    ------
    FileError
        Naming file and row.
    """
    if is_sheet(path):
        row, header, rows = header_and_rows(path)
    else:
        text = _named_header(file_text(path))
        separator = _separator(text)
        cells = _csv_rows(path, text, separator)
        if separator != ",":
            cells = _decimal_points(path, list(cells))
        row, header, rows = _header_and_rows(path, cells)
    table = tuple((n, cells_by_column(path, n, header, cells)) for n, cells in rows)
    if not table:
        raise FileError(f"{place(path)}: has a header but no rows")
    return row, [name for name in header if name], table


def _named_header(text: str) -> str:
    """The text, without the sign of a comment before a header that begins with ``#ID``."""
    lines = text.splitlines(keepends=True)
    for k, line in enumerate(lines):
        if HASHED_HEADER.match(line):
            return "".join([*lines[:k], line.replace(COMMENT, "", 1), *lines[k + 1 :]])
        if line.strip() and not COMMENT_LINE.match(line):
            break
    return text


def _separator(text: str) -> str:
    """What separates the columns: of comma, semicolon and tab the most frequent in the header."""
    lines = (li for li in text.splitlines() if li.strip() and not COMMENT_LINE.match(li))
    header = next(lines, "")
    return max(",;\t", key=header.count)


def _decimal_points(
    path: Path, rows: list[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file without commas between columns, its numbers with decimal points.

    Refused if numbers have commas and points, or if all might be thousands: 21.033, 3,000.
    """
    number = rf"(?:{BEYOND})?[+-]?\d*[{{}}]\d+([eE][+-]?\d+)?"
    signs: dict[str, list[tuple[int, str]]] = {
        sign: [(row, cell) for row, cells in rows for cell in cells
               if re.fullmatch(number.format(sign), cell)] for sign in ",."
    }  # fmt: skip
    if signs[","] and signs["."]:
        (row, comma), (other, point) = signs[","][0], signs["."][0]
        raise FileError(
            f"{place(path, row)}: {comma!r} has a comma, and {point!r} in row {other} a point; "
            "write all numbers in one way"
        )
    for found in signs.values():
        if found and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}[,.]\d{3}", cell) for _, cell in found):
            raise FileError(
                f"{place(path, found[0][0])}: {found[0][1]!r} may be a decimal number or "
                "thousands; save the file with commas between columns and points in numbers"
            )
    decimal = {cell for _, cell in signs[","]}
    for row, cells in rows:
        yield row, [cell.replace(",", ".") if cell in decimal else cell for cell in cells]


def file_text(path: Path) -> str:
    """The text of a UTF-8 file, without byte-order mark; an empty file is refused."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError(f"{place(path)}: cannot be read: {error.strerror}") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileError(f"{place(path)}: is UTF-16, not UTF-8; save it as 'CSV UTF-8'")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise FileError(
            f"{place(path, row)}: is not UTF-8 (byte 0x{byte:02x}); save the file as 'CSV UTF-8'"
        ) from None
    if not text.strip():
        raise FileError(f"{place(path)}: is empty; fill it in, or delete it if it is optional")
    return text


def _csv_rows(path: Path, text: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Row number and stripped cells of every row that is neither blank nor a comment."""
    lines = ("\n" if COMMENT_LINE.match(line) else line for line in io.StringIO(text, newline=""))
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield row, stripped
    except csv.Error as error:
        raise FileError(
            f"{place(path, row + 1)}: {error}; check that quotation marks come in pairs"
        ) from None


def header_and_rows(path: Path) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    """The header's row number, the columns, and the rows below."""
    rows = iter(sheet_rows(path)) if is_sheet(path) else _csv_rows(path, file_text(path))
    return _header_and_rows(path, rows)


def _header_and_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]]
) -> tuple[int, list[str], Iterator[tuple[int, list[str]]]]:
    row, cells = next(rows, (0, []))
    if not cells:
        raise FileError(f"{place(path)}: has comments only; the first row names the columns")
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if any(separator in cell for cell in cells):
            raise FileError(
                f"{place(path, row)}: columns are separated by {word}; save the file with commas "
                "between columns and points in numbers"
            )
    if len(cells) == 1 and len(cells[0].split()) > 1:
        raise FileError(
            f"{place(path, row)}: columns are separated by blanks; save the file with commas "
            "between columns"
        )
    for name in filter(None, cells):
        if cells.count(name) > 1:
            raise FileError(f"{place(path, row)}: column {name!r} appears twice; keep one")
    return row, cells, rows


def cells_by_column(path: Path, row: int, header: list[str], cells: list[str]) -> dict[str, str]:
    """The cells of a row by the name of their column; empty cells are left out."""
    padded = header + [""] * (len(cells) - len(header))
    for position, (name, cell) in enumerate(zip(padded, cells, strict=False), start=1):
        if cell and not name:
            raise FileError(
                f"{place(path, row)}: cell {position} ({cell!r}) is under no column name; put "
                "quotation marks around a text that holds a comma"
            )
    return {name: cell for name, cell in zip(padded, cells, strict=False) if cell}
