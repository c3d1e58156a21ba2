"""Grades whose errors persist: one joint probability, and all who use it agree on it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from small_fits import CUTS, DECAY, GRADED, NOISE, asked, free, seen

from crs_sim.errors import CrsSimError, FileError, InputError
from crs_sim.exchange.petab_export import petab_files
from crs_sim.fitting import grades
from crs_sim.fitting.diagnostics import judge
from crs_sim.fitting.fitting import fit
from crs_sim.fitting.grades import GradeScale, grade_residuals, log_chance_between
from crs_sim.fitting.noise import (
    Noise,
    days_needed,
    grades_given_others,
    residual_vector,
    residuals,
)
from crs_sim.fitting.objective import Objective, curves, noise_record
from crs_sim.fitting.priors import Population, load_population
from crs_sim.population.virtual_patients import Design, synthetic_patient
from crs_sim.uncertainty.cross_validation import leave_out
from crs_sim.uncertainty.posterior import problem_hash

LASTING = replace(GRADED.grade, persistence=0.8, memory=3.0)
NOISY = Noise(NOISE.spreads, LASTING)
DAYS = {0.0: 4.0, 1.0: 4.0, 2.0: 3.0, 3.0: 1.0, 4.0: 1.0, 6.0: 0.0}
GRADES = tuple(seen(f"g{day:g}", "crs_grade", day, grade, "grade") for day, grade in DAYS.items())
A0, K = free("a0", 10.0, 0.5), free("k", 0.5, 0.4)


def covariance(days, scale: GradeScale):
    apart = np.abs(np.subtract.outer(days, days))
    lasting = scale.persistence * np.exp(-apart / scale.memory)
    return lasting + (1.0 - scale.persistence) * np.eye(len(days))


def chance(low, high, matrix) -> float:
    """P of a box under a multivariate normal, by SciPy's own integration."""
    return stats.multivariate_normal.cdf(
        np.minimum(high, 30.0), cov=matrix, lower_limit=np.maximum(low, -30.0), abseps=1e-8,
        releps=1e-7, maxpts=1_000_000, rng=np.random.default_rng(1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("persistence", "memory", "days"),
    [
        (0.8, 3.0, [0.0, 1.0, 2.0, 3.0]),
        (0.3, 0.5, [0.0, 0.2, 0.9]),
        (0.7, 3.0, [2.0, 0.0, 7.0, 1.0]),  # in any order
        (0.95, 20.0, [0.0, 0.05, 1.0]),
        (0.6, 3.0, [0.0, 1.0, 1.0]),  # twice on one day
    ],
)
def test_the_squares_are_the_joint_probability(persistence, memory, days):
    scale = replace(LASTING, persistence=persistence, memory=memory)
    rng = np.random.default_rng(3)
    low = rng.normal(-0.8, 1.0, (3, len(days)))
    high = low + rng.uniform(0.4, 2.0, low.shape)
    low[0, 0], high[1, -1] = -math.inf, math.inf
    found = np.exp(-0.5 * np.sum(grade_residuals(low, high, days, scale) ** 2, axis=1))
    matrix = covariance(days, scale)
    expected = [chance(one, other, matrix) for one, other in zip(low, high, strict=True)]
    assert found == pytest.approx(expected, rel=2e-5)


def test_each_residual_is_of_a_grade_given_the_days_before_it():
    low, high, days = np.array([0.2, -1.0, 0.1]), np.array([1.5, 0.3, 2.0]), [5.0, 3.0, 4.0]
    matrix = covariance(days, LASTING)
    got = np.exp(-0.5 * grade_residuals(low, high, days, LASTING) ** 2)
    first, second = [1], [1, 2]
    alone, two, three = (
        chance(low[rows], high[rows], matrix[np.ix_(rows, rows)])
        for rows in (first, second, [0, 1, 2])
    )
    assert got == pytest.approx([three / two, alone, two / alone], rel=1e-5)


def test_the_number_of_nodes_is_enough(monkeypatch):
    rng = np.random.default_rng(5)
    low = rng.normal(-0.5, 1.0, (20, 27))
    high, days = low + 1.0, [float(day) for day in range(27)]
    for persistence, memory in ((0.5, 3.0), (0.8, 3.0), (0.95, 3.0), (0.7, 30.0)):
        scale = replace(LASTING, persistence=persistence, memory=memory)
        usual = np.sum(grade_residuals(low, high, days, scale) ** 2, axis=1)
        nodes = len(grades._chain(scale, tuple(days), 8.0)[0])
        assert 21 <= nodes <= 101
        chain = grades._chain
        with monkeypatch.context() as patched:
            patched.setattr(grades, "_chain", lambda *a, usual=chain: usual(*a, spacing=0.5))
            twice = np.sum(grade_residuals(low, high, days, scale) ** 2, axis=1)
        assert usual == pytest.approx(twice, abs=2e-4)  # of -2 ln P of 27 grades together


def test_probabilities_sum_to_one_over_all_courses_of_grades():
    edges = np.array([-np.inf, -1.0, -0.3, 0.4, 1.0, np.inf])
    three = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    found = grade_residuals(edges[three], edges[three + 1], [0.0, 0.5, 4.0], LASTING)
    assert np.sum(np.exp(-0.5 * np.sum(found**2, axis=1))) == pytest.approx(1.0, abs=1e-7)


def test_without_persistence_nothing_changes_to_the_last_bit():
    problem = asked(A0, K, observations=GRADES, noise=GRADED)
    run = curves(problem, {"a0": 9.0, "k": 0.4}, days_needed(GRADES))
    level, edges = run["A"][[0, 1, 2, 3, 4, 5]], np.array([-np.inf, *CUTS.values(), np.inf])
    rows = np.array(list(DAYS.values()), dtype=int)
    expected = np.sqrt(-2.0 * log_chance_between(
        (edges[rows] - level) / 0.5, (edges[rows + 1] - level) / 0.5))  # fmt: skip
    for scale in (GRADED.grade, replace(GRADED.grade, memory=3.0)):
        noise = replace(GRADED, grade=scale)
        assert np.array_equal(residual_vector(GRADES, run, noise), expected)
        assert [residuals(o, run, noise)[0] for o in GRADES] == expected.tolist()
        assert noise_record(noise) == noise_record(GRADED)
        assert list(noise_record(noise)["grade"]) == ["latent", "cuts", "sd", "source"]
        assert problem_hash(replace(problem, noise=noise)) == problem_hash(problem)
    assert problem_hash(replace(problem, noise=NOISY)) != problem_hash(problem)


def test_a_grade_by_itself_has_the_whole_spread():
    problem = asked(A0, K, observations=GRADES, noise=NOISY)
    run = curves(problem, {"a0": 9.0, "k": 0.4}, days_needed(GRADES))
    assert residuals(GRADES[2], run, NOISY) == residuals(GRADES[2], run, GRADED)
    vector = residual_vector(GRADES, run, NOISY)
    assert vector[0] == pytest.approx(float(residuals(GRADES[0], run, GRADED)[0]), rel=1e-6)
    assert vector[1:] != pytest.approx(residual_vector(GRADES, run, GRADED)[1:], rel=0.01)


@pytest.mark.parametrize("a0", [3.0, 10.0, 40.0])
def test_the_slopes_are_those_of_the_residuals(a0):
    objective = Objective(asked(A0, K, observations=GRADES, noise=NOISY))
    x, step = np.log([a0, 0.6]), 1e-4
    ends = [[objective.residuals(x + side * step * np.eye(2)[k]) for side in (1, -1)]
            for k in range(2)]  # fmt: skip
    expected = np.transpose([(up - down) / (2.0 * step) for up, down in ends])
    assert objective.jacobian(x) == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_hopeless_levels_keep_a_slope_that_leads_back():
    days = [0.0, 1.0, 2.0]
    for off in (20.0, 60.0, 300.0):
        levels = np.array([off - 0.01, off, off + 0.01])[:, None] * np.ones(3)
        found = np.sum(grade_residuals(levels, levels + 1.0, days, LASTING) ** 2, axis=1)
        assert np.isfinite(found).all() and (np.diff(found) > 0.1).all()
    assert np.isfinite(grade_residuals(np.ones(3), np.zeros(3), days, LASTING)).all()


@pytest.mark.parametrize("off", [3.0, 3.57, 3.59, 8.0, 15.0])
def test_a_state_far_off_explains_grades_that_are_all_far_off(off):
    """As a normal density at the nearer limits, far in the tail of independent errors."""
    days = np.arange(6.0)
    low = np.full((1, 6), off)
    found = float(np.sum(grade_residuals(low, low + 1e-3, days.tolist(), LASTING) ** 2))
    density = stats.multivariate_normal(cov=covariance(days, LASTING)).logpdf(low[0] + 5e-4)
    assert found == pytest.approx(-2.0 * (density + 6.0 * math.log(1e-3)), rel=1e-5)
    assert found < 0.8 * np.sum(grade_residuals(low, low + 1e-3, days.tolist(), GRADED.grade) ** 2)


def test_a_probability_near_one_is_not_rounded():
    high, endless = np.full(2, 7.0), np.full(2, -math.inf)
    found = grade_residuals(endless, high, [0.0, 1000.0], LASTING)
    assert found == pytest.approx(np.sqrt(2.0 * stats.norm.sf(7.0)), rel=1e-3)


def test_synthetic_grades_share_the_state_of_their_patient():
    rng = np.random.default_rng(8)
    days = np.array([0.0, 1.0, 4.0])
    drawn = np.array([LASTING.states(days, rng) for _ in range(4000)])
    drawn += LASTING.white * rng.standard_normal(drawn.shape)
    assert np.cov(drawn.T) == pytest.approx(0.25 * covariance(days, LASTING), abs=0.015)
    scale = GradeScale("A", tuple(CUTS), 3.0, "", 0.95, 300.0)
    flat = DECAY.with_values(k=1e-6, a0=3.0)
    design = Design(GRADED_SCENARIO, {"crs_grade": (0.0, 1.0, 2.0, 3.0)})
    sums = {}
    for noise in (Noise({}, replace(scale, persistence=0.0)), Noise({}, scale)):
        made = [[o.value for o in synthetic_patient(flat, design, noise, rng).observations]
                for _ in range(60)]  # fmt: skip
        sums[noise.grade.persistence] = float(np.var(np.mean(made, axis=1)))
    assert sums[0.95] > 2.0 * sums[0.0]


GRADED_SCENARIO = asked(A0, observations=GRADES, noise=GRADED).patient.scenario


def test_one_left_out_is_predicted_from_the_days_before_and_after():
    problem = asked(A0, observations=GRADES, noise=NOISY)
    run = curves(problem, {"a0": 9.0}, days_needed(GRADES))
    (given,) = grades_given_others(GRADES, ("g2",), run, NOISY).values()
    rest = [o for o in GRADES if o.id != "g2"]
    squares = [np.sum(residual_vector(several, run, NOISY) ** 2) for several in (GRADES, rest)]
    assert float(given) ** 2 == pytest.approx(squares[0] - squares[1], rel=1e-9)
    everything = grades_given_others(GRADES, [o.id for o in GRADES], run, NOISY)
    assert float(everything["g3"]) == pytest.approx(float(residuals(GRADES[3], run, NOISY)[0]))


def test_tables_and_cross_validation_agree_with_the_fit():
    problem = asked(A0, observations=GRADES, noise=NOISY)
    result = fit(problem, starts=1, workers=1)
    rows = [row.residual for row in judge(result) if row.kind == "grade"]
    assert np.sum(np.square(rows)) == pytest.approx(result.deviance)
    (omitted,) = leave_out(result, [("g2",)], workers=1)
    (held,) = omitted.held_out
    run = curves(problem, omitted.fit.values, days_needed(GRADES))
    given = float(grades_given_others(GRADES, ("g2",), run, NOISY)["g2"])
    assert held.residual == pytest.approx(given, rel=1e-4)
    assert held.chance == pytest.approx(math.exp(-0.5 * given**2), rel=0.3)


TABLE = """name = "x"
[free.k]
sd = 0.5
source = "a test"
[grade]
latent = "A"
cuts = ["grade_1", "grade_2", "grade_3", "grade_4"]
sd = 0.5
source = "a test"
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("persistence = 1.0\nmemory = 3", r"grade\.persistence: 1 is no share of the variance"),
        ("persistence = -0.1\nmemory = 3", r"grade\.persistence: -0.1 is no share"),
        ("persistence = nan\nmemory = 3", r"grade\.persistence: nan is no share"),
        ("persistence = 0.7", r"grade\.memory: persistence needs a memory above 0"),
        ("persistence = 0.7\nmemory = 0", r"grade\.memory: persistence needs a memory above 0"),
        ("persistence = 0.7\nmemory = inf", r"grade\.memory: persistence needs a memory above 0"),
        ("memory = 3", r"grade\.memory: belongs to persistence, which is not given"),
    ],
)
def test_keys_out_of_range_are_refused_by_name(tmp_path, lines, words):
    path = tmp_path / "prior.toml"
    path.write_text(TABLE + lines + "\n")
    with pytest.raises(FileError, match=r"prior\.toml.*" + words):
        load_population(DECAY, path)


def test_the_keys_are_read_and_written(tmp_path):
    path = tmp_path / "prior.toml"
    path.write_text(TABLE + "persistence = 0.7\nmemory = 3\n")
    read: Population = load_population(DECAY, path)
    assert (read.noise.grade.persistence, read.noise.grade.memory) == (0.7, 3.0)
    path.write_text(read.toml())
    assert load_population(DECAY, path).noise == read.noise
    path.write_text(TABLE)
    assert "persistence" not in load_population(DECAY, path).toml()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"persistence": 1.5}, r"grade\.persistence: 1.5 is no share"),
        ({"memory": -1.0}, r"grade\.memory: persistence needs a memory above 0"),
    ],
)
def test_a_problem_refuses_them_too(change, words):
    with pytest.raises(CrsSimError, match=words):
        asked(A0, observations=GRADES, noise=replace(NOISY, grade=replace(LASTING, **change)))


def test_petab_is_refused():
    problem = asked(A0, observations=(*GRADES, seen("first", "A", 0.0, 12.0)), noise=NOISY)
    with pytest.raises(InputError, match=r"grade\.persistence: PEtab has no error that persists"):
        petab_files(problem)
