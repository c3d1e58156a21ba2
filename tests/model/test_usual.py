"""What people call drugs and levels, and the most that is usual of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from crs_sim.cli.command_line import cli
from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import CrsSimError, Notice, Question
from crs_sim.model.model_file import load_model
from crs_sim.model.usual import read_usual
from crs_sim.patients.patient import Observation, Observations, Patient, load_patient
from crs_sim.patients.patient_checks import check_against
from crs_sim.scenarios.scenario_file import scenario_of
from crs_sim.simulation.endpoints import endpoint

MODEL = load_model("crs")
NAMES = [(e.kind, name, e.of) for e in MODEL.usual.entries for name in e.names]


def patient(*doses: Dose, seen: tuple[Observation, ...] = (), **values: float) -> Patient:
    scenario = Scenario("x", Schedule(doses), (), {"weight": 70.0, **values})
    return Patient("x", "crs", scenario, Observations(seen))


def reading(observable: str, value: float, unit: str, kind: str = "value") -> Observation:
    return Observation("o1", observable, kind, 3.0, 3.0, float("nan"), value, unit)


@pytest.mark.parametrize(("kind", "name", "meant"), NAMES)
@pytest.mark.parametrize("change", [str, str.upper, str.lower, lambda t: t.replace("-", " ")])
def test_every_name_is_understood_however_it_is_written(kind, name, meant, change):
    assert MODEL.usual.meant(kind, change(name)) == meant


@pytest.mark.parametrize(
    ("brand", "drug"),
    [("Actemra", "tocilizumab"), ("RoActemra", "tocilizumab"), ("SYLVANT", "siltuximab"),
     ("Gamifant", "emapalumab"), ("Kineret", "anakinra"), ("Jakafi", "ruxolitinib"),
     ("Jakavi", "ruxolitinib"), ("Decadron", "dexamethasone"), ("Solu-Medrol",
     "methylprednisolone"), ("Dexamethasone", "dexamethasone"), ("TOCILIZUMAB", "tocilizumab")],
)  # fmt: skip
def test_a_brand_is_given_as_the_drug_and_a_note_says_so(brand, drug):
    with pytest.warns(Notice, match=f"'{brand}' is read as {drug}"):
        checked = check_against(patient(Dose(1, brand, 10, "mg")), MODEL)
    assert checked.scenario.doses.drugs == (drug,)


@pytest.mark.parametrize(
    ("written", "level", "unit"),
    [("IL-6", "il6", "pg/mL"), ("IFN-g", "ifng", "pg/mL"), ("IFN-γ", "ifng", "pg/mL"),
     ("IFNg", "ifng", "pg/mL"), ("interferon gamma", "ifng", "pg/mL"), ("Ferritin", "ferritin",
     "ng/mL"), ("sIL-2R", "sil2r", "pg/mL"), ("IP-10", "cxcl10", "pg/mL"), ("Crp", "crp", "mg/L")],
)  # fmt: skip
def test_an_analyte_is_understood_and_a_note_says_so(written, level, unit):
    with pytest.warns(Notice, match=f"'{written}' is read as {level}"):
        checked = check_against(patient(seen=(reading(written, 9, unit),)), MODEL)
    assert checked.observations.observations[0].observable == level


def test_a_state_that_is_not_the_level_of_that_name_is_asked_about():
    with pytest.warns(Question, match="IL6 is the state 'IL-6, free'; did you mean il6"):
        check_against(patient(seen=(reading("IL6", 9, "pg/mL"),)), MODEL)


@pytest.mark.filterwarnings("error::crs_sim.errors.Notice")
def test_the_published_case_is_usual():
    check_against(load_patient("ruemmele2025"), MODEL)


@pytest.mark.parametrize("kind", ["keep", "remove", "add", "hold", "trigger"])
def test_scenarios_understand_the_same_names(kind):
    dose = {"drug": "Actemra", "amount": 8, "unit": "mg/kg"}
    when = "crs_grade >= 2"
    table = {
        "keep": ["Actemra"], "remove": [{"drug": "ACTEMRA"}], "add": [{**dose, "day": 3}],
        "hold": [{"drug": "Actemra", "when": when}],
        "trigger": [{"name": "t", "when": when, "give": dose, "at_most": 1, "hours_apart": 8}],
    }[kind]  # fmt: skip
    base = Scenario("x", Schedule((Dose(1, "tocilizumab", 8, "mg/kg"),)))
    with pytest.warns(Notice, match="is read as tocilizumab"):
        made = scenario_of({"name": "s", kind: table}, base, MODEL, Path("s.toml"))
    named = {
        *made.doses.drugs,
        *(h.drug for h in made.holds),
        *(t.dose.drug for t in made.triggers),
    }
    assert named <= {"tocilizumab"}


@pytest.mark.parametrize("entry", MODEL.usual.entries, ids=lambda e: f"{e.kind} {e.of}")
def test_every_bound_is_asked_about_above_and_not_below(entry, recwarn):
    def given(value: float) -> Patient:
        if entry.kind == "drug":
            return patient(Dose(1, entry.of, value, entry.unit))
        if entry.kind == "level":
            return patient(seen=(reading(entry.of, value, entry.unit),))
        return patient(**{entry.of: value})

    assert entry.source
    check_against(given(entry.most), MODEL)
    assert not recwarn.list
    with pytest.warns(Question, match="did you mean another (value|amount) or unit"):
        check_against(given(entry.most * 1.01), MODEL)


@pytest.mark.parametrize(
    ("who", "words"),
    [(patient(age=670), "age of 670 year is above 122 year"),
     (patient(weight=900), "weight of 900 kg is above 350 kg"),
     (patient(weight=0.07), "weight of 0.07 kg is below 2 kg"),
     (patient(seen=(reading("il6", 5, "g/mL"),)), r"il6 of 5e\+12 pg/mL is above"),
     (patient(seen=(reading("il6", 5, "g/mL", "below"),)), r"il6 of 5e\+12 pg/mL is above"),
     (patient(Dose(1, "tocilizumab", 800, "mg/kg")), "800 mg/kg of tocilizumab is above 12 mg/kg"),
     (patient(Dose(1, "tocilizumab", 8000, "mg")), "8000 mg of tocilizumab is above 12 mg/kg")],
)  # fmt: skip
def test_what_is_hardly_meant_is_asked_and_nothing_is_changed(who, words):
    with pytest.warns(Question, match=words):
        checked = check_against(who, MODEL)
    assert checked.scenario == who.scenario


@pytest.mark.parametrize("key", ["add", "trigger"])
def test_an_added_dose_without_a_unit_is_asked_about(key):
    dose = {"drug": "rimiducid", "amount": 0.4}
    table = {"add": [{**dose, "day": 3}],
             "trigger": [{"name": "t", "when": "il6 > 9", "give": dose, "at_most": 1,
                          "hours_apart": 8}]}[key]  # fmt: skip
    with pytest.warns(Question, match="0.4 of rimiducid is read as 0.4 ug; is it meant"):
        scenario_of({"name": "s", key: table}, Scenario("x"), MODEL, Path("s.toml"))


def test_questions_go_first_and_the_run_continues(tmp_path):
    (tmp_path / "patient.toml").write_text('id = "x"\n[values]\nweight = 900\n')
    (tmp_path / "doses.csv").write_text("day,drug,amount,unit\n0,CAR-T,1e6,cells/kg\n" * 1)
    result = CliRunner().invoke(cli, ["simulate", str(tmp_path), "--until", "1"])
    first, second = result.stderr.splitlines()
    assert first == "Note: 'CAR-T' is read as cart"
    assert second.startswith("Question: x, weight: weight of 900 kg is above 350 kg")
    assert (result.exit_code, "worst CRS grade" in result.stdout) == (0, True)
    asked = CliRunner().invoke(
        cli, ["simulate", "ruemmele2025", "--until", "1", "--set", "age=670"]
    )
    assert "Question: ruemmele2025, age: age of 670 year" in asked.stderr


BAD = {
    '[drug.x]\nnames = "a"': "names = 'a' is not a list of names",
    "[drug.x]\nmost = 3": "has a bound; state its unit and its source",
    "[drug.x]\nmosst = 3": "unknown key 'mosst': did you mean 'most'",
    "[drugs.x]": "unknown table 'drugs'",
    '[drug.x]\nnames = ["A"]\n[drug.y]\nnames = ["a"]': "'a' is x and y; keep one",
    "[drug.x": "is not TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_refused(text):
    with pytest.raises(CrsSimError, match=BAD[text]):
        read_usual(text)


def test_an_entry_of_nothing_or_in_another_unit_is_refused(tmp_path):
    from tiny_case import write_case

    model = write_case(tmp_path) / "model"
    for text, words in {
        "[drug.pil]": "unknown drug 'pil'",
        '[drug.pill]\nmost = 1\nunit = "mL"\nsource = "s"': "cannot be converted",
        '[level.amount]\nmost = 1\nunit = "mL"\nsource = "s"': "cannot be converted",
    }.items():
        (model / "usual.toml").write_text(text)
        with pytest.raises(CrsSimError, match=words):
            load_model(model)
    (model / "usual.toml").write_text('[drug.pill]\nnames = ["Tablet"]')
    assert load_model(model).drug("tablet").name == "pill"
    assert replace(load_model(model), usual=MODEL.usual).hash == load_model(model).hash


def test_data_sets_and_scenarios_ask_too(tmp_path):
    table = {"name": "s", "values": {"weight": 900.0}}
    with pytest.warns(Question, match="scenario 's', weight: weight of 900 kg is above 350 kg"):
        scenario_of(table, Scenario("x"), MODEL, Path("s.toml"))
    (tmp_path / "s.csv").write_text(
        "ID,TIME,AMT,DV,CMT,weight\n1,0,1e6,.,cart,700\n1,24,.,5,il6,700\n"
    )
    (tmp_path / "map.toml").write_text('drugs = { cart = "cart" }\n')
    words = ["simulate", "--data", "s.csv", "--model", "crs", "--columns", "map.toml"]
    result = CliRunner().invoke(cli, [*words[:2], str(tmp_path / "s.csv"), *words[3:6],
                                      str(tmp_path / "map.toml")])  # fmt: skip
    assert "Question: 1, weight: weight of 700 kg is above 350 kg" in result.stderr, result.output


@pytest.mark.parametrize("name", ["peak_IL-6", "auc_IFN-γ", "CXCL-10_d3", "day_of_peak_Ferritin"])
def test_endpoints_understand_the_same_names(name):
    with pytest.warns(Notice, match="is read as"):
        assert endpoint(MODEL, name).needs in ("il6", "ifng", "cxcl10", "ferritin")
