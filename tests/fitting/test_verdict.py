"""What passes: the written limits first, then the reading's own spread; grades by their rule."""

import math

import pytest
from small_fits import CUTS, GRADED, asked, free, seen

from crs_sim.fitting.diagnostics import accepted, judge, judged_table, when
from crs_sim.fitting.fitting import fit


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
