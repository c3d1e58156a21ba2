"""Advice cannot do harm: a name is suggested only where it is plainly misspelt, of every kind."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st
from paths import ROOT
from small_models import WITH_DRUG

from crs_sim.cli.command_line import cli
from crs_sim.dosing.scenario import Scenario
from crs_sim.errors import CrsSimError, misspelt, unknown_name
from crs_sim.model.model_file import load_model, read_model
from crs_sim.model.units import read_unit
from crs_sim.scenarios.scenario_file import scenario_of
from crs_sim.simulation.endpoints import endpoint

MODEL = load_model("crs")
DRUGS = [drug.name for drug in MODEL.drugs]
OTHER_DRUGS, OTHER_LEVELS = (dict(MODEL.usual.others)[kind] for kind in ("drugs", "levels"))
WORDS = st.text(string.ascii_lowercase, min_size=5, max_size=12)

ANOTHER_THING = [  # what was typed, what there is: never "did you mean"
    ("sarilumab", "siltuximab"), ("rituximab", "siltuximab"), ("prednisone", "methylprednisolone"),
    ("betamethasone", "dexamethasone"), ("temperature", "ema_free"), ("IL-8", "il6"),
    ("CXCL9", "cxcl10"), ("CXCL1", "cxcl10"), ("IFN-a", "ifng"), ("height", "weight"),
    ("U_per_mL", "ug_per_mL"), ("patient8", "patient7"), ("ruemmele2024", "ruemmele2025"),
    ("subject 12", "subject 21"), ("k_il7", "k_il6"), ("pto", "pta"), ("two_compartment",
    "one_compartment"), ("date", "rate"), ("mg_per_mL", "ng_per_mL"), ("", "x"),
]  # fmt: skip
MISSPELT = [
    ("tocilizmab", "tocilizumab"), ("Tociluzimab", "tocilizumab"), ("siltuximb", "siltuximab"),
    ("dexametasone", "dexamethasone"), ("ferritine", "ferritin"), ("il_6", "il6"),
    ("wieght", "weight"), ("peak_amuont", "peak_amount"), ("one_compartmnt", "one_compartment"),
    ("ruemmele", "ruemmele2025"), ("amuont", "amount"), ("kk", "k"), ("a", "A"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "there"), ANOTHER_THING)
def test_another_thing_is_never_suggested(typed, there):
    elsewhere = () if typed != "U_per_mL" else (typed,)
    text = str(unknown_name("thing", typed, [there], elsewhere=elsewhere))
    assert "did you mean" not in text and f"known are {there}" in text


@pytest.mark.parametrize(("typed", "there"), MISSPELT)
def test_what_is_plainly_misspelt_is_suggested(typed, there):
    assert f"did you mean '{there}'?" in str(unknown_name("thing", typed, [there, "zebra"]))


@given(WORDS, st.data())
def test_one_slip_after_the_first_letter_is_understood(word, data):
    at = data.draw(st.integers(1, len(word) - 1))
    slips = [word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:],
             word[: at] + word[at:][1::-1] + word[at + 2 :]]  # fmt: skip
    assert misspelt(data.draw(st.sampled_from(slips)), [word]) == [word]


@given(WORDS, WORDS)
def test_what_is_suggested_is_like_what_was_typed(typed, there):
    if misspelt(typed, [there]):
        assert typed[0] == there[0] or typed[:2] == there[1::-1]
        assert abs(len(typed) - len(there)) <= 2 or there.startswith(typed)


@pytest.mark.parametrize("name", OTHER_DRUGS)
def test_no_drug_is_suggested_for_another(name):
    with pytest.raises(CrsSimError) as caught:
        MODEL.drug(name)
    assert "did you mean" not in str(caught.value)
    assert f"known are {', '.join(DRUGS)}" in str(caught.value)


@pytest.mark.parametrize("name", [*OTHER_LEVELS, *DRUGS, "weight", "Actemra"])
def test_no_level_is_suggested_for_another(name):
    text = str(MODEL.usual.refuse("level", name, MODEL.course_ids))
    assert "did you mean" not in text and "known are vcn, ifng" in text


@pytest.mark.parametrize("name", OTHER_DRUGS)
def test_no_two_things_of_the_shipped_lists_are_taken_for_each_other(name):
    assert not misspelt(name, DRUGS)


@pytest.mark.parametrize(
    "wrong", ["peak_il8", "auc_temperature", "cxcl9_d3", "peak_prednisone", "worst_fever"]
)
def test_no_endpoint_of_another_level_is_suggested(wrong):
    with pytest.raises(CrsSimError) as caught:
        endpoint(MODEL, wrong)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["mgL", "ngmL", "decagram", "UmL", "ugml", "IUL", "mcgmL"])
def test_no_unit_of_another_dimension_or_size_is_suggested(name):
    with pytest.raises(CrsSimError) as caught:
        read_unit(name)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"), [("microgam", "microgram"), ("mgs", "mg"), ("mgg", "mg")]
)
def test_a_unit_that_is_misspelt_is_suggested(typed, meant):
    with pytest.raises(CrsSimError, match=f"did you mean '{meant}'"):
        read_unit(typed)


@pytest.mark.parametrize("unit", ["U_per_mL", "mg_per_mL", "ug_per_L"])
def test_a_unit_that_a_model_does_not_declare_is_not_taken_for_one_it_does(unit):
    text = Path(ROOT, "models/crs/model.ant").read_text()
    line = next(line for line in text.splitlines() if " has ng_per_mL;" in line)
    with pytest.raises(CrsSimError) as caught:
        read_model(text.replace(line, line.replace("has ng_per_mL", f"has {unit}"), 1))
    assert f"unknown unit '{unit}': known are" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "key"),
    [({"add": [{"drug": "pill", "day": 1, "dose": 3, "amount": 1}]}, "dose"),
     ({"add": [{"drug": "pill", "day": 1, "hour": 3, "amount": 1}]}, "hour")],
)  # fmt: skip
def test_an_amount_is_not_taken_for_a_number_of_doses(record, key):
    with pytest.raises(CrsSimError) as caught:
        scenario_of({"name": "a", **record}, Scenario("x"), WITH_DRUG, Path("s.toml"))
    assert f"unknown key '{key}': known are" in str(caught.value)


def run(*words: object) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code
    return result.stderr


def test_options_commands_models_and_patients():
    assert "Did you mean '--until'" in run("simulate", "ruemmele2025", "--untill", 2)
    assert "Did you mean" not in run("simulate", "ruemmele2025", "--unit", 2)
    assert "did you mean 'ruemmele2025'" in run("simulate", "ruemele2025")
    assert re.search(r"known are .*\bruemmele2025\b", run("simulate", "patient2"))
    assert "did you mean" not in run("check", "tree_compartment")
    assert "did you mean" not in run("simulate", "ruemmele2025", "--set", "height=1")


@pytest.mark.parametrize("header", ["day,drug,dose,unit", "day,drug,amount,unit,hour"])
def test_columns(tmp_path, header):
    (tmp_path / "patient.toml").write_text('id = "x"\n')
    (tmp_path / "doses.csv").write_text(f"{header}\n0,cart,1,cells/kg\n")
    text = run("simulate", tmp_path)
    assert "unknown column" in text and "did you mean" not in text and "known are amount" in text
