"""Template files for a new patient: documented columns and made-up example rows.

The column descriptions are those of `crs_sim.patientfiles`, which reads the files.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from .errors import StorageError
from .output import write_atomic
from .patientfiles import FILES, DoseRow, KeyRow, ObservationRow, file_path
from .tables import column_comments, place, read_table
from .workbook import has_sheet, is_workbook, workbook_bytes

EXAMPLE = "EXAMPLE"
"""The start of the note of an example row."""

SEPARATE = "Separate columns by commas"
SAVE = "Save as CSV UTF-8."

TOML = """\
# The patient. A line that starts with # is a comment and is not read.
# EXAMPLE: every number in these three files is made up; replace it by your patient's.

id = {id}
model = "crs"    # a shipped model, or the path of your own

# The time of the CAR-T infusion, with its time zone. Only needed if doses.csv or
# observations.csv give date-times instead of days; then day = (time - infusion) / 24 h.
# infusion = 2024-03-11T08:30:00+01:00

# The patient's own values of model parameters; body weight in kg is needed for doses per kg.
[values]
weight = 70

# A parameter that is scaled (factor) or set (value) between two days. As many as needed.
# [[changes]]
# parameter = "k_il6"
# first = 13
# last = 20
# factor = 0.5
"""

DOSES = """\
# Doses given. EXAMPLE: the rows are made up; replace them. One dose a row, or one dose repeated.
# Separate columns by commas; decimals have a point; a text with a comma needs quotation marks.
# Save as CSV UTF-8. Empty cells mean: not given. Blank rows and rows that start with # are skipped.
#
{columns}#
day,drug,amount,unit,hours,every,doses,note
0,cart,5e6,cells/kg,,,,EXAMPLE: the CAR-T infusion
2.5,tocilizumab,8,mg/kg,1,,,EXAMPLE: one dose over an hour
3,dexamethasone,10,mg,,6,4,EXAMPLE: four doses six hours apart
"""

OBSERVATIONS = """\
# Measurements. EXAMPLE: the rows are made up; replace them, or delete this file.
# Separate columns by commas; decimals have a point; a text with a comma needs quotation marks.
# Save as CSV UTF-8. Empty cells mean: not given. Blank rows and rows that start with # are skipped.
#
{columns}#
id,observable,kind,day,until,reference,value,unit,sd,note
ferritin_d3,ferritin,value,3,,,900,ng/mL,,EXAMPLE: a level
ifng_d0,ifng,below,0,,,4.2,pg/mL,,EXAMPLE: below the limit of quantification
crp_peak,crp,peak,1,5,,120,mg/L,,EXAMPLE: the largest level from day 1 to 5
grade_d2,crs_grade,grade,2,,,2,,,EXAMPLE: CRS grade 2 on day 2
"""

PATIENT = """\
# The patient. EXAMPLE: every number in these sheets is made up; replace it by your patient's.
# Blank rows and rows that start with # are skipped.
#
{columns}#
key,value,note
id,{id},
model,crs,"a shipped model, or the path of your own"
weight,70,EXAMPLE: in kg
"""


def new_patient(place: str | Path) -> Path:
    """Create a folder with three template files; or an Excel workbook, if it ends in .xlsx.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = new_patient(Path(mkdtemp()) / "patient7")
    >>> sorted(path.name for path in folder.iterdir())
    ['doses.csv', 'observations.csv', 'patient.toml']

    Raises
    ------
    StorageError
        If one of the files exists or cannot be written; then no file is written.
    """
    place = Path(place)
    if is_workbook(place):
        files = {place.name: workbook_bytes(new_sheets(place.stem))}
        _write(place.parent, files)
    else:
        texts = new_files(place.resolve().name or "patient")
        _write(place, {name: text.encode() for name, text in texts.items()})
    return place


def template_rows(home: Path) -> tuple[str, ...]:
    """Locations of template rows left in a patient's files, which would count as real data.

    Parameters
    ----------
    home : Path, a patient's folder or workbook, already read without errors

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> template_rows(new_patient(Path(mkdtemp()) / "patient7"))[0]
    'patient7/doses.csv, rows 16, 17, 18'
    """
    book = is_workbook(home)
    found = []
    for name, record in (("patient", KeyRow), ("doses", DoseRow), ("observations", ObservationRow)):
        path = file_path(home, name)
        if (name == "patient" and not book) or not (has_sheet(path) if book else path.is_file()):
            continue
        table = read_table(path, record)
        rows = [row for row, entry in table if entry.model_dump()["note"].startswith(EXAMPLE)]
        if rows:
            numbers = ", ".join(map(str, rows))
            found.append(f"{place(path)}, row{'s' * (len(rows) > 1)} {numbers}")
    return tuple(found)


def new_sheets(id: str) -> dict[str, list[list[str]]]:
    """Name and rows of the sheets of a new patient's workbook.

    >>> list(new_sheets("p1"))
    ['patient', 'doses', 'observations']
    """
    files = new_files(id)
    texts = {name: _in_a_workbook(files[file]) for name, file in FILES.items()}
    quoted = '"' + id.replace('"', '""') + '"'
    texts["patient"] = PATIENT.format(id=quoted, columns=column_comments(KeyRow))
    return {name: [_cells(line) for line in text.splitlines()] for name, text in texts.items()}


def _in_a_workbook(text: str) -> str:
    """The text of a template, without the advice that applies to CSV files only."""
    lines = (line for line in text.splitlines() if not line.startswith(f"# {SEPARATE}"))
    text = "\n".join(lines).replace(f"# {SAVE} ", "# ").replace("patient.toml", "sheet patient")
    return text.replace("delete this file", "delete this sheet")


def _cells(line: str) -> list[str]:
    comment = line.startswith("#")
    return [line] if comment else next(csv.reader([line], skipinitialspace=True))


def new_files(id: str) -> dict[str, str]:
    """Name and text of the three files of a new patient.

    >>> sorted(new_files("p1"))
    ['doses.csv', 'observations.csv', 'patient.toml']
    """
    return {
        "patient.toml": TOML.format(id=json.dumps(id, ensure_ascii=False)),
        "doses.csv": DOSES.format(columns=column_comments(DoseRow)),
        "observations.csv": OBSERVATIONS.format(columns=column_comments(ObservationRow)),
    }


def _write(folder: Path, files: dict[str, bytes]) -> None:
    present = [name for name in files if (folder / name).exists()]
    if present:
        what = f"{folder}  already has a {present[0]}"
        raise StorageError(f"{what}; nothing was written; choose a new name")
    write_atomic({folder / name: content for name, content in files.items()})
