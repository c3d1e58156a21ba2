"""Coverage of intervals from grades whose errors persist: `studies.grades`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.grades import design
from studies.grades.design import PRIORS, asked, run, summary

TRUTH = {"k": 0.12, "a0": 7.0}


def grades_of(errors, likelihood):
    problem = asked(TRUTH, errors, likelihood, np.random.default_rng(2))
    return [o.value for o in problem.patient.observations]


def test_both_likelihoods_see_the_same_grades():
    assert grades_of("persistent", "independent") == grades_of("persistent", "persistent")
    assert len(grades_of("independent", "independent")) == 21


def test_the_same_estimates_again():
    found = run(1, workers=1)
    assert len(found) == 4 * len(PRIORS)
    assert (found["standard_error"] > 0).all()
    pd.testing.assert_frame_equal(found, run(1, workers=1))


def test_what_is_committed_says_what_its_page_says():
    folder = Path(design.__file__).parent / "found"
    found = pd.read_csv(folder / "estimates.csv")
    assert found["patient"].nunique() == 200
    table = summary(found).set_index(["errors", "likelihood", "parameter"])
    for name in ("k", "a0"):
        right = table.loc[("persistent", "persistent", name)]
        assert right["within_95"] == pytest.approx(0.95, abs=0.03)
        assert right["within_50"] == pytest.approx(0.5, abs=0.07)
        assert right["rms_off"] == pytest.approx(1.0, abs=0.1)
        assert table.loc[("persistent", "independent", name), "within_95"] < 0.92
        assert table.loc[("persistent", "independent", name), "rms_off"] > 1.15
    text = (folder / "found.md").read_text(encoding="utf-8")
    assert "| persistent | persistent | k | 54 % | 78 % | 94 % |" in text
