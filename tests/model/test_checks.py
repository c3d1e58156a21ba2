"""Checks: each finds its own mistake, says where, and is silent on a good model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tiny_model import DRUGS, TINY, broken, line_of

from crs_sim.errors import UnitError
from crs_sim.model import checks
from crs_sim.model.checks import Issue, check_model
from crs_sim.model.model import Model, listing
from crs_sim.model.model_file import load_model, read_drugs, read_model


def issues(old: str, new: str) -> list[Issue]:
    return check_model(read_model(broken(old, new), "model.ant", read_drugs(DRUGS)))


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model(TINY, "tiny.ant", read_drugs(DRUGS))


def test_a_good_model_has_none(model: Model) -> None:
    assert check_model(model) == []


@pytest.mark.parametrize(
    ("old", "new", "symbol", "words"),
    [
        ("k_il6 = 300 pg_per_mL_per_day",
         "unit ng_per_mL_per_day = 1e-9 gram / (1e-3 litre * 86400 second); "
         "k_il6 = 300 ng_per_mL_per_day",
         "IL6", "k_il6*effect*(1 + 2*hill(IL6, K_il6, n_il6)), factor 1000: ng/mL/day, needed "
         "pg/mL/day"),
        ("- d_il6*IL6", "- IL6", "IL6", "IL6, another dimension: pg/mL, needed pg/mL/day"),
        ("- d_il6*IL6", "- d_il6", "IL6", "d_il6, another dimension: 1/day, needed pg/mL/day"),
        ("c_drug := DRUG/v", "c_drug := DRUG", "c_drug", "DRUG, another dimension: mg, needed"),
        ("IL6 = il6_0", "IL6 = 2*d_il6", "IL6", "2*d_il6, another dimension: 1/day, needed pg"),
        ("1 - hill(c_drug, ic50, 1)", "exp(-c_drug)", "effect", "the argument of exp must be a pl"),
        ("1 - hill(c_drug, ic50, 1)", "ln(1 + c_drug)", "effect", "c_drug is mg/L, but 1 beside"),
        ("hill(c_drug, ic50, 1)", "hill(c_drug, K_il6, 1)", "effect", "(factor 1e-06)"),
        ("hill(c_drug, ic50, 1)", "hill(c_drug, ic50, ic50)", "effect", "the exponent of hill("),
        ("hill(c_drug, ic50, 1)", "c_drug^0.5/ic50", "effect", "whose exponent is not an integer"),
    ],
)  # fmt: skip
def test_units(old: str, new: str, symbol: str, words: str) -> None:
    others = ("is used nowhere", "bare number")
    found = [i for i in issues(old, new) if not i.text.startswith(others)]
    assert len(found) == 1
    assert words in found[0].text
    assert (found[0].symbol, found[0].file) == (symbol, "model.ant")


def test_a_wrong_term_is_named_alone_with_its_line() -> None:
    found = issues("- d_il6*IL6", "- d_il6*IL6 - cl + d_il6")
    line = line_of("IL6' =")
    assert [(i.text.split(",")[0], i.line) for i in found] == [("cl", line), ("d_il6", line)]
    assert str(found[0]).startswith(f"model.ant:{line}  IL6: cl, another dimension")


def test_declared_unit_and_its_name(tmp_path: Path) -> None:
    text = broken("unit pg_per_mL = 1e-12", "unit pg_per_mL = 1e-9")
    path = tmp_path / "model.ant"
    path.write_text(text)
    found = checks.unit_names(read_model(text, str(path)))
    assert len(found) == 1
    assert str(found[0]).startswith(f"{path}:{line_of('unit pg_per_mL =')}  unit pg_per_mL: ")
    assert "the name is pg/mL" in found[0].text
    assert "factor 1000" in found[0].advice


def test_a_name_that_says_nothing_is_no_unit_issue() -> None:
    assert checks.unit_names(read_model(TINY.replace("mg_per_L", "exposure"))) == []


def test_unused_parameter() -> None:
    extra = 'extra = 1 litre; extra is "e"; extra description "assumption: e"; v = 3'
    found = issues("v = 3", extra)
    assert [(i.symbol, i.text, i.line) for i in found] == [
        ("extra", "is used nowhere", line_of("v = 3"))
    ]


def test_a_bare_number_in_a_formula() -> None:
    found = issues("cl/v*DRUG", "cl/v*DRUG^0.75*2")
    assert [(i.symbol, i.text) for i in found][-1] == (
        "DRUG", "bare number 0.75 in -cl / v * DRUG^0.75 * 2"
    )  # fmt: skip
    assert "parameter with unit, label and source" in found[-1].advice


def test_used_by_a_drug_or_a_cut_point_is_used() -> None:
    one = '{0} = 1 dimensionless; {0} is "e"; {0} description "assumption: e"; '
    text = broken("  v = 3", one.format("f") + one.format("grade_1") + "v = 3")
    drugs = read_drugs(DRUGS + 'bioavailability = "f"\n')
    assert check_model(read_model(text, "", drugs)) == []
    assert [i.symbol for i in check_model(read_model(text))] == ["f"]


def test_unused_unit() -> None:
    found = issues("  v = 3", "  unit ug = 1e-6 gram; v = 3")
    assert [(i.symbol, i.text) for i in found] == [("unit ug", "is used nowhere")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no source"),
        ("Smith 2019", "source 'Smith 2019' is not a DOI"),
        ("https://doi.org/", "is not a DOI"),
        ("https://example.org/10.1000/182", "is not a DOI"),
        ("assumption", "is not a DOI"),
        ("see https://doi.org/10.1000/182", "is not a DOI"),
    ],
)
def test_sources(source: str, words: str) -> None:
    found = issues('description "assumption: none known"', f'description "{source}"')
    assert len(found) == 1
    assert words in found[0].text
    assert (found[0].symbol, found[0].line) == ("ic50", line_of("ic50 = 1"))


@pytest.mark.parametrize(
    ("old", "new", "symbol", "line"),
    [
        ("hill(c_drug, ic50, 1)", "ic50/(ic50 + ic50*ic50/c_drug)", "effect", "effect :="),
        ("- d_il6*IL6", "- d_il6*K_il6*ln(IL6/K_il6)", "IL6", "IL6' ="),
        ("- d_il6*IL6", "- d_il6*IL6*IL6/(IL6 + c_drug/ic50*IL6)", "IL6", "IL6' ="),
        ("ic50 = 1 ", "ic50 = 0 ", "tiny", ""),
    ],
)
def test_zero_state(old: str, new: str, symbol: str, line: str) -> None:
    found = issues(old, new)
    assert len(found) == 1
    assert "is not finite where every state is zero" in found[0].text
    assert (found[0].symbol, found[0].line) == (symbol, line_of(line) if line else 0)


@pytest.mark.parametrize("loss", ["d_il6*K_il6*sqrt(IL6/K_il6)", "d_il6*K_il6*(IL6/K_il6)^n_il6"])
def test_powers_are_safe_at_zero(loss: str) -> None:
    assert issues("d_il6*IL6;", f"{loss};") == []


def test_units_of_a_symbol_unknown_to_pint_name_the_line() -> None:
    model = read_model(TINY, "model.ant")
    odd = dataclasses.replace(model.parameters[0], unit="bananas")
    where = rf"^model.ant:{line_of('v = 3')}  v:  unit 'bananas' is not understood"
    with pytest.raises(UnitError, match=where):
        checks.units(dataclasses.replace(model, parameters=(odd, *model.parameters[1:])))


def test_listing_shows_everything(model: Model) -> None:
    text = listing(model.with_values(k_il6=123.5))
    assert "| k_il6 | 123.5 | pg/mL/day | IL-6 made | assumption: scale |" in text
    assert "d IL6/dt = k_il6 * effect * (1 + 2 * hill(IL6, K_il6, n_il6)) - d_il6 * IL6" in text
    assert "| IL6 | il6_0 | pg/mL | Interleukin 6 | assumption: turnover |" in text
    assert "| tocilizumab | DRUG | mg | 1 | 148000 |  | anti-IL-6R antibody |" in text
    for name in model.symbols:
        assert f"| {name} |" in text


def test_the_shipped_model_has_no_issue() -> None:
    assert check_model(load_model("crs")) == []
