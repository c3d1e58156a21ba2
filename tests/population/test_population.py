"""Medians and spreads between patients: drawn from, written, read again; the shipped ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_fits import DECAY, GRADED, free
from tiny_case import write_case

from crs_sim.errors import CrsSimError
from crs_sim.fitting.noise import Spread
from crs_sim.fitting.priors import Population, load_population, read_prior
from crs_sim.model.model_file import load_model
from crs_sim.store.files import root

CUTS = replace(GRADED.grade, source="a test")
SMALL = Population("small", DECAY, (free("k", 0.5, 0.4), free("a0", 10.0, 0.3)),
                   replace(GRADED, grade=CUTS), 2.0)  # fmt: skip


def test_samples_have_the_medians_and_spreads_and_the_seed_decides():
    drawn = SMALL.sample(4000, np.random.default_rng(1))
    for name in ("k", "a0"):
        assert np.median(drawn[name]) == pytest.approx(SMALL.medians[name], rel=0.03)
        assert np.log(drawn[name]).std() == pytest.approx(SMALL.sds[name], rel=0.05)
    again = SMALL.sample(4000, np.random.default_rng(1))
    assert all((again[name] == drawn[name]).all() for name in drawn)
    with pytest.raises(CrsSimError, match="give 1 or more"):
        SMALL.sample(0, np.random.default_rng(1))


def test_samples_stay_inside_the_bounds():
    narrow = replace(SMALL, free=(free("k", 0.5, 2.0, factor=1.5),))
    drawn = narrow.sample(500, np.random.default_rng(2))["k"]
    assert 0.5 / 1.5 <= drawn.min() < 0.35
    assert 0.72 < drawn.max() <= 0.75


def test_it_comes_back_from_its_file(tmp_path):
    said = Spread(0.2, 'so-called "20 %" \\ µ')
    odd = replace(SMALL, noise=replace(SMALL.noise, spreads={"A": said}))
    text = odd.toml("Two\nlines")
    (tmp_path / "prior.toml").write_text(text, encoding="utf-8")
    assert load_population(DECAY, tmp_path) == odd
    assert text.startswith("# Two\n# lines\n\nname")


def test_the_table_says_what_it_is():
    table = SMALL.table().set_index("parameter")
    assert table.loc["k", "low"] == pytest.approx(0.5 * np.exp(-1.96 * 0.4), rel=1e-3)
    assert set(table["source"]) == {"a test"}


def test_a_prior_beside_the_model_comes_before_the_shipped_one(tmp_path):
    folder = write_case(tmp_path)
    model = load_model(folder / "model")
    with pytest.raises(CrsSimError, match="not found, so it is unknown which parameters"):
        load_population(model)
    text = replace(SMALL, name="mine", model=model, free=(free("k", 0.5, 0.2),)).toml()
    (folder / "model" / "prior.toml").write_text(text)
    assert load_population(model).name == "mine"


BAD = {
    "[free.kk]\nsd = 1\nsource = 'x'": "unknown parameter 'kk': did you mean 'k'",
    "[free.k]\nsd = -1\nsource = 'x'": "prior.toml: key free.k.sd: must be above 0",
    "[free.k]\nsd = 1": "free.k.source: is empty or missing",
    "[free.k]\nsd = 1\nsource = ''": "free.k.source: is empty",
    "": "free: is empty or missing",
    "[free]": "free: no parameter varies",
    "patients = -1\n[free.k]\nsd = 1\nsource = 'x'": "-1 is negative",
    "patient = 1\n[free.k]\nsd = 1\nsource = 'x'": "unknown key 'patient': did you mean 'patients'",
}


@pytest.mark.parametrize("text", BAD)
def test_mistakes(tmp_path, text):
    path = tmp_path / "prior.toml"
    path.write_text(f'name = "x"\n{text}\n')
    with pytest.raises(CrsSimError) as error:
        load_population(DECAY, path)
    assert BAD[text].replace("prior.toml: ", "") in str(error.value)
    assert "prior.toml" in str(error.value)


def test_the_shipped_prior_is_honest_about_every_number():
    model = load_model("crs")
    crs = load_population(model)
    assert crs.name == "crs" and crs.patients == 1
    assert crs.medians == {name: model.values[name] for name in crs.medians}  # one home
    for free_ in crs.free:
        assert free_.source.startswith(("assumption:", "https://doi.org/"))
        assert 0.1 <= free_.sd <= 0.8
    for name, spread in crs.noise.spreads.items():
        assert name in model.quantity_ids
        assert spread.source.startswith("assumption:")
    levels = {d.name for d in model.drugs if f"c_{d.name}" in model.quantity_ids}
    assert {f"c_{name}" for name in levels} <= set(crs.noise.spreads)
    measured = {"vcn", "ifng", "ifng_total", "il6", "cxcl10", "ferritin", "sil2r", "crp", "psa"}
    assert measured <= set(crs.noise.spreads) and crs.noise.grade is not None


def test_the_case_and_the_prior_share_no_number():
    prior = read_prior("crs").content
    text = (root() / "fits/ruemmele2025/problem.toml").read_text(encoding="utf-8")
    assert "[grade]" not in text
    assert [n for n in prior.noise if f"[noise.{n}]" in text] == ["cxcl10", "crp"]
