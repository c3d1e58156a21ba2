"""Several patients at once: what they were made from is found again; failures; resuming."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares
from small_fits import DECAY, NOISE, asked, free, seen

from crs_sim.dosing.scenario import Change, Scenario
from crs_sim.errors import CrsSimError, InputError, StorageError, UnknownNameError
from crs_sim.fitting.objective import Objective
from crs_sim.fitting.priors import Population
from crs_sim.fitting.problem import FitProblem
from crs_sim.patients.patient import Observations
from crs_sim.population.fit_files import (
    IterationFiles,
    Roles,
    check_new,
    population_fit_warnings,
    save_population,
)
from crs_sim.population.patient_steps import PatientFailure
from crs_sim.population.population_fit import fit_all

DAYS = (0.0, 1.0, 3.0)
FREE = (free("k", 0.5, 0.5), free("a0", 10.0, 0.5))
ASSUMED = Population("assumed", DECAY, FREE, NOISE, 0.0)


def people(n: int, *, spread: tuple[float, float] = (0.4, 0.3), seed: int = 1) -> list[FitProblem]:
    """Synthetic patients of median k 0.6 and a0 12, three readings each."""
    rng, made = np.random.default_rng(seed), []
    for i in range(n):
        k, a0 = np.array([0.6, 12.0]) * np.exp(np.array(spread) * rng.standard_normal(2))
        readings = [a0 * math.exp(-k * d + 0.2 * rng.standard_normal()) for d in DAYS]
        levels = [seen(f"d{d:g}", "A", d, r) for d, r in zip(DAYS, readings, strict=True)]
        problem = asked(*FREE, observations=tuple(levels), starts=1)
        made.append(replace(problem, patient=replace(problem.patient, id=f"synthetic_{i}")))
    return made


def changed(problem: FitProblem, **what: object) -> FitProblem:
    return replace(problem, patient=replace(problem.patient, **what))  # type: ignore[arg-type]


def test_medians_and_spreads_are_found_again_within_their_errors():
    result = fit_all(people(25), ASSUMED, workers=1)
    table = result.table().set_index("parameter")
    assert result.still and min(result.rounds) > 1 and not result.failures
    for name, median, sd in (("k", 0.6, 0.4), ("a0", 12.0, 0.3)):
        row = table.loc[name]
        assert abs(math.log(row["median"] / median)) < 3 * row["median_error"] < 0.4
        assert abs(math.log(row["sd"] / sd)) < 3 * row["sd_error"] < 1.5
        assert 0.0 < row["shrinkage"] < 0.5
        assert result.population.medians[name] == row["median"]
        assert result.population.sds[name] == row["sd"]
    assert result.population.patients == 25
    assert len(result.estimates()) == 50


def test_all_shared_is_the_sum_of_the_patients_objectives():
    problems = people(4, spread=(0.0, 0.0))
    result = fit_all(problems, ASSUMED, Roles(shared=("k", "a0")), workers=1, draws=0)
    objectives = [Objective(problem) for problem in problems]

    def together(x):
        return np.concatenate([o.residuals(x)[:3] for o in objectives])

    best = least_squares(together, np.log([0.5, 10.0]), xtol=1e-12, ftol=1e-12)
    assert result.found.centre == pytest.approx(best.x, abs=1e-4)
    errors = np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
    assert result.found.centre_error == pytest.approx(errors, rel=1e-3)
    result = fit_all(problems, ASSUMED, Roles(shared=("k", "a0")), workers=1)
    assert np.abs((result.found.centre - best.x) / errors).max() < 0.1


def test_own_parameters_keep_their_prior_and_shared_ones_have_one_value():
    result = fit_all(people(4), ASSUMED, Roles(shared=("k",), own=("a0",)), workers=1)
    table = result.table().set_index("parameter")
    assert list(table["role"]) == ["shared", "own"]
    assert (table.loc["a0", "median"], table.loc["a0", "sd"]) == pytest.approx((10.0, 0.5))
    assert table.loc["k", "sd"] == 0.0
    assert len({fit.values["k"] for fit in result.fits}) == 1
    assert set(result.estimates()["parameter"]) == {"a0"}
    assert result.population.sds["k"] == pytest.approx(table.loc["k", "median_error"])


def test_a_failure_is_named_and_the_others_finish():
    good = people(3)
    growing = Change("k", 0.5, 3.0, value=-1e4)
    broken = changed(good[1], scenario=Scenario("synthetic_1", changes=(growing,)))
    result = fit_all([good[0], broken, good[2]], ASSUMED, workers=1)
    assert [fit.patient for fit in result.fits] == ["synthetic_0", "synthetic_2"]
    assert [failure.patient for failure in result.failures] == ["synthetic_1"]
    assert "day" in result.failures[0].reason
    with pytest.raises(CrsSimError, match="no patient could be fitted; synthetic_1"):
        fit_all([broken], ASSUMED, workers=1)


def test_a_patient_with_a_parameter_of_their_own_says_nothing_of_it():
    known = people(3)
    stated = replace(known[0], free=known[0].free[1:])
    result = fit_all([stated, *known[1:]], ASSUMED, workers=1)
    assert result.fits[0].evidence.information[0, 0] == 0.0
    assert not result.failures


def test_numbers_do_not_depend_on_workers_and_a_stopped_fit_goes_on(tmp_path):
    problems, told = people(3), []
    weighty = replace(ASSUMED, patients=3.0)
    whole = fit_all(problems, weighty, workers=2, draws=64)
    kept = IterationFiles(tmp_path)

    def stop_after_two(what, finished, total, outcome):
        told.append((what, finished, outcome.patient))
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_all(problems, weighty, workers=1, draws=64, kept=kept, progress=stop_after_two)
    assert len(list(tmp_path.rglob("*.json"))) == 2
    seen_again = []
    again = fit_all(problems, weighty, workers=1, draws=64, kept=kept,
                    progress=lambda *words: seen_again.append(words[0]))  # fmt: skip
    assert again.found.centre.tolist() == whole.found.centre.tolist()
    assert again.found.spread.tolist() == whole.found.spread.tolist()
    assert again.minus_2_ln_l == whole.minus_2_ln_l
    assert seen_again.count("iteration 1") == 3
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    fit_all(problems, weighty, workers=1, draws=64, kept=kept)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_kept_fits_of_another_question_are_refused(tmp_path):
    problems = people(2)
    fit_all(problems, ASSUMED, workers=1, kept=IterationFiles(tmp_path))
    other = [replace(problem, seed=7) for problem in problems]
    with pytest.raises(StorageError, match="was computed with other inputs"):
        fit_all(other, ASSUMED, workers=1, kept=IterationFiles(tmp_path))
    next(tmp_path.rglob("*.json")).write_text("{")
    with pytest.raises(StorageError, match="not a complete result"):
        fit_all(problems, ASSUMED, workers=1, kept=IterationFiles(tmp_path))


def test_folders_are_not_written_over_nor_resumed_from_nothing(tmp_path):
    check_new(tmp_path, resume=False)
    with pytest.raises(StorageError, match="nothing to resume"):
        check_new(tmp_path, resume=True)
    (tmp_path / "rounds").mkdir()
    with pytest.raises(StorageError, match="add --resume"):
        check_new(tmp_path, resume=False)


def test_what_is_written(tmp_path):
    result = fit_all(people(3), ASSUMED, workers=1)
    result = replace(result, failures=(PatientFailure("p9", "no such day"),), still=False)
    names = {path.name for path in save_population(result, tmp_path)}
    assert names == {"population.csv", "estimates.csv", "prior.toml", "report.md",
                     "population.json"}  # fmt: skip
    report = (tmp_path / "report.md").read_text()
    head = report[: report.index("## The population")]
    assert "Failed: p9 (no such day)" in head
    assert "Not converged after" in head
    assert "| k | tied |" in report


@pytest.mark.parametrize(
    ("problems", "roles", "error", "words"),
    [
        ([], Roles(), InputError, "no patient"),
        (people(1) * 2, Roles(), InputError, "two patients have the id 'synthetic_0'"),
        (people(1), Roles(shared=("kk",)), UnknownNameError, "did you mean 'k'"),
        (people(1), Roles(shared=("k",), own=("k",)), InputError, "shared and own"),
    ],
)
def test_mistakes(problems, roles, error, words):
    with pytest.raises(error, match=words):
        fit_all(problems, ASSUMED, roles, workers=1)


def test_patients_of_different_models_are_refused():
    other = replace(ASSUMED.model, quantities=())
    with pytest.raises(InputError, match="other equations"):
        fit_all(people(1), replace(ASSUMED, model=other), workers=1)


def test_readings_that_scatter_more_than_the_noise_are_named():
    *calm, wild = people(4)
    far = (40.0, 1.0, 25.0)  # about a straight line in the logarithm: no k and a0 come near
    wild = changed(wild, observations=Observations(tuple(
        seen(f"d{d:g}", "A", d, level) for d, level in zip(DAYS, far, strict=True))))  # fmt: skip
    first, *_ = population_fit_warnings(fit_all([*calm, wild], ASSUMED, workers=1))
    assert "scatter more than the stated noise allows: synthetic_3 (" in first
    assert not any("scatter" in text for text in population_fit_warnings(
        fit_all(calm, ASSUMED, workers=1)))  # fmt: skip
