"""Dates as a spreadsheet keeps them, and levels of before the infusion."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest

from crs_sim.errors import CrsSimError, Notice
from crs_sim.model.model_file import load_model
from crs_sim.patients.patient import load_patient
from crs_sim.patients.patient_checks import check_against, template_rows

MODEL = load_model("crs")
HEAD = "id,observable,kind,day,until,reference,value,unit\n"
ZONED = 'id = "x"\ninfusion = 2024-03-11T08:30:00\ntime_zone = "Europe/Vienna"\n'


def folder(path: Path, observations: str, about: str = 'id = "x"\n') -> Path:
    (path / "patient.toml").write_text(about + "[values]\nweight = 70\n")
    (path / "doses.csv").write_text("day,drug,amount,unit\n0,cart,1e6,cells/kg\n")
    (path / "observations.csv").write_text(HEAD + observations)
    return path


def workbook(path: Path, *, zone: str = "Europe/Vienna", infusion: object = None) -> Path:
    book = openpyxl.Workbook()
    patient = book.active
    patient.title = "patient"
    start = datetime(2024, 3, 11, 8, 30) if infusion is None else infusion
    rows = [("key", "value"), ("id", "x"), ("infusion", start), ("weight", 70)]
    for row in rows + [("time_zone", zone)] * bool(zone):
        patient.append(row)
    doses, seen = book.create_sheet("doses"), book.create_sheet("observations")
    doses.append(("day", "drug", "amount", "unit"))
    doses.append((datetime(2024, 3, 12, 20, 30), "cart", 1e6, "cells/kg"))
    seen.append(("id", "observable", "kind", "day", "until", "value", "unit"))
    seen.append(("a", "il6", "value", datetime(2024, 4, 1, 8, 30), None, 5, "pg/mL"))
    seen.append(("b", "il6", "peak", date(2024, 3, 13), datetime(2024, 3, 14), 9, "pg/mL"))
    changes = book.create_sheet("changes")
    changes.append(("parameter", "first", "last", "factor"))
    changes.append(("k_il6", datetime(2024, 3, 12, 8, 30), datetime(2024, 3, 13, 8, 30), 0.5))
    book.save(path / "p.xlsx")
    return path / "p.xlsx"


def test_date_cells_need_the_zone_once(tmp_path):
    patient = load_patient(workbook(tmp_path))
    assert patient.scenario.doses.doses[0].day == 1.5
    first, second = patient.observations
    assert first.day == pytest.approx(21 - 1 / 24)  # summer time has begun
    assert (second.day, second.until) == pytest.approx((1 + 15.5 / 24, 2 + 15.5 / 24))
    assert (patient.scenario.changes[0].first, patient.scenario.changes[0].last) == (1.0, 2.0)


def test_text_with_a_zone_keeps_it(tmp_path):
    book = workbook(tmp_path, infusion="2024-03-11T07:30Z")
    assert load_patient(book).scenario.doses.doses[0].day == 1.5


def test_a_date_without_an_hour_is_midnight_and_a_note_says_so(tmp_path):
    with pytest.warns(Notice, match="2024-03-13 without an hour is read as 00:00 in Europe/Vienna"):
        load_patient(workbook(tmp_path))


@pytest.mark.parametrize(
    ("zone", "words"),
    [("", "has no time zone; write it as .*, or once time_zone = \"Europe/Vienna\""),
     ("Vienna", "key time_zone: 'Vienna' is not a known time zone|'Vienna' is not a known")],
)  # fmt: skip
def test_no_zone_or_none_of_that_name(tmp_path, zone, words):
    with pytest.raises(CrsSimError, match=words):
        load_patient(workbook(tmp_path, zone=zone))


@pytest.mark.parametrize("time", ["2024-03-31T02:30", "2024-10-27T02:30"])
def test_an_hour_that_is_not_there_or_there_twice_is_refused(tmp_path, time):
    about = folder(tmp_path, f"a,il6,value,{time},,,5,pg/mL\n", ZONED)
    with pytest.raises(CrsSimError, match="is where clocks change in Europe/Vienna; write it as"):
        load_patient(about)


def test_files_of_a_folder_take_the_zone_too(tmp_path):
    about = folder(tmp_path, "a,il6,value,2024-03-13 20:30,,,5,pg/mL\n", ZONED)
    assert load_patient(about).observations["a"].day == 2.5


# --- before day 0 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["il6", "ifng", "crp", "ferritin", "sil2r", "cxcl10", "IL-6"])
@pytest.mark.parametrize("kind", ["value", "below", "above"])
def test_a_level_at_rest_is_a_baseline(tmp_path, name, kind):
    meant = MODEL.usual.meant("level", name)
    unit = MODEL[meant].unit.replace("_per_", "/")
    patient = load_patient(folder(tmp_path, f"a,{name},{kind},-5.5,,,5,{unit}\n"))
    words = rf"observations.csv, row 2: {meant} of before day 0 is read as its level on day 0"
    with pytest.warns(Notice, match=words):
        (seen,) = check_against(patient, MODEL).observations
    assert (seen.day, seen.until) == (0.0, 0.0)


def test_a_ratio_to_a_baseline(tmp_path):
    patient = load_patient(folder(tmp_path, "a,ferritin,ratio,5,,-3,4,\n"))
    with pytest.warns(Notice, match="ferritin of before day 0"):
        (seen,) = check_against(patient, MODEL).observations
    assert (seen.day, seen.reference) == (5.0, 0.0)


def test_the_baseline_is_what_a_model_started_earlier_has_on_day_0(tmp_path):
    """Taking it to day 0 is right: untreated, the level is the same on every day before."""
    from crs_sim.dosing.scenario import Scenario
    from crs_sim.simulation.simulation import simulate

    run = simulate(MODEL, Scenario("x"), until=30)
    for name in ("il6", "ifng", "crp", "ferritin", "sil2r", "cxcl10"):
        assert run[name].min() == pytest.approx(run[name].max(), rel=1e-6)
    assert run["psa"][-1] > 1.01 * run["psa"][0]


@pytest.mark.parametrize(
    ("row", "words"),
    [("a,psa,value,-3,,,30,ng/mL", r"row 2: day -3 is before .* psa is not at rest then; give a"),
     ("a,psa,ratio,3,,-2,2,", r"row 2: day -2 is before .* psa is not at rest"),
     ("a,crp,ratio,-1,,-3,2,", "crp is at rest before day 0, so that this ratio is 1"),
     ("a,temperature,value,-1,,,39,1", "unknown observable 'temperature'"),
     ("a,il6,value,-1,,,39,U/mL", "U is a unit of one assay"),
     ("a,crs_grade,grade,-1,,,0,", "day -1 is before the model starts, at the infusion on day 0; "
      "only levels may be"),
     ("a,il6,sometime,-1,2,,3,pg/mL", "only levels may be")],
)  # fmt: skip
def test_what_cannot_be_taken_to_day_0_is_refused_with_what_to_do(tmp_path, row, words):
    with pytest.raises(CrsSimError, match=re.compile(words, re.DOTALL)):
        check_against(load_patient(folder(tmp_path, row + "\n")), MODEL)


def test_a_dose_before_day_0_is_refused(tmp_path):
    about = folder(tmp_path, "a,il6,value,1,,,5,pg/mL\n")
    (about / "doses.csv").write_text("day,drug,amount,unit\n-5,dexamethasone,4,mg\n")
    with pytest.raises(CrsSimError, match=r"day -5 is before the model.*leave out what else"):
        load_patient(about)


def test_rows_left_from_a_template_are_found_where_dates_have_one_time_zone(tmp_path):
    """The check reads the tables again: with the same zone."""
    home = folder(tmp_path, "a,crp,value,2024-03-12 08:30,,,20,mg/L\n", ZONED)
    (home / "doses.csv").write_text("day,drug,amount,unit\n2024-03-11 08:30,cart,1e6,cells/kg\n")
    assert template_rows(home) == ()


@pytest.mark.parametrize("name", ["CRP", "FERRITIN", "PSA", "crp"])
def test_a_state_that_is_what_is_measured_is_read_by_the_measured_name(name, tmp_path):
    """So that the noise of its assay applies."""
    home = folder(tmp_path, f"a,{name},value,3,,,20,{'mg/L' if name in 'CRPcrp' else 'ng/mL'}\n")
    checked = check_against(load_patient(home), MODEL)
    assert checked.observations["a"].observable == name.lower()
