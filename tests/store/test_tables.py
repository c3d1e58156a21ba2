"""Reading tables strictly: what spreadsheets do is accepted, what people mistype is named."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from crs_sim.errors import CrsSimError, FileError, UnknownNameError
from crs_sim.store.tables import (
    CellError,
    Moment,
    NotNegative,
    Number,
    Real,
    Record,
    Whole,
    check_duplicates,
    column,
    column_comments,
    read_table,
    read_toml,
)


class Line(Record):
    name: str = column(description="what it is called")
    size: Number = column(description="how large")
    count: Whole | None = column(None, description="how many")
    share: NotNegative = column(0.0, description="its share")
    when: Moment = column(0.0, description="when")
    color: Literal["red", "green"] = column("red", description="its color")

    def check(self) -> None:
        if self.name == "bad":
            raise CellError("name", "is bad")


class Part(Record):
    factor: Real


class WholeFile(Record):
    title: str
    values: dict[str, Real] = column(default_factory=dict)
    parts: tuple[Part, ...] = column(default=(), strict=False)


def read(folder: Path, content: str | bytes) -> list[tuple[int, dict[str, object]]]:
    path = folder / "lines.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [
        (row, record.model_dump(exclude_defaults=True)) for row, record in read_table(path, Line)
    ]


PLAIN = "name,size\na,1.5\nb,-2e3\n"
AS_READ = [(2, {"name": "a", "size": 1.5}), (3, {"name": "b", "size": -2000.0})]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        "size,name\n1.5,a\n-2e3,b\n",
        " name , size \n a ,1.5 \n  b,  -2e3\n",
        "name,size,,,\na,1.5,,,\nb,-2e3,,,\n,,,,\n",
        'name, "size"\na, "1.5"\n"b",-2e3\n\n \n',
        "name,size,count\na,1.5\nb,-2e3,\n",
    ],
    ids=["plain", "bom", "crlf", "cr", "no-end", "order", "spaces", "commas", "quotes", "short"],
)
def test_what_spreadsheets_write_is_read_the_same(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content) == AS_READ


def test_comments_and_blank_rows_are_skipped_but_counted(tmp_path: Path) -> None:
    text = '# a, "b\n"# quoted, as Excel does"\nname,size\n\n  # more\na,1\n,,\nb,2\n'
    assert [row for row, _ in read(tmp_path, text)] == [6, 8]


def test_a_quoted_cell_may_hold_commas_and_lines(tmp_path: Path) -> None:
    text = 'name,size\n"a, b\nc",1\nd,2\n'
    assert read(tmp_path, text) == [
        (2, {"name": "a, b\nc", "size": 1.0}),
        (3, {"name": "d", "size": 2.0}),
    ]


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("lines.csv: is empty", ""),
        ("lines.csv: is empty", " \n\n"),
        ("lines.csv: has comments only", "# nothing\n"),
        ("lines.csv: has a header but no rows; add a row", "name,size\n# none\n"),
        ("lines.csv, row 3: is not UTF-8 .byte 0xb5.; save the file as 'CSV UTF-8'",
         b"name,size\na,1\n\xb5g,2\n"),
        ("lines.csv: is UTF-16", PLAIN.encode("utf-16")),
        ("row 1: columns are separated by semicolons", "name;size\na;1,5\n"),
        ("row 2: columns are separated by tabs", "# x\nname\tsize\na\t1\n"),
        ("row 1: unknown column 'szie': did you mean 'size'", "name,szie\na,1\n"),
        ("row 1: unknown column 'Size': did you mean 'size'", "name,Size\na,1\n"),
        ("row 1: there is no column 'size'; columns are name, size, count", "name\na\n"),
        ("row 1: column 'size' appears twice", "name,size,size\na,1,2\n"),
        ("row 2: cell 3 .'c'. is under no column name; put quotation marks", "name,size\na,1,c\n"),
        ("row 3, column size: is empty or missing", "name,size\na,1\nb,\n"),
        ("row 2, column size: 'big' is not a number", "name,size\na,big\n"),
        ("row 2, column size: '1,5' is not a number; write a decimal point",
         'name,size\na,"1,5"\n'),
        ("row 2, column size: '1_000' is not a number", "name,size\na,1_000\n"),
        ("row 2, column size: 'NaN' is not finite", "name,size\na,NaN\n"),
        ("row 2, column size: '-inf' is not finite", "name,size\na,-inf\n"),
        ("row 2, column size: '1e999' is not finite", "name,size\na,1e999\n"),
        ("row 2, column count: '1.5' is not a whole number", "name,size,count\na,1,1.5\n"),
        ("row 2, column share: -1 is negative", "name,size,share\na,1,-1\n"),
        ("row 2, column when: '2024-03-11T08:30' has no time zone",
         "name,size,when\na,1,2024-03-11T08:30\n"),
        ("row 2, column when: '2024-03-11' has no time zone", "name,size,when\na,1,2024-03-11\n"),
        ("row 2, column when: '11.3.24' is neither a number of days nor a date-time such as 2024",
         "name,size,when\na,1,11.3.24\n"),
        ("row 2, column when: 'inf' is not finite", "name,size,when\na,1,inf\n"),
        ("row 2, column color: unknown color 'gren': did you mean 'green'",
         "name,size,color\na,1,gren\n"),
        ("row 2, column name: is bad", "name,size\nbad,1\n"),
        ("row 3: .*quotation marks", 'name,size\na,1\n"b,2\n'),
        ("row 2: .*quotation marks", 'name,size\n"a"b,1\n'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_message_with_its_place(
    tmp_path: Path, words: str, content: str | bytes
) -> None:
    with pytest.raises(CrsSimError, match=words) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path.name}/lines.csv")
    assert "\n" not in str(caught.value)


def test_days_are_numbers_or_zoned_times(tmp_path: Path) -> None:
    rows = read(tmp_path, "name,size,when\na,1,2.5\nb,1,2024-03-11T08:30Z\n")
    assert rows[0][1]["when"] == 2.5
    assert rows[1][1]["when"] == datetime(2024, 3, 11, 8, 30, tzinfo=UTC)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"lines.csv: cannot be read: No such file"):
        read_table(tmp_path / "lines.csv", Line)


def test_repeats_name_both_rows(tmp_path: Path) -> None:
    read(tmp_path, "name,size,count\na,1,\nb,1,\na,1.0,\n")
    path = tmp_path / "lines.csv"
    table = read_table(path, Line)
    with pytest.raises(FileError, match=r"lines.csv, row 4: repeats row 2"):
        check_duplicates(path, table)
    with pytest.raises(FileError, match=r"lines.csv, row 3: repeats row 2"):
        check_duplicates(path, table, ignoring=("name",))


def test_columns_explain_themselves() -> None:
    lines = column_comments(Line).splitlines()
    assert len(lines) == len(Line.model_fields)
    assert lines[0] == "#   name   what it is called"


def toml(folder: Path, content: str) -> WholeFile:
    path = folder / "whole.toml"
    path.write_text(content, encoding="utf-8")
    return read_toml(path, WholeFile)


def test_toml_is_read_as_it_stands(tmp_path: Path) -> None:
    found = toml(tmp_path, 'title = "t"\n[values]\na = 1\n[[parts]]\nfactor = 0.5\n')
    assert found.values == {"a": 1.0} and found.parts[0].factor == 0.5


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("whole.toml: is empty", ""),
        ("whole.toml: is not TOML: .*line 2", 'title = "t"\nx =\n'),
        ("whole.toml, key title: is empty or missing", "[values]\n"),
        ("whole.toml, key title: must be text in quotation marks, not 3", "title = 3\n"),
        ("whole.toml, key titel: unknown key 'titel': did you mean 'title'", 'titel = "t"\n'),
        ("key values.a: must be a number, not '1'", 'title = "t"\n[values]\na = "1"\n'),
        ("key values.a: must be a number, not True", 'title = "t"\n[values]\na = true\n'),
        ("key values.a: nan is not finite", 'title = "t"\n[values]\na = nan\n'),
        ("parts 2, key facter: unknown key 'facter': did you mean 'factor'",
         'title = "t"\n[[parts]]\nfactor = 1\n[[parts]]\nfactor = 1\nfacter = 2\n'),
        ("parts 1, key factor: must be a number", 'title = "t"\n[[parts]]\nfactor = "x"\n'),
        ("key values: ", 'title = "t"\nvalues = 3\n'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_toml_names_its_key(tmp_path: Path, words: str, content: str) -> None:
    with pytest.raises(CrsSimError, match=words):
        toml(tmp_path, content)


def test_unknown_names_are_lookup_errors_too(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        toml(tmp_path, 'titel = "t"\n')
    with pytest.raises(LookupError):
        read(tmp_path, "name,sise\na,1\n")
