"""Model: immutable, looked up by name, with helpful errors."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
from tiny_model import DRUGS, TINY, broken

from crs_sim.errors import ModelError, UnknownNameError
from crs_sim.model.model import Model, Parameter, Quantity, State
from crs_sim.model.model_file import read_drugs, read_model


@pytest.fixture(scope="module")
def model() -> Model:
    return read_model(TINY, "tiny.ant", read_drugs(DRUGS))


def test_look_up(model: Model) -> None:
    assert isinstance(model["IL6"], State)
    assert isinstance(model["k_il6"], Parameter)
    assert isinstance(model["effect"], Quantity)
    with pytest.raises(UnknownNameError, match=r"unknown name 'k_li6': did you mean 'k_il6'\?"):
        model["k_li6"]


def test_drug_or_state_takes_a_dose(model: Model) -> None:
    assert model.drug("tocilizumab").into == "DRUG"
    assert model.drug("IL6").hours == 0
    with pytest.raises(UnknownNameError, match="did you mean 'tocilizumab'"):
        model.drug("tocilizumb")


def test_with_values_is_another_model(model: Model) -> None:
    other = model.with_values(k_il6=7)
    assert (model.values["k_il6"], other.values["k_il6"]) == (300.0, 7.0)
    assert other.hash == model.hash
    assert other["k_il6"].label == "IL-6 made"
    with pytest.raises(UnknownNameError, match="parameter 'IL6'"):
        model.with_values(IL6=3)
    with pytest.raises(ModelError, match="not finite"):
        model.with_values(k_il6=math.nan)


def test_frozen(model: Model) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "same_hash"),
    [
        ("k_il6 = 300 ", "k_il6 = 301 ", True),
        ('"IL-6 made"', '"IL-6 production"', True),
        ("- d_il6*IL6", "- 2*d_il6*IL6", False),
        ("high has dimensionless", "high has mg", False),
        ("IL6 = il6_0;", "IL6 = 2*il6_0;", False),
    ],
)
def test_hash_is_of_the_equations(model: Model, old: str, new: str, same_hash: bool) -> None:
    other = read_model(broken(old, new), "tiny.ant", model.drugs)
    assert (other.hash == model.hash) is same_hash


def test_survives_pickling(model: Model) -> None:
    assert pickle.loads(pickle.dumps(model)) == model


def test_repr(model: Model) -> None:
    assert repr(model).startswith("Model('tiny': 2 states, 8 parameters, 3 quantities, hash ")
