"""What passes, and what a fit says of itself first.

The written limits decide, then the reading's own spread; grades by their rule. The readings here
are made by the model, with a scatter that is stated or not.
"""

import math

import numpy as np
import pytest
from small_fits import CUTS, DECAY, GRADED, asked, free, seen
from small_models import small

from crs_sim.fitting.diagnostics import accepted, judge, judged_table, verdict, when
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.noise import Noise
from crs_sim.reports.fit_report import report_text


def judged(observations, **accept):
    """Verdicts at a level of 10*exp(-day/2), which a sharp prior holds in place."""
    problem = asked(free("a0", 10.0, 1e-6), observations=observations, noise=GRADED, accept=accept)
    return {row.id: row for row in judge(fit(problem, starts=1, workers=1))}


def test_written_limits_decide():
    rows = judged(
        (seen("in", "A", 0.0, 8.0), seen("out", "A", 0.0, 9.9)), **{"in": (9, 12), "out": (11, 12)}
    )
    assert rows["in"].verdict == "pass"
    assert rows["out"].verdict == "miss"
    assert (rows["in"].accept_low, rows["in"].accept_high) == (9, 12)
    assert rows["in"].fitted == pytest.approx(10.0, rel=1e-4)
    assert rows["in"].residual == pytest.approx(math.log(0.8) / 0.2, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "value", "limits"),
    [
        ("value", 10.0, (10 * math.exp(-0.392), 10 * math.exp(0.392))),
        ("below", 4.0, (-math.inf, 4.0)),
        ("above", 4.0, (4.0, math.inf)),
        ("grade", 2.0, (2.0, 2.0)),
    ],
)
def test_without_written_limits_the_observation_itself_decides(kind, value, limits):
    problem = asked(free("a0", 10.0, 0.4))
    assert accepted(seen("x", "A", 0.0, value, kind), problem) == pytest.approx(limits, rel=1e-4)


def grades(*wrong):
    """Ten observed grades, at levels well inside each grade, some of them reported wrong."""
    days = [0.1, 0.2, 0.3, 1.0, 1.2, 2.0, 2.2, 3.7, 4.0, 6.0]
    levels = [10 * math.exp(-0.5 * day) for day in days]
    true = [sum(level >= cut for cut in CUTS.values()) for level in levels]
    shifts = dict(wrong)
    return tuple(
        seen(f"g{i}", "crs_grade", day, grade + shifts.get(i, 0), "grade")
        for i, (day, grade) in enumerate(zip(days, true, strict=True))
    )


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ((), "pass"),
        (((9, 1),), "pass"),
        (((9, 2),), "miss"),
        (((9, 1), (8, 1)), "miss"),
    ],
)
def test_nine_grades_in_ten_are_exact_and_none_is_far_off(wrong, verdict):
    rows = judged(grades(*wrong))
    assert rows["all_grades"].verdict == verdict
    assert rows["all_grades"].fitted == pytest.approx(1 - len(wrong) / 10)
    for i, off in wrong:
        assert rows[f"g{i}"].verdict == ("near" if off == 1 else "miss")
    assert all(row.verdict != "miss" for row in rows.values()) == (verdict == "pass")


def test_the_table_has_the_columns_of_the_file():
    problem = asked(free("a0", 10.0, 0.4))
    table = judged_table(fit(problem, starts=1, workers=1))
    assert list(table.columns) == [
        "id", "observable", "kind", "when", "observed", "unit", "fitted", "residual",
        "accept_low", "accept_high", "verdict",
    ]  # fmt: skip
    assert list(table["id"]) == ["first", "third", "amplified"]


def test_when_reads_as_words():
    assert when(seen("x", "A", 3.0, 1.0)) == "day 3"
    assert when(seen("x", "A", 3.0, 1.0, "peak", until=4.5)) == "peak of days 3 to 4.5"


def scattered(times, seed=1, count=16):
    """Readings of 10*exp(-day/2), whose scatter is a multiple of the 0.2 that is stated."""
    rng = np.random.default_rng(seed)
    days = np.linspace(0.0, 4.0, count)
    levels = 10 * np.exp(-0.5 * days + 0.2 * times * rng.standard_normal(count))
    return tuple(seen(f"r{k}", "A", *pair) for k, pair in enumerate(zip(days, levels, strict=True)))


