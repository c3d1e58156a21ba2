"""What least squares is told: residuals, their exact slopes, and what a run that fails means."""

import numpy as np
import pytest
from small_fits import LEVELS, asked, free
from small_models import small
from tiny_case import write_case

import crs_sim.fitting.objective as objective_module
from crs_sim.errors import IntegrationError
from crs_sim.fitting.noise import Noise, Spread, residual_vector
from crs_sim.fitting.objective import FAILED, RTOL, Objective, curves, point_of, values_by_name
from crs_sim.fitting.problem import load_problem
from crs_sim.patients.patient_files import KINDS
from crs_sim.solver.kernel import LOG_STEP

STEP = 4e-4


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    folder = write_case(tmp_path_factory.mktemp("case"))
    problem = load_problem(folder / "fit")
    assert {o.kind for o in problem.patient.observations} == set(KINDS)
    return problem


def fragile(limit):
    """A decay that cannot be run where a0 is above the limit."""
    return small(
        "fragile",
        {"A": ("a0", "-k*A + tiny*ln(limit - a0)")},
        {"k": 0.5, "a0": 10.0, "gain": 3.0, "tiny": 1e-12, "limit": limit},
        {"signal": "gain*A"},
    )


def richardson(problem, x):
    """Slopes (n, n_free) of the residuals by differences of very tight runs, twice extrapolated."""
    tight = Objective(problem)
    way = np.eye(x.size)

    def central(step):
        points = np.vstack([x + step * way, x - step * way])
        runs = tight.kernel.run(
            tight.line, tight._values(points), rtol=1e-10, watched=tight.watched
        )
        up, down = np.split(tight._residuals(runs, tight._values(points)), 2)
        return (up - down).T / (2 * step)

    wide, half, quarter = (central(STEP / f) for f in (1, 2, 4))
    inner = (16 * (4 * quarter - half) - (4 * half - wide)) / 45
    return np.vstack([inner, np.diag(1 / tight.sds)])


def by_observation(problem, table):
    """Largest entry among the residuals of each observation: two of an unknown day, else one."""
    sizes = [1 + (o.kind == "sometime") for o in problem.patient.observations]
    ends = np.cumsum(sizes)
    return [np.abs(table[end - n : end]).max() for n, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.4])
def test_slopes_of_every_kind_are_exact(every_kind, shift):
    x = point_of(every_kind, {f.name: f.median for f in every_kind.free}) + shift
    exact, ours = richardson(every_kind, x), Objective(every_kind).jacobian(x)
    misses = by_observation(every_kind, ours - exact)
    sizes = by_observation(every_kind, exact)
    for observation, miss, size in zip(every_kind.patient.observations, misses, sizes, strict=True):
        assert miss <= 1e-4 * size, observation.id


def test_slopes_of_the_case_are_exact():
    problem = load_problem("ruemmele2025")
    x = point_of(problem, {f.name: f.median for f in problem.free})
    exact, ours = richardson(problem, x), Objective(problem).jacobian(x)
    misses = by_observation(problem, ours - exact)
    sizes = by_observation(problem, exact)
    for observation, miss, size in zip(problem.patient.observations, misses, sizes, strict=True):
        assert miss <= 1e-4 * max(size, 1e-2), observation.id


def test_many_runs_side_by_side_give_the_residuals_of_each(every_kind):
    objective = Objective(every_kind)
    points = objective.centre + np.array([[0.0, 0.0], [0.3, -0.2], [-0.5, 0.4]])
    runs = objective.kernel.run(
        objective.line, objective._values(points), rtol=RTOL, watched=objective.watched
    )
    together = objective._residuals(runs, objective._values(points))
    for row, x in zip(together, points, strict=True):
        run = curves(every_kind, values_by_name(every_kind, x), objective.days)
        alone = residual_vector(every_kind.patient.observations, run, every_kind.noise)
        assert row == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_ranking_puts_the_better_point_first(every_kind):
    objective = Objective(every_kind)
    points = objective.centre + np.array([[0.0, 0.0], [1.0, 1.0]])
    exact = [min(float(np.sum(objective.residuals(x) ** 2)), 64.0 * 13) for x in points]
    assert list(np.argsort(objective.rough_costs(points))) == list(np.argsort(exact))


def test_a_slope_is_taken_from_the_side_that_runs():
    whole = asked(free("a0", 8.0, 0.4))
    x = np.log([8.0])
    edge = asked(free("a0", 8.0, 0.4), model=fragile(8.0 * (1 + 0.5 * LOG_STEP)))
    objective = Objective(edge)
    assert objective.jacobian(x) == pytest.approx(Objective(whole).jacobian(x), rel=1e-4)
    assert objective.failed == 1


def test_where_no_run_ends_only_the_prior_has_a_slope():
    beyond = Objective(asked(free("a0", 8.0, 0.4), model=fragile(7.0)))
    x = np.log([8.0])
    slopes = beyond.jacobian(x)
    assert slopes[:-1] == pytest.approx(0.0)
    assert slopes[-1] == pytest.approx(1 / 0.4)
    assert beyond.residuals(x)[:-1] == pytest.approx(FAILED)
    assert "day 0" in beyond.first_failure
    with pytest.raises(IntegrationError, match="day"):
        beyond.attempt(x)


def test_a_failed_point_ranks_last_and_is_counted():
    problem = asked(free("a0", 8.0, 0.4), model=fragile(9.0))
    objective = Objective(problem)
    costs = objective.rough_costs(np.log([[8.0], [12.0], [8.5]]))
    assert np.argmax(costs) == 1
    assert objective.failed == 1


def test_values_that_are_not_finite_are_a_failure(monkeypatch):
    problem = asked(free("a0", 8.0, 0.4), observations=LEVELS[:2], noise=Noise({"A": Spread(0.2)}))
    whole = objective_module.residual_vector
    monkeypatch.setattr(
        objective_module, "residual_vector", lambda *arguments: whole(*arguments) * np.nan
    )
    with pytest.raises(IntegrationError, match="not finite"):
        Objective(problem).attempt(np.log([8.0]))
