"""A patient in an Excel workbook: the same patient as in files, and the same strictness."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from openpyxl.chart import BarChart

from crs_sim.errors import CrsSimError, FileError, StorageError
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient
from crs_sim.patients.patient_checks import check_against, new_patient, template_rows


@pytest.fixture
def book(tmp_path):
    return new_patient(tmp_path / "p7.xlsx")


def edit(path: Path, sheet: str, cell: str, value: object) -> None:
    workbook = openpyxl.load_workbook(path)
    workbook[sheet][cell] = value
    workbook.save(path)


def row_of(path: Path, sheet: str, first: str) -> int:
    rows = openpyxl.load_workbook(path)[sheet].iter_rows(values_only=True)
    return next(k for k, row in enumerate(rows, start=1) if row and row[0] == first)


def test_a_new_workbook_is_the_patient_of_new_files(book, tmp_path):
    from_files, from_book = load_patient(new_patient(tmp_path / "p7")), load_patient(book)
    assert from_book.observations == from_files.observations
    assert from_book.scenario == from_files.scenario
    assert (from_book.id, from_book.model, from_book.path) == ("p7", "crs", str(book))
    check_against(from_book, load_model("crs"))


def test_a_new_workbook_speaks_of_sheets(book):
    sheets = openpyxl.load_workbook(book)
    said = "\n".join(str(row[0]) for name in sheets.sheetnames
                     for row in sheets[name].iter_rows(values_only=True) if row[0])  # fmt: skip
    assert "if sheet patient has that of the infusion" in " ".join(said.replace("#", "").split())
    assert "Empty cells mean: not given" in said
    assert not any(word in said for word in ("CSV", "commas", ".toml", "this file"))


def test_rows_that_nobody_replaced_are_named(book, tmp_path):
    folder = new_patient(tmp_path / "p7")
    assert template_rows(folder) == (
        "p7/doses.csv, rows 17, 18, 19",
        "p7/observations.csv, rows 23, 24, 25, 26",
    )
    assert [where.split(", row")[0] for where in template_rows(book)] == [
        "p7.xlsx, sheet patient",
        "p7.xlsx, sheet doses",
        "p7.xlsx, sheet observations",
    ]
    (folder / "observations.csv").unlink()
    doses = (folder / "doses.csv").read_text().splitlines()
    (folder / "doses.csv").write_text("\n".join([*doses[:-3], "0,cart,5e6,cells/kg,,,,own"]))
    assert template_rows(folder) == ()
    first = row_of(book, "doses", 0)
    edit(book, "doses", f"H{first}", None)
    assert template_rows(book)[1] == f"p7.xlsx, sheet doses, rows {first + 1}, {first + 2}"


def test_new_writes_over_nothing(book):
    with pytest.raises(StorageError, match=r"already has a p7\.xlsx; nothing was written"):
        new_patient(book)
    assert [path.name for path in book.parent.iterdir()] == ["p7.xlsx"]


def test_ids_with_any_character_come_back(tmp_path):
    assert load_patient(new_patient(tmp_path / 'Müller, "J".xlsx')).id == 'Müller, "J"'


def test_changes_and_moments(book):
    workbook = openpyxl.load_workbook(book)
    sheet = workbook.create_sheet("changes")
    sheet.append(["parameter", "first", "last", "factor"])
    sheet.append(["k_il6", 1, 3, 0.5])
    workbook["patient"].append(["infusion", "2024-03-11T08:30+01:00"])
    workbook.create_sheet("# my notes").append(["anything"])
    workbook.save(book)
    edit(book, "doses", f"A{row_of(book, 'doses', 'day') + 1}", "2024-03-11T20:30+01:00")
    patient = load_patient(book)
    (change,) = patient.scenario.changes
    assert (change.parameter, change.first, change.last, change.factor) == ("k_il6", 1, 3, 0.5)
    assert next(iter(patient.scenario.doses)).day == 0.5


def test_a_patient_without_observations(book):
    workbook = openpyxl.load_workbook(book)
    del workbook["observations"]
    workbook.save(book)
    assert len(load_patient(book).observations) == 0


def test_a_patient_without_doses_is_stated(book):
    workbook = openpyxl.load_workbook(book)
    del workbook["doses"]
    workbook.save(book)
    with pytest.raises(FileError, match=r"p7\.xlsx, sheet doses: does not exist; .* key untreated"):
        load_patient(book)
    workbook["patient"].append(["untreated", True])
    workbook.save(book)
    assert len(load_patient(book).scenario.doses) == 0
    workbook["patient"]["B" + str(workbook["patient"].max_row)] = "perhaps"
    workbook.save(book)
    with pytest.raises(FileError, match=r"key untreated: .*'perhaps'"):
        load_patient(book)


@pytest.mark.parametrize("sheet", ["doses", "observations"])
def test_a_sheet_that_the_file_has_lost_is_named(book, sheet):
    files = unpacked(book)
    number = openpyxl.load_workbook(book).sheetnames.index(sheet) + 1
    del files[f"xl/worksheets/sheet{number}.xml"]
    pack(book, files)
    with pytest.raises(FileError, match=rf"p7\.xlsx, sheet {sheet}: is damaged"):
        load_patient(book)


def test_conversions_and_body_surface_of_a_workbook(book):
    workbook = openpyxl.load_workbook(book)
    sheet = workbook.create_sheet("conversions")
    sheet.append(["of", "unit", "equals", "source"])
    sheet.append(["ferritin", "U/mL", "2 ng/mL", "data sheet"])
    workbook["patient"].append(["height", 180])
    workbook["doses"].append([4, "dexamethasone", 10, "mg/m2"])
    workbook["observations"].append(
        ["f5", "ferritin", "value", 5, None, None, 300, "U/mL"])  # fmt: skip
    workbook.save(book)
    patient = check_against(load_patient(book), load_model("crs"))
    assert patient.observations["f5"].value == pytest.approx(600)
    surface = (180 * 70 / 3600) ** 0.5
    assert patient.scenario.doses.doses[-1].amount == pytest.approx(10 * surface)


def test_a_chart_is_no_table(book):
    workbook = openpyxl.load_workbook(book)
    del workbook["doses"]
    workbook.create_chartsheet("doses").add_chart(BarChart())
    workbook.save(book)
    with pytest.raises(FileError, match="sheet doses: is a chart, not a table"):
        load_patient(book)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_workbook_is_never_another_patient(book, data):
    whole, files = load_patient(new_patient(book.parent / "whole.xlsx")), unpacked(book)
    (book.parent / "whole.xlsx").unlink()
    name = data.draw(st.sampled_from(sorted(n for n in files if "sheet" in n or "book" in n)))
    cut = data.draw(st.integers(0, len(files[name]) - 1))
    broken = book.with_name("broken.xlsx")
    pack(broken, files | {name: files[name][:cut]})
    try:
        patient = load_patient(broken)
    except CrsSimError:
        return
    assert patient.scenario.doses == whole.scenario.doses
    assert patient.observations == whole.observations


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _doses(workbook):
    return workbook["doses"], row_of_doses(workbook)


def row_of_doses(workbook):
    rows = workbook["doses"].iter_rows(values_only=True)
    return next(k for k, row in enumerate(rows, start=1) if row[0] == "day")


def _misspelt_column(workbook):
    sheet, row = _doses(workbook)
    sheet.cell(row, 3).value = "amuont"


def _no_number(workbook):
    sheet, row = _doses(workbook)
    sheet.cell(row + 2, 3).value = "eight"


def _naive_date(workbook):
    sheet, row = _doses(workbook)
    sheet.cell(row + 2, 1).value = datetime(2024, 3, 11, 8, 30)


def _merged(workbook):
    sheet, row = _doses(workbook)
    sheet.merge_cells(start_row=row + 1, end_row=row + 2, start_column=2, end_column=2)


def _error_cell(workbook):
    sheet, row = _doses(workbook)
    sheet.cell(row + 1, 3).value = "#DIV/0!"
    sheet.cell(row + 1, 3).data_type = "e"


def _formula(workbook):
    sheet, row = _doses(workbook)
    sheet.cell(row + 1, 3).value = "=1+1"


def _misspelt_sheet(workbook):
    workbook["doses"].title = "dosis"


def _no_patient(workbook):
    del workbook["patient"]


def _twice(workbook):
    workbook["patient"].append(["weight", 80])


def _no_value(workbook):
    workbook["patient"].append(["age", None])


def _text_value(workbook):
    workbook["patient"].append(["age", "old"])


def _unknown_parameter(workbook):
    workbook["patient"].append(["wieght", 80])


BAD = {
    _misspelt_column: r"p7\.xlsx, sheet doses, row \d+: unknown column 'amuont': did you mean 'am",
    _no_number: r"p7\.xlsx, sheet doses, row \d+, column amount: 'eight' is not a number",
    _naive_date: r"sheet doses, row \d+, column day: '2024-03-11T08:30:00' has no time zone",
    _merged: r"sheet doses: cells B\d+:B\d+ are merged; unmerge them",
    _error_cell: r"sheet doses, cell C\d+: is #DIV/0!; correct its formula",
    _formula: r"sheet doses, cell C\d+: is a formula whose value was not saved",
    _misspelt_sheet: r"p7\.xlsx: unknown sheet 'dosis': did you mean 'doses'\?; or begin",
    _no_patient: r"p7\.xlsx: has no sheet 'patient'",
    _twice: r"sheet patient, row \d+, column key: 'weight' appears twice",
    _no_value: r"sheet patient, row \d+, column value: is empty",
    _text_value: r"sheet patient, row \d+, column value: 'old' is not a number",
    _unknown_parameter: r"sheet patient, key values.wieght: unknown parameter .* 'weight'",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_mistakes_name_sheet_row_and_column(book, spoil):
    workbook = openpyxl.load_workbook(book)
    spoil(workbook)
    workbook.save(book)
    with pytest.raises(CrsSimError, match=BAD[spoil]):
        check_against(load_patient(book), load_model("crs"))


@pytest.mark.parametrize("content", [b"", b"no workbook", "half"])
def test_what_is_no_workbook_is_refused(book, content):
    book.write_bytes(book.read_bytes()[:2000] if content == "half" else content)
    with pytest.raises(CrsSimError, match=r"p7\.xlsx: is not a readable Excel workbook"):
        load_patient(book)


def test_other_spreadsheets_are_refused_by_name(tmp_path):
    (tmp_path / "p7.xls").write_bytes(b"")
    with pytest.raises(CrsSimError, match="save it as an Excel workbook"):
        load_patient(tmp_path / "p7.xls")
    with pytest.raises(CrsSimError, match="save it as an Excel workbook"):
        new_patient(tmp_path / "p8.ods")


def test_saving_it_again_changes_nothing(book):
    before, buffer = load_patient(book), io.BytesIO()
    openpyxl.load_workbook(book).save(buffer)
    book.write_bytes(buffer.getvalue())
    assert load_patient(book) == before