@pytest.mark.parametrize("times", [0.3, 1.0, 3.0, 8.0])
def test_scatter_beyond_the_stated_noise_is_said_with_its_factor(times):
    frees = (free("a0", 10.0, 3.0), free("k", 0.5, 3.0))
    result = fit(asked(*frees, observations=scattered(times)), starts=2, workers=1)
    said = verdict(result)
    sure = float(np.sum(result.residuals**2))
    every = "\n".join([*said.warnings, *said.statements])
    assert f"chi-squared {sure:.4g} over 16 readings with 14 degrees of freedom" in every
    warned = [text for text in said.warnings if "times the stated noise" in text]
    assert bool(warned) == (times > 1)
    if warned:
        assert f"{math.sqrt(sure / 14):.2g} times" in warned[0]
        assert math.sqrt(sure / 14) == pytest.approx(times, rel=0.4)
        assert any("misses" in text and "more than by chance" in text for text in said.warnings)
        assert report_text(result).splitlines()[2].startswith("- **Warning: the fit misses")


def test_fewer_observations_than_free_parameters_are_said_first():
    """One reading, which says much of a0 and nothing of k."""
    one = (seen("only", "A", 0.0, 12.0),)
    result = fit(asked(free("a0", 10.0, 1.0), free("k", 0.5, 1.0), observations=one),
                 starts=2, workers=1)  # fmt: skip
    first = "1 observation for 2 free parameters, of which it determines 1.0: the rest is the prior"
    assert verdict(result).warnings[0] == f"{first} (above all k)"
    assert report_text(result).splitlines()[2] == f"- **Warning: {first} (above all k).**"


@pytest.mark.parametrize("count", [2, 16])
def test_as_many_observations_as_free_parameters_are_no_reason_to_warn(count):
    frees = (free("a0", 10.0, 1.0), free("k", 0.5, 1.0))
    result = fit(asked(*frees, observations=scattered(1.0, count=count)), starts=2, workers=1)
    assert "free parameters" not in verdict(result).text


def test_a_single_reading_that_is_off_is_named():
    good = scattered(0.5)
    off = (*good[:5], seen("odd", "A", good[5].day, good[5].value * 5), *good[6:])
    result = fit(asked(free("a0", 10.0, 0.1), free("k", 0.5, 0.1), observations=off),
                 starts=2, workers=1)  # fmt: skip
    assert any(", of which odd alone" in text for text in verdict(result).warnings)


def test_a_parameter_held_by_its_prior_costs_no_degree_of_freedom():
    held = asked(free("a0", 10.0, 1e-4), free("k", 0.5, 1e-4), observations=scattered(1.0))
    assert "with 16 degrees of freedom" in verdict(fit(held, starts=2, workers=1)).text


@pytest.mark.parametrize(
    ("rate", "words", "serious"),
    [
        (0.5, "worst grade 4, 1.8 days at grade 3 or more, resolved", False),
        (1e-6, "worst grade 4, 40.0 days at grade 3 or more, not resolved: grade 4 throughout, "
         "to the end", True),
        (0.05, "not resolved: grade 1 from day 32 on", True),
    ],
)  # fmt: skip
def test_a_course_that_does_not_resolve_is_said_before_what_is_met(rate, words, serious):
    """All of the readings are met, on days 0 and 1, and nothing is known after them."""
    model = DECAY.with_values(k=rate)
    observations = tuple(seen(f"r{d}", "A", d, 10 * math.exp(-rate * d)) for d in (0.0, 1.0))
    result = fit(asked(free("a0", 10.0, 0.3), observations=observations, model=model),
                 starts=2, workers=1)  # fmt: skip
    said = verdict(result)
    assert any(words in text for text in (said.warnings if serious else said.statements))
    text = report_text(result)
    assert "2 of 2 acceptance criteria met" in text
    assert text.index(words) < text.index("2 of 2 acceptance criteria met")
    unseen = any("no observation is within 3 days" in warning for warning in said.warnings)
    assert unseen == serious  # grade 3 ends on day 1.8, or long after the last reading


def test_a_severe_course_that_was_observed_is_no_reason_to_warn():
    days = [2.0 * k for k in range(20)]
    observations = tuple(seen(f"r{k}", "A", day, 10.0) for k, day in enumerate(days))
    model = DECAY.with_values(k=1e-6)
    result = fit(asked(free("a0", 10.0, 0.3), observations=observations, model=model),
                 starts=2, workers=1)  # fmt: skip
    assert not any("no observation" in text for text in verdict(result).warnings)


def test_a_model_without_grades_has_no_course_of_them():
    plain = small("plain", {"A": ("a0", "-k*A")}, {"k": 0.5, "a0": 10.0}, {"twice": "2*A"})
    result = fit(asked(free("a0", 10.0, 0.3), observations=scattered(1.0), model=plain,
                       noise=Noise({"A": GRADED.spreads["A"]})), starts=1, workers=1)  # fmt: skip
    assert "grade" not in verdict(result).text
