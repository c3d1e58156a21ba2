"""A patient's folder: read strictly, checked against a model, and the published case in full."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crs_sim.dosing.doses import Dose, Schedule, expand
from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import CrsSimError, FileError, InputError, StorageError, UnknownNameError
from crs_sim.model.model import Drug, Model, Parameter, Quantity, State
from crs_sim.patients.patient import Observations, Patient, load_patient
from crs_sim.patients.patient_checks import check_against, new_patient
from crs_sim.patients.patient_files import KINDS
from crs_sim.store.files import root

DOSES = "day,drug,amount,unit,hours,every,doses,note\n"
OBSERVATIONS = "id,observable,kind,day,until,reference,value,unit,sd,note\n"
LEVELS = {
    "vcn": "copies/ug", "ifng": "pg/mL", "il6": "pg/mL", "cxcl10": "pg/mL", "sil2r": "pg/mL",
    "ferritin": "ng/mL", "psa": "ng/mL", "crp": "mg/L", "shock": "1",
}  # fmt: skip
DRUGS = (
    "rimiducid", "tocilizumab", "emapalumab", "siltuximab", "dexamethasone", "methylprednisolone",
    "anakinra", "ruxolitinib",
)  # fmt: skip
WHY = "assumption: test"
MODEL = Model(
    "small",
    states=(
        State("A", "0", "-A", "mg", "drug", WHY),
        State("B", "0", "-B", "cells/kg", "cells", WHY),
    ),
    parameters=(
        Parameter("weight", 80.0, "kg", "body weight", WHY),
        Parameter("k_il6", 1.0, "1/day", "rate", WHY),
    ),
    quantities=tuple(Quantity(name, "A", unit, name, WHY) for name, unit in LEVELS.items()),
    drugs=(
        *(Drug(name, "A", "mg", molar_mass=500.0, level="ferritin") for name in DRUGS),
        Drug("cart", "B", "cells/kg"),
    ),
)


def folder(at: Path, doses: str = "", observations: str = "", about: str = "") -> Path:
    """A patient folder with these rows under the usual headers."""
    treated = "" if doses else "untreated = true\n"
    (at / "patient.toml").write_text('id = "p"\n' + treated + about, encoding="utf-8")
    if doses:
        (at / "doses.csv").write_text(DOSES + doses, encoding="utf-8")
    if observations:
        (at / "observations.csv").write_text(OBSERVATIONS + observations, encoding="utf-8")
    return at


# --- reading --------------------------------------------------------------------------------------


def test_a_patient_needs_no_doses_and_no_observations(tmp_path: Path) -> None:
    patient = load_patient(folder(tmp_path))
    assert (patient.id, patient.model, patient.infusion) == ("p", "crs", None)
    assert len(patient.scenario.doses) == 0 and len(patient.observations) == 0
    assert patient.path == str(tmp_path)


def test_the_folder_or_its_toml_file_will_do(tmp_path: Path) -> None:
    assert load_patient(folder(tmp_path) / "patient.toml") == load_patient(tmp_path)


def test_doses_are_read_and_repeated(tmp_path: Path) -> None:
    patient = load_patient(
        folder(tmp_path, "1,tocilizumab,8,mg/kg,1.5,,,a\n2,dexamethasone,10,mg,,6,3,\n")
    )
    assert patient.scenario.doses == Schedule(
        (
            Dose(1, "tocilizumab", 8, "mg/kg", 1.5),
            Dose(2, "dexamethasone", 10, "mg"),
            Dose(2.25, "dexamethasone", 10, "mg"),
            Dose(2.5, "dexamethasone", 10, "mg"),
        )
    )


def test_values_and_changes_are_read(tmp_path: Path) -> None:
    about = "[values]\nweight = 65\n[[changes]]\nparameter='k_il6'\nfirst=2\nlast=3\nfactor=0.5\n"
    about += "[[changes]]\nparameter='k_il6'\nfirst=4\nvalue=2\n"
    scenario = load_patient(folder(tmp_path, about=about)).scenario
    assert scenario.values == {"weight": 65.0}
    assert scenario.changes == (
        Change("k_il6", 2, 3, factor=0.5),
        Change("k_il6", 4, math.inf, value=2),
    )


def test_every_kind_of_observation_is_read(tmp_path: Path) -> None:
    rows = "".join(
        f"o_{kind},{'crs_grade' if kind == 'grade' else 'ifng'},{kind},3,"
        f"{'4' if kind in ('peak', 'sometime') else ''},{'1' if 'ratio' in kind else ''},2,"
        f"{'' if 'ratio' in kind or kind == 'grade' else 'pg/mL'},,\n"
        for kind in KINDS
    )
    found = load_patient(folder(tmp_path, observations=rows)).observations
    assert [o.kind for o in found] == list(KINDS)
    assert (found["o_peak"].day, found["o_peak"].until) == (3, 4)
    assert (found["o_value"].until, found["o_ratio"].reference) == (3, 1)
    assert math.isnan(found["o_value"].reference) and math.isnan(found["o_value"].sd)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("value", ">2900", ("above", 2900.0)), ("above", "> 2900", ("above", 2900.0)),
        ("value", ">=2900", ("above", 2900.0)), ("value", "\u22652900", ("above", 2900.0)),
        ("", "<4.2", ("below", 4.2)), ("below", "<= 4.2e0", ("below", 4.2)),
        ("ratio", "<0.1", ("ratio_below", 0.1)), ("ratio_above", ">2", ("ratio_above", 2.0)),
    ],
)  # fmt: skip
def test_a_sign_before_the_value_is_a_limit_of_the_assay(tmp_path, kind, value, read) -> None:
    ratio = read[0].startswith("ratio")
    rest = f"1,{value},,," if ratio else f",{value},pg/mL,,"
    patient = load_patient(folder(tmp_path, observations=f"a,ifng,{kind},2,,{rest}\n"))
    (found,) = check_against(patient, MODEL).observations
    assert (found.kind, found.value) == read


@pytest.mark.parametrize("infusion", ['"2024-03-30T22:00+01:00"', "2024-03-30T21:00:00Z"])
def test_dates_become_days_exactly(tmp_path: Path, infusion: str) -> None:
    doses = "2024-03-30T22:00+01:00,cart,1,cells/kg,,,,\n"
    doses += "2024-03-31T23:00+02:00,rimiducid,1,mg,,,,the clocks changed in between\n"
    doses += "2024-04-01T05:20Z,rimiducid,1,mg,,,,\n"
    seen = "crp,crp,peak,2024-03-31T22:00+01:00,2024-04-01T22:00+01:00,,5,mg/L,,\n"
    about = f"infusion = {infusion}\n[[changes]]\nparameter='k_il6'\nfactor=2\n"
    about += "first=2024-03-31T09:00:00Z\n"
    patient = load_patient(folder(tmp_path, doses, seen, about))
    assert [d.day for d in patient.scenario.doses] == [0.0, 1.0, (32 + 1 / 3) / 24]
    assert (patient.observations["crp"].day, patient.observations["crp"].until) == (1.0, 2.0)
    assert patient.scenario.changes[0].first == 0.5
    assert patient.infusion is not None and patient.infusion.utcoffset() is not None


def test_a_date_is_the_nearest_float_to_its_day(tmp_path: Path) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=7 * k) for k in range(1, 400)]
    doses = "".join(f"{t.isoformat()},rimiducid,1,mg,,,,\n" for t in times)
    patient = load_patient(folder(tmp_path, doses, about="infusion = 2024-01-01T00:00:00Z\n"))
    assert [d.day for d in patient.scenario.doses] == [7 * k / 1440 for k in range(1, 400)]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("column day: day -1 is before the model starts", "-1,cart,1,mg,,,,"),
        ("column day: is empty or missing", ",cart,1,mg,,,,"),
        ("column day: 'D3' is neither a number of days", "D3,cart,1,mg,,,,"),
        ("column day: is a date-time, but patient.toml (or the sheet patient) has no",
         "2024-03-11T08:30Z,cart,1,mg,,,,"),
        ("column day: '2024-03-11T08:30' has no time zone", "2024-03-11T08:30,cart,1,mg,,,,"),
        ("column day: day 45362 is a century away", "45362,cart,1,mg,,,,"),
        ("column drug: is empty or missing", "1,,1,mg,,,,"),
        ("column amount: -5 is negative", "1,cart,-5,mg,,,,"),
        ("column amount: is empty or missing", "1,cart,,mg,,,,"),
        ("column amount: 'inf' is not finite", "1,cart,inf,mg,,,,"),
        ("column amount: 'nan' is not finite", "1,cart,nan,mg,,,,"),
        ("column amount: '8mg' is not a number", "1,cart,8mg,mg,,,,"),
        ("column unit: is empty or missing", "1,cart,8,,,,,"),
        ("column hours: -1 is negative", "1,cart,8,mg,-1,,,"),
        ("column every: is empty, but 'doses' is given", "1,cart,8,mg,,,4,"),
        ("column doses: is empty, but 'every' is given", "1,cart,8,mg,,6,,"),
        ("column doses: 0 is not between 1 and", "1,cart,8,mg,,6,0,"),
        ("column doses: 1000000 is not between 1 and", "1,cart,8,mg,,6,1e6,"),
        ("column doses: '2.5' is not a whole number", "1,cart,8,mg,,6,2.5,"),
        ("column every: must be above 0, not 0", "1,cart,8,mg,,0,3,"),
        ("row 3: repeats row 2; delete one", "0,cart,1e6,cells/kg,,,,other note"),
    ],
)  # fmt: skip
def test_bad_doses(tmp_path: Path, words: str, row: str) -> None:
    with pytest.raises(CrsSimError, match=f"doses.csv, row 3.*{re.escape(words)[-30:]}") as caught:
        load_patient(folder(tmp_path, f"0,cart,1000000,cells/kg,,,,first\n{row}\n"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("column id: is empty or missing", ",ifng,value,1,,,5,pg/mL,,"),
        ("column id: '2nd sample' is not a valid name; use letters, digits and _",
         "2nd sample,ifng,value,1,,,5,pg/mL,,"),
        ("column id: 'first' is also the id of row 2", "first,ifng,value,2,,,6,pg/mL,,"),
        ("row 3: repeats row 2", "again,ifng,value,1,,,5.0,pg/mL,,"),
        ("column kind: unknown kind 'paek': did you mean 'peak'", "a,ifng,paek,1,2,,5,pg/mL,,"),
        ("column day: day -0.5 is before the model starts", "a,crs_grade,grade,-0.5,,,0,,,"),
        ("column until: the window ends (day 1) before it starts (day 2)",
         "a,ifng,peak,2,1,,5,pg/mL,,"),
        ("column until: is empty; a sometime needs the last day", "a,ifng,sometime,2,,,5,pg/mL,,"),
        ("column until: only for peak or sometime", "a,ifng,value,2,3,,5,pg/mL,,"),
        ("column reference: is empty; a ratio_above needs", "a,ifng,ratio_above,2,,,1,,,"),
        ("column reference: only for a ratio", "a,ifng,value,2,,1,1,pg/mL,,"),
        ("column reference: day 3 is not before day 2", "a,ifng,ratio,2,,3,1,,,"),
        ("column day: day -1 is before the model starts", "a,ifng,peak,-1,3,,5,pg/mL,,"),
        ("column value: is empty or missing", "a,ifng,value,2,,,,pg/mL,,"),
        ("column value: is empty or missing; fill it in, or delete the row",
         "a,ifng,value,2,,,,pg/mL,,"),
        ("column value: '<LOD' is not a number; write the limit as a number: <4.2",
         "a,ifng,value,2,,,<LOD,pg/mL,,"),
        ("column kind: is below, but the value is above a limit, > 4000; write above, or the value",
         "a,ifng,below,2,,,> 4000,pg/mL,,"),
        ("column kind: is above, but the value is below a limit, <4.2; write below, or the value",
         "a,ifng,above,2,,,<4.2,pg/mL,,"),
        ("column kind: is peak, but the value is above a limit, >9", "a,ifng,peak,2,3,,>9,pg/mL,,"),
        ("column kind: is ratio_above, but the value is below a limit, <0.2; write ratio_below",
         "a,ifng,ratio_above,2,,1,<0.2,,,"),
        ("column kind: is grade, but", "a,crs_grade,grade,2,,,>2,,,"),
        ("column value: -2 has no logarithm", "a,ifng,value,2,,,<-2,pg/mL,,"),
        ("column sd: '<0.2' is not a number; write the number alone: < and > are for levels",
         "a,ifng,value,2,,,5,pg/mL,<0.2,"),
        ("column value: 'n.d.' is not a number; leave out what was not measured",
         "a,ifng,value,2,,,n.d.,pg/mL,,"),
        ("column sd: '20%' is not a number; write the number without %: a fraction as 0.2",
         "a,ifng,value,2,,,5,pg/mL,20%,"),
        ("column value: '21,033' is not a number; write a decimal point",
         'a,ifng,value,2,,,"21,033",pg/mL,,'),
        ("column value: 0 has no logarithm; it must be above 0", "a,ifng,value,2,,,0,pg/mL,,"),
        ("column value: -3 has no logarithm", "a,ifng,ratio,2,,1,-3,,,"),
        ("column unit: is empty; fill in the unit", "a,ifng,value,2,,,3,,,"),
        ("column unit: a ratio has no unit", "a,ifng,ratio,2,,1,3,pg/mL,,"),
        ("column sd: must be above 0, not 0", "a,ifng,value,2,,,3,pg/mL,0,"),
        ("column value: 5 is not a grade", "a,crs_grade,grade,2,,,5,,,"),
        ("column value: -1 is not a grade", "a,crs_grade,grade,2,,,-1,,,"),
        ("column value: 2.5 is not a grade", "a,crs_grade,grade,2,,,2.5,,,"),
        ("column observable: kind grade needs crs_grade", "a,shock,grade,2,,,2,,,"),
        ("column kind: crs_grade is observed as kind 'grade'", "a,crs_grade,value,2,,,2,1,,"),
        ("column unit: a grade has no unit", "a,crs_grade,grade,2,,,2,mg,,"),
        ("column sd: a grade has no sd", "a,crs_grade,grade,2,,,2,,0.3,"),
    ],
)  # fmt: skip
def test_bad_observations(tmp_path: Path, words: str, row: str) -> None:
    with pytest.raises(CrsSimError, match=r"observations.csv, row 3") as caught:
        load_patient(folder(tmp_path, observations=f"first,ifng,value,1,,,5,pg/mL,,\n{row}\n"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ("key modle: unknown key 'modle': did you mean 'model'", "modle = 'crs'\n"),
        ("key infusion: '2024-03-11 08:30:00' has no time zone",
         "infusion = 2024-03-11 08:30:00\n"),
        ("key infusion: '2024-03-11' has no time zone", "infusion = 2024-03-11\n"),
        ("key infusion: 'yesterday' is neither", "infusion = 'yesterday'\n"),
        ("key infusion: 5 is not a date-time", "infusion = 5\n"),
        ("key values.weight: must be a number", "[values]\nweight = '70'\n"),
        ("key values.weight: a body weight must be above 0 kg", "[values]\nweight = 0\n"),
        ("key values.weight: inf is not finite", "[values]\nweight = inf\n"),
        ("changes 1, key paramter: unknown key 'paramter': did you mean 'parameter'",
         "[[changes]]\nparamter = 'k'\nfactor = 1\n"),
        ("changes 1: change of k: give either factor or value", "[[changes]]\nparameter = 'k'\n"),
        ("changes 1: change of k: it ends (day 2) before",
         "[[changes]]\nparameter='k'\nfactor=1\nfirst=3\nlast=2\n"),
        ("changes 2: k = 2 from day 2 to inf overlaps with k x 0.5 from day 1 to 3; end one before",
         "[[changes]]\nparameter='k'\nfactor=0.5\nfirst=1\nlast=3\n"
         "[[changes]]\nparameter='k'\nvalue=2\nfirst=2\n"),
        ("changes 1: day -1 is before", "[[changes]]\nparameter='k'\nfactor=1\nfirst=-1\n"),
        ("changes 1: the day is not a number",
         "[[changes]]\nparameter='k'\nfactor=1\nfirst=nan\n"),
        ("patient.toml: is not TOML", "values =\n"),
        ("column 13). Write a number bare, with a decimal point and without its unit",
         "[values]\nweight = 70 kg\n"),
    ],
)  # fmt: skip
def test_bad_patient_files(tmp_path: Path, words: str, about: str) -> None:
    with pytest.raises(CrsSimError, match=r"patient.toml") as caught:
        load_patient(folder(tmp_path, about=about))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["doses.csv", "observations.csv"])
@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("is empty", b""),
        ("has a header but no rows", b"HEADER"),
        ("is not UTF-8 (byte 0xb5)", b"HEADER\xb5"),
        ("columns are separated by semicolons", b"day;drug\n1;cart\n"),
        ("unknown column 'notes': did you mean 'note'", b"day,notes\n"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, words: str, content: bytes) -> None:
    header = DOSES if name == "doses.csv" else OBSERVATIONS
    folder(tmp_path, "0,cart,1,cells,,,,\n")
    (tmp_path / name).write_bytes(content.replace(b"HEADER", header.encode()))
    with pytest.raises(CrsSimError, match=name) as caught:
        load_patient(tmp_path)
    assert words in str(caught.value)


def test_an_empty_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "patient.toml").write_text('id = ""\n', encoding="utf-8")
    with pytest.raises(FileError, match=r"patient.toml, key id: is empty"):
        load_patient(tmp_path)


TREATED = "0,cart,1,cells,,,,\n"


@pytest.mark.parametrize("about", ["untreated = true\n", ""])
@pytest.mark.parametrize("name", ["dose.csv", "DOSES.CSV.txt", "doses.csv.txt", "doses.txt",
                                  "doses.xlsx", "Doses.tsv", "doses (1).csv", "old_doses.ods",
                                  "doses.csv.gz", "doses"])  # fmt: skip
def test_misnamed_doses_are_not_passed_over(tmp_path: Path, name: str, about: str) -> None:
    (tmp_path / "patient.toml").write_text(f'id = "p"\n{about}', encoding="utf-8")
    (tmp_path / name).write_text("x", encoding="utf-8")
    words = f"doses.csv: does not exist, but '{name}' does; save it as doses.csv, or rename"
    with pytest.raises(FileError, match=re.escape(words)):
        load_patient(tmp_path)


@pytest.mark.parametrize("name", ["observation.csv", "observations.txt", "Observations.xlsx",
                                  "observations_day3.csv", "observations.parquet"])  # fmt: skip
def test_misnamed_observations_are_not_passed_over(tmp_path: Path, name: str) -> None:
    (folder(tmp_path, TREATED) / name).write_text("x", encoding="utf-8")
    with pytest.raises(FileError, match=re.escape(f"does not exist, but '{name}' does; save it")):
        load_patient(tmp_path)


def test_other_files_are_nobodys_tables(tmp_path: Path) -> None:
    folder(tmp_path, TREATED, "a,ferritin,value,3,,,900,ng/mL,,\n")
    for name in ("source.md", "doses_of_2023.csv", ".doses.csv.swp", "doses.png", "problem.toml"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    patient = load_patient(tmp_path)
    assert (len(patient.scenario.doses), len(patient.observations)) == (1, 1)
    (tmp_path / "observations.csv").unlink()
    assert len(load_patient(tmp_path).observations) == 0


@pytest.mark.parametrize("name", ["doses.csv", "observations.csv"])
@pytest.mark.parametrize("about", ["untreated = true\n", ""])
def test_a_link_to_nothing_is_named(tmp_path: Path, name: str, about: str) -> None:
    if name == "observations.csv":
        folder(tmp_path, "" if about else TREATED)
    else:
        (tmp_path / "patient.toml").write_text(f'id = "p"\n{about}', encoding="utf-8")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(FileError, match=f"{name}: is a link to nothing"):
        load_patient(tmp_path)


def test_no_doses_has_to_be_stated(tmp_path: Path) -> None:
    toml = tmp_path / "patient.toml"
    for stated in ("", "untreated = false\n"):
        toml.write_text(f'id = "p"\n{stated}', encoding="utf-8")
        with pytest.raises(FileError, match=r"doses.csv: does not exist; .* untreated = true in "):
            load_patient(tmp_path)
    toml.write_text('id = "p"\nuntreated = true\n', encoding="utf-8")
    assert len(load_patient(tmp_path).scenario.doses) == 0
    (tmp_path / "doses.csv").write_text(DOSES + TREATED, encoding="utf-8")
    with pytest.raises(FileError, match=r"key untreated: is true, but there is .*doses.csv"):
        load_patient(tmp_path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no patient.toml"):
        load_patient(tmp_path)
    with pytest.raises(UnknownNameError, match=r"did you mean 'ruemmele2025'"):
        load_patient("ruemele2025")
    folder(tmp_path, "1,cart,1,mg,,,,\n")
    with pytest.raises(InputError, match=r"is a file; give the folder"):
        load_patient(tmp_path / "doses.csv")


# --- against a model ------------------------------------------------------------------------------


def test_observations_are_put_into_the_models_units(tmp_path: Path) -> None:
    rows = "a,ifng,value,1,,,1.5,ng/mL,,\nb,ifng,ratio,2,,1,0.5,,,\nc,crs_grade,grade,1,,,2,,,\n"
    rows += "d,crp,value,1,,,9.7,mg/dL,0.2,n\n"
    patient = check_against(load_patient(folder(tmp_path, observations=rows)), MODEL)
    assert [(o.value, o.unit) for o in patient.observations] == [
        (1500.0, "pg/mL"), (0.5, ""), (2.0, ""), (97.0, "mg/L"),
    ]  # fmt: skip
    assert patient.observations["d"].sd == 0.2 and patient.observations["d"].note == "n"
    assert check_against(patient, MODEL) == patient


SIL2R = """
[[conversions]]
of = "sil2r"
unit = "U/mL"
equals = "12.5 pg/mL"
source = "data sheet of the assay"
"""


@pytest.mark.parametrize(("value", "unit"), [(2400, "U/mL"), (2.4, "kU/mL"), (2400, "kU/L"),
                                             (30, "ng/mL"), (30000, "ng/L")])  # fmt: skip
def test_a_stated_conversion_is_used(tmp_path: Path, value: float, unit: str) -> None:
    rows = f"a,sil2r,value,3,,,{value},{unit},,\nb,sil2r,ratio,4,,3,2,,,\n"
    patient = check_against(load_patient(folder(tmp_path, "", rows, SIL2R)), MODEL)
    assert patient.observations["a"].value == pytest.approx(30000.0)
    assert patient.observations["b"].value == 2.0


def test_a_conversion_of_a_dose(tmp_path: Path) -> None:
    stated = SIL2R.replace("sil2r", "anakinra").replace("U/mL", "IU").replace("pg/mL", "ug")
    patient = load_patient(folder(tmp_path, "1,anakinra,2,kIU,,,,\n", about=stated))
    assert expand(MODEL, patient.scenario.doses)[0].amount == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"sil2r"',
            '"sil2"',
            "conversions: unknown drug or observable 'sil2': did you mean 'sil2r'",
        ),
        ('source = "data sheet of the assay"', "", "key source: is empty or missing"),
        ("12.5 pg", "12,5 pg", "conversions 1, key equals: unit '12,5 pg/mL' is not understood"),
        ('"U/mL"', '"IU/mL"', "U is a unit of one assay: state what 1 U/mL equals"),
        (SIL2R, "", "state what 1 U/mL equals, as on its data sheet, under [[conversions]] in"),
    ],
)
def test_conversions_that_do_not_fit(tmp_path: Path, old: str, new: str, words: str) -> None:
    about = SIL2R.replace(old, new)
    with pytest.raises(CrsSimError, match=re.escape(words)):
        check_against(
            load_patient(folder(tmp_path, "", "a,sil2r,value,3,,,24,U/mL,,\n", about)), MODEL
        )


@pytest.mark.parametrize(
    ("about", "surface"),
    [("body_surface = 1.9\n", 1.9), ("height = 180\n[values]\nweight = 80\n", 2.0)],
)
def test_doses_per_body_surface(tmp_path: Path, about: str, surface: float) -> None:
    rows = "1,anakinra,100,mg/m2,,12,2,\n2,anakinra,0.1,g/m^2,,,,\n3,anakinra,100,mg,,,,\n"
    doses = check_against(load_patient(folder(tmp_path, rows, about=about)), MODEL).scenario.doses
    amounts = [given.amount for given in expand(MODEL, doses)]
    assert amounts == pytest.approx([*(100 * surface,) * 3, 100])


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("", "column unit: .*this needs a body surface: give body_surface in m2, or height in cm"),
        ("[values]\nweight = 70\n", "this needs a body surface"),
        ("height = 180\n", "key height: .*add weight"),
        ("height = 1.8\n", "key height: must be above 30, not 1.8"),
        ("body_surface = 19\n", "key body_surface"),
        ("height = 180\nbody_surface = 2\n[values]\nweight = 70\n", "key height: .*keep one"),
    ],
)
def test_a_body_surface_is_not_guessed(tmp_path: Path, about: str, words: str) -> None:
    with pytest.raises(CrsSimError, match=words):
        check_against(load_patient(folder(tmp_path, "1,anakinra,1,mg/m2,,,,\n", "", about)), MODEL)


def test_moles_are_masses_by_the_molar_mass_of_the_drug(tmp_path: Path) -> None:
    patient = load_patient(
        folder(tmp_path, "1,tocilizumab,4,umol,,,,\n", "a,ferritin,value,3,,,2,nM,,\n")
    )
    checked = check_against(patient, MODEL)
    assert checked.observations["a"].value == pytest.approx(1.0)  # 2 nM of 500 g/mol in ng/mL
    assert expand(MODEL, checked.scenario.doses)[0].amount == pytest.approx(2.0)
    other = load_patient(folder(tmp_path, "1,cart,1,cells/kg,,,,\n", "a,il6,value,3,,,2,nM,,\n"))
    with pytest.raises(CrsSimError, match=r"row 2, column unit: .*this needs a molar mass"):
        check_against(other, MODEL)


def test_a_models_own_unit_is_read_by_its_definition(tmp_path: Path) -> None:
    titre = Model(
        "m", (), (), (Quantity("t", "1", "titre", "", ""),), (("titre", "1e-12 gram / 1e-3 litre"),)
    )
    patient = load_patient(folder(tmp_path, observations="a,t,value,1,,,2,ng/mL,,\n"))
    assert check_against(patient, titre).observations["a"].value == pytest.approx(2000.0)


@pytest.mark.parametrize(
    ("words", "doses", "observations", "about"),
    [
        ("doses.csv, row 2, column drug: unknown drug 'tocilizumb': did you mean 'tocilizumab'?",
         "1,tocilizumb,1,mg,,,,\n", "", ""),
        ("doses.csv, row 3, column unit: 'mL' cannot be converted into 'mg'",
         "1,anakinra,1,mg,,,,\n1,anakinra,1,mL,,6,4,\n", "", ""),
        ("doses.csv, row 2, column unit: unit 'mgg' is not understood",
         "1,anakinra,1,mgg,,,,\n", "", ""),
        ("doses.csv, row 2, column unit: mg/kg needs a body weight; add weight",
         "1,anakinra,1,mg/kg,,,,\n", "", ""),
        ("doses.csv, row 2, column unit: cells needs a body weight",
         "1,cart,1,cells,,,,\n", "", ""),
        ("observations.csv, row 2, column observable: unknown observable 'ferritine': did you mean",
         "", "a,ferritine,value,1,,,1,ng/mL,,\n", ""),
        ("observations.csv, row 2, column unit: 'IU/mL' cannot be converted into 'ng/mL'",
         "", "a,ferritin,value,1,,,1,IU/mL,,\n", ""),
        ("observations.csv, row 2, column observable: unknown observable 'il_6': did you mean",
         "", "a,il_6,ratio,2,,1,1,,,\n", ""),
        ("patient.toml, key values.wieght: unknown parameter 'wieght': did you mean 'weight'?",
         "", "", "[values]\nwieght = 70\n"),
        ("patient.toml, changes 1, key parameter: unknown parameter 'k_il_6': did you mean",
         "", "", "[[changes]]\nparameter='k_il_6'\nfactor=1\n"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_named(
    tmp_path: Path, words: str, doses: str, observations: str, about: str
) -> None:
    patient = load_patient(folder(tmp_path, doses, observations, about))
    with pytest.raises(CrsSimError) as caught:
        check_against(patient, MODEL)
    assert str(caught.value).startswith(f"{tmp_path.name}/{words}")


def test_a_patient_made_in_python_is_checked_too() -> None:
    patient = Patient("p", "small", Scenario("s", Schedule((Dose(1, "anakinro", 1, "mg"),))))
    with pytest.raises(UnknownNameError, match=r"dose of anakinro on day 1: unknown drug"):
        check_against(patient, MODEL)


def test_a_patient_is_said_in_one_line(tmp_path: Path) -> None:
    patient = load_patient(folder(tmp_path, "1,anakinra,1,mg,,6,4,\n"))
    assert repr(patient) == "Patient('p': 4 doses of 1 drugs, 0 observations)"


# --- a new patient --------------------------------------------------------------------------------


def test_a_new_patient_loads_and_fits_the_model(tmp_path: Path) -> None:
    made = new_patient(tmp_path / "ward" / 'the "first"')
    assert sorted(p.name for p in made.iterdir()) == [
        "doses.csv",
        "observations.csv",
        "patient.toml",
    ]
    patient = check_against(load_patient(made), MODEL)
    assert patient.id == 'the "first"'
    assert patient.scenario.doses.drugs[0] == "cart" and len(patient.observations) == 4


def test_a_new_patients_files_explain_every_column(tmp_path: Path) -> None:
    made = new_patient(tmp_path / "p")
    for name, header in (("doses.csv", DOSES), ("observations.csv", OBSERVATIONS)):
        text = (made / name).read_text(encoding="utf-8")
        for column in header.strip().split(","):
            assert re.search(rf"^#   {column} +\w", text, re.MULTILINE), column
        assert "EXAMPLE" in text
    observations = (made / "observations.csv").read_text(encoding="utf-8")
    assert all(kind in observations for kind in KINDS)


def test_a_new_patient_survives_a_spreadsheet(tmp_path: Path) -> None:
    made = new_patient(tmp_path / "p")
    before = load_patient(made)
    path = made / "doses.csv"
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    width = max(map(len, rows))
    saved = "\r\n".join(",".join(row + [""] * (width - len(row))) for row in rows)
    path.write_bytes(saved.encode("utf-8-sig"))
    assert load_patient(made).scenario == before.scenario


def test_a_new_patient_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "doses.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match=r"already has a doses.csv; nothing was written"):
        new_patient(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["doses.csv"]


def test_a_new_patient_is_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full_disk(path: Path, target: Path) -> Path:
        if target.name == "observations.csv":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StorageError, match=r"cannot be written: No space left on device"):
        new_patient(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_new_patient_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match=r"cannot be written"):
        new_patient(tmp_path / "p")
    assert (tmp_path / "p").read_text(encoding="utf-8") == "mine"


# --- the published case ---------------------------------------------------------------------------

CASE = load_patient("ruemmele2025")


def test_the_case_has_every_dose_of_the_report() -> None:
    assert Counter(d.drug for d in CASE.scenario.doses) == {
        "cart": 1, "tocilizumab": 5, "dexamethasone": 18, "rimiducid": 2, "siltuximab": 1,
        "methylprednisolone": 24, "anakinra": 48, "ruxolitinib": 24, "emapalumab": 2,
    }  # fmt: skip


def test_the_cases_milligrams_add_up_at_70_kg() -> None:
    given: Counter[str] = Counter()
    for dose in expand(MODEL.with_values(**CASE.scenario.values), CASE.scenario.doses):
        given[dose.drug] += dose.amount  # type: ignore[assignment]
    assert dict(given) == pytest.approx(
        {
            "cart": 5e6, "tocilizumab": 5 * 560, "dexamethasone": 180, "rimiducid": 56,
            "siltuximab": 770, "methylprednisolone": 24_000, "anakinra": 9600, "ruxolitinib": 240,
            "emapalumab": 140,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drug", "days"),
    [
        ("cart", [0]),
        ("tocilizumab", [2.5, 3, 3.4, 13.5, 19.5]),
        ("dexamethasone", [3, 3.5] + [s + k / 4 for s in (13, 19) for k in range(8)]),
        ("rimiducid", [11, 18]),
        ("siltuximab", [21]),
        ("methylprednisolone", [21 + k / 2 for k in range(24)]),
        ("anakinra", [21 + k / 4 for k in range(48)]),
        ("ruxolitinib", [21 + k / 2 for k in range(24)]),
        ("emapalumab", [24, 27]),
    ],
)
def test_the_case_is_dosed_on_the_days_of_the_report(drug: str, days: list[float]) -> None:
    assert [d.day for d in CASE.scenario.doses.only(drug)] == days


def test_the_case_is_graded_on_27_days() -> None:
    grades = {o.day: int(o.value) for o in CASE.observations if o.kind == "grade"}
    expected = {1: 1, 2: 2, 3: 2, 13: 3, 14: 3, 16: 0, 17: 0, 19: 3, 25: 3, 26: 3}
    expected |= dict.fromkeys(range(4, 11), 0) | dict.fromkeys(range(21, 25), 4)
    expected |= dict.fromkeys(range(27, 33), 0)
    assert grades == expected and len(grades) == 27


def test_the_cases_numbers_are_the_reports() -> None:
    levels = {o.id: (o.kind, o.value) for o in CASE.observations if o.kind != "grade"}
    assert levels == {
        "psa_d0": ("value", 22.5), "ifng_d0": ("below", 4.2), "crp_peak": ("peak", 96.77),
        "ferritin_d3": ("value", 487), "vcn_peak1": ("peak", 21033), "vcn_before2": ("below", 5299),
        "vcn_peak2": ("peak", 5299), "psa_d21": ("sometime", 0.29), "ferritin_d21": ("above", 4000),
        "ferritin_peak": ("peak", 9580), "ifng_peak": ("sometime", 1786.3),
        "sil2r": ("sometime", 93326), "shock_12h": ("ratio_below", 0.5),
        "ferritin_d27": ("value", 4460), "ifng_d27": ("value", 6.0), "cxcl10_fall": ("ratio", 0.5),
        "il6_not_lower": ("ratio_above", 1.0), "vcn_persistent_d27": ("above", 300),
        "vcn_persistent_d30": ("above", 300), "psa_d30": ("value", 0.29),
    }  # fmt: skip


def test_the_case_fits_a_model_with_its_names() -> None:
    checked = check_against(CASE, MODEL)
    assert checked.observations["ifng_peak"].value == 1786.3
    assert {o.observable for o in checked.observations} == {*LEVELS, "crs_grade"}


def test_where_each_value_of_the_case_stands_is_written_down() -> None:
    source = (root() / "fits" / "data" / "ruemmele2025" / "source.md").read_text(encoding="utf-8")
    assert [o.id for o in CASE.observations if f"`{o.id}`" not in source] == []
    assert [drug for drug in CASE.scenario.doses.drugs if drug not in source] == []
    notes = " ".join(o.note for o in CASE.observations)
    notes += (root() / "fits/data/ruemmele2025/doses.csv").read_text(encoding="utf-8")
    cited = set(re.findall(r"\b[AR]\d+\b", notes))
    assert cited and [c for c in sorted(cited) if f"- **{c} " not in source] == []


def test_every_observation_of_the_case_says_where_it_stands() -> None:
    assert [o.id for o in CASE.observations if not re.search(r"\bP\d", o.note)] == []


def test_observations_are_a_table_and_can_be_left_out() -> None:
    table = CASE.observations.table()
    assert list(table.columns) == OBSERVATIONS.strip().split(",")
    assert len(table) == len(CASE.observations) == 47
    fewer = CASE.observations.without("ifng_d0", "crp_peak")
    assert len(fewer) == 45 and "ifng_d0" not in fewer.ids
    with pytest.raises(UnknownNameError, match=r"did you mean 'ifng_peak'"):
        CASE.observations.without("ifng_paek")
    assert list(Observations().table().columns) == list(table.columns)
