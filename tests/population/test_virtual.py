"""Virtual patients: the same whoever else is drawn, spread as was said, and read strictly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tiny_population import POPULATION, write_population_case

from crs_sim.errors import CrsSimError, InputError, UnknownNameError
from crs_sim.population.study_file import load_study, with_number
from crs_sim.population.virtual_patients import BLOCK, Covariate, VirtualPopulation


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_population_case(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def study(home):
    return load_study(home)


def test_a_patient_is_the_same_whoever_else_is_drawn(study):
    all_of_them = study.virtual.draw(0, 3 * BLOCK)
    for first, last in ((0, 1), (5, 9), (BLOCK - 2, BLOCK + 2), (2 * BLOCK, 2 * BLOCK + 7)):
        some = study.virtual.draw(first, last)
        for name, values in all_of_them.items():
            assert (some[name] == values[first:last]).all()
    assert len(np.unique(all_of_them["k"])) == 3 * BLOCK


def test_a_covariate_more_leaves_the_others_as_they_were(study):
    virtual = study.virtual
    fewer = VirtualPopulation(virtual.model, virtual.population, virtual.covariates[1:], seed=3)
    mine, theirs = virtual.draw(0, 10), fewer.draw(0, 10)
    assert set(mine) - set(theirs) == {"weight"}
    for name, values in theirs.items():
        assert (mine[name] == values).all()


def test_another_seed_draws_others(study):
    other = with_number(study, None, 4)
    assert not np.isclose(other.virtual.draw(0, 5)["k"], study.virtual.draw(0, 5)["k"]).any()


LAWS = {
    "lognormal": (Covariate("x", "lognormal", 80, 0.2, 50, 110, "kg", "made up"),
                  stats.lognorm(0.2, scale=80)),
    "normal": (Covariate("x", "normal", 80, 15, 50, math.inf, "kg", "made up"),
               stats.norm(80, 15)),
    "uniform": (Covariate("x", "uniform", math.nan, 0, 3, 7, "kg", "made up"),
                stats.uniform(3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("shape", LAWS)
def test_covariates_are_spread_as_was_said(shape):
    covariate, law = LAWS[shape]
    chances = np.linspace(0.001, 0.999, 99)
    low, high = law.cdf(covariate.lower), law.cdf(covariate.upper)
    expected = law.ppf(low + chances * (high - low))
    assert covariate.at(chances) == pytest.approx(expected, rel=1e-9)
    ends = covariate.at(np.array([0.0, 1.0]))
    assert covariate.lower <= ends[0] < ends[1] <= covariate.upper
    assert shape in covariate.describe()


def test_a_dose_of_ones_own_is_a_share_that_arrives(study):
    drawn = study.virtual.draw(0, 20)
    parameters = study.virtual.parameters(drawn)
    assert "pill" not in parameters
    assert parameters["F"] == pytest.approx(drawn["pill"] / 10.0)  # mg; the schedule gives 10
    assert (drawn["pill"] >= 5).all() and (drawn["pill"] <= 15).all()


def test_units_become_the_models(study):
    weight = next(c for c in study.virtual.covariates if c.name == "weight")
    assert (weight.centre, weight.sd, weight.lower) == pytest.approx((70.0, 9.0, 40.0))


def test_what_is_fixed_is_not_drawn(home, tmp_path):
    study = changed(home, "seed = 3", 'seed = 3\nfixed = ["k"]')
    assert "k" not in study.virtual.names and "one_mg" in study.virtual.names


def test_the_prior_that_fit_all_wrote_will_do(home, study):
    found = replace(study.virtual.population, name="fitted", patients=12.0)
    (home / "prior.toml").write_text(found.toml("Medians and spreads found from 11 patients."))
    again = changed(home, "seed = 3", 'seed = 3\nprior = "prior.toml"')
    assert (again.virtual.population.name, again.virtual.population.patients) == ("fitted", 12.0)
    assert (again.virtual.draw(0, 9)["k"] == study.virtual.draw(0, 9)["k"]).all()
    assert repr(again) == "PopulationStudy('tiny': 300 patients, 3 scenarios, 4 endpoints)"


def changed(home, old, new):
    """The study with one thing in population.toml changed."""
    assert POPULATION.count(old) == 1
    path = home / "changed.toml"
    path.write_text(POPULATION.replace(old, new))
    return load_study(path)


BAD = {
    ('"../data"', '"../daata"'): "population.toml, patient: unknown patient",
    ("seed = 3", "sede = 3"): "did you mean 'seed'",
    ("seed = 3", 'prior = "crz"'): "prior: unknown prior",
    ("seed = 3", 'fixed = ["kk"]'): "unknown parameter of the population 'kk'",
    ("number = 300", "number = 0"): "number",
    ("number = 300", "number = 1.5"): "key number: must be a whole number, not 1.5",
    ("seed = 3", "seed = 3\nevery_hours = 1000"): "every_hours: 1000 is too large; it must be at m",
    ("[covariate.weight]", "[covariate.wieght]"): "did you mean 'weight'",
    ("[covariate.weight]", "[covariate.A]"): "covariate",
    ("[dose.pill]", "[dose.pil]"): "no different doses of pil",
    ('unit = "g"', 'unit = "mL"'): "cannot be converted",
    ("mean = 70000", "median = 70000"): "weight.median: does not apply to normal, which takes mean",
    ("mean = 70000\n", ""): "weight.mean: is missing; normal needs mean and sd",
    ("lower = 5", "lower = 16"): "lower (16) is not below upper (15)",
    ("lower = 40000", "lower = 80000"): "between its bounds",
    ("lower = 40000", "mode = 40000"): "unknown key 'mode': known are lower, mean",
    ('"peak_amount <= 10"', '"peak_amuont <= 14"'): "filter 1: unknown state or quantity",
    ('"peak_amount <= 10"', '"peak_amount below 14"'): "filter 1: 'peak_amount below 14' is no",
    ("seed = 3", 'scenarios = "none.toml"'): "none.toml",
}


@pytest.mark.parametrize("change", BAD, ids=lambda c: c[1])
def test_bad_population_files(home, change):
    with pytest.raises(CrsSimError) as refused:
        changed(home, *change)
    words = BAD[change].replace("population.toml", "changed.toml")
    assert words in str(refused.value)


def test_what_is_drawn_twice_is_refused(home, study):
    covariate = Covariate("k", "uniform", math.nan, 0, 0.1, 1, "1/day", "made up")
    with pytest.raises(InputError, match="k is drawn from population tiny too; list it under"):
        VirtualPopulation(study.model, study.virtual.population, (covariate,))
    scenarios = (home / "scenarios.toml").read_text()
    (home / "own.toml").write_text(f"{scenarios}values = {{ weight = 50 }}\n")
    with pytest.raises(InputError, match="'times one' sets weight, which is drawn"):
        changed(home, "seed = 3", 'scenarios = "own.toml"')


def test_a_dose_that_cannot_differ_is_refused(tmp_path):
    home = write_population_case(tmp_path)
    (tmp_path / "model" / "drugs.toml").write_text('[pill]\ninto = "A"\nunit = "mg"\n')
    with pytest.raises(InputError, match=r"names no bioavailability in drugs\.toml"):
        load_study(home)
    doses = tmp_path / "data" / "doses.csv"
    doses.write_text(doses.read_text() + "5,pill,3,mg,,,,\n")
    with pytest.raises(InputError, match="2 different doses of pill"):
        load_study(home)


def test_shapes_are_known():
    with pytest.raises(UnknownNameError, match="did you mean 'normal'"):
        Covariate("x", "norml", 1, 1, 0, 2, "kg", "made up")
    with pytest.raises(InputError, match="both bounds"):
        Covariate("x", "uniform", 1, 1, 0, math.inf, "kg", "made up")
    with pytest.raises(InputError, match="1 patient or more"):
        with_number(load_study("crs"), 0, None)
