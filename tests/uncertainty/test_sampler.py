"""Sampling: known posteriors, the same numbers again, and runs that are killed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import fields, replace

import emcee
import numpy as np
import pytest
from normal_posterior import FREES, READINGS, SHORT, around, exact, linear
from paths import child_environment
from small_fits import DECAY, NOISE, asked, free
from waiting import PATIENCE, wait_until

from crs_sim.dosing.doses import Dose, Schedule
from crs_sim.dosing.scenario import Change, Condition, Hold, Scenario, Trigger
from crs_sim.errors import InputError, StorageError
from crs_sim.fitting.noise import Noise, Spread
from crs_sim.fitting.objective import Objective
from crs_sim.uncertainty.draws import read
from crs_sim.uncertainty.posterior import SamplePlan, load_posterior, problem_hash
from crs_sim.uncertainty.sampler import PosteriorMode, _moves, posterior_mode, sample


@pytest.fixture(scope="module")
def known():
    return sample(around(linear()), SamplePlan(draws=24, thin=10, walkers=64))


# --- known answers --------------------------------------------------------------------------------


def test_log_posteriors_are_minus_half_the_squared_residuals():
    problem = linear()
    objective = Objective(problem)
    points = np.log([[10.0, 3.0], [12.0, 2.5], [8.0, 3.5], [10.0, 2.0], [11.0, 2.2]])
    expected = [-0.5 * np.sum(objective.residuals(x) ** 2) for x in points]
    np.testing.assert_allclose(objective.log_posteriors(points), expected, rtol=1e-9)


def test_log_posteriors_are_minus_infinity_out_of_bounds():
    objective = Objective(linear())
    out = np.array([[np.log(10.0), objective.upper[1] + 1e-6], [objective.lower[0] - 1.0, 1.0]])
    assert np.isneginf(objective.log_posteriors(out)).all()
    assert objective.runs == 0


def test_a_normal_posterior_is_met_within_monte_carlo_error(known):
    mean, covariance = exact(known.problem)
    draws = known.kept.reshape(-1, 2)
    sds, ess = np.sqrt(np.diag(covariance)), min(c.ess for c in known.convergence)
    assert known.converged and ess > 1500
    assert np.abs(draws.mean(axis=0) - mean).max() < 4 * (sds / math.sqrt(ess)).max()
    np.testing.assert_allclose(draws.std(axis=0), sds, rtol=4 / math.sqrt(2 * ess))
    correlation = covariance[0, 1] / sds.prod()
    assert np.corrcoef(draws.T)[0, 1] == pytest.approx(
        correlation, abs=4 * (1 - correlation**2) / math.sqrt(ess)
    )
    tails = np.mean(draws < mean - 1.6448536 * sds, axis=0)
    np.testing.assert_allclose(tails, 0.05, atol=4 * math.sqrt(0.05 * 0.95 / ess))


@pytest.mark.parametrize("dimensions", [2, 12])
def test_the_moves_leave_a_normal_distribution_as_it_is(dimensions):
    """emcee's own snooker move does not: see `crs_sim.uncertainty.sampler._moves`."""
    rng = np.random.default_rng(1)
    walkers = 3 * dimensions + 4
    sampler = emcee.EnsembleSampler(
        walkers, dimensions, lambda x: -0.5 * (x**2).sum(axis=1), moves=_moves(), vectorize=True
    )
    sampler.random_state = np.random.RandomState(1).get_state()
    sampler.run_mcmc(rng.standard_normal((walkers, dimensions)), 4000)
    assert sampler.get_chain()[200:].std() == pytest.approx(1.0, abs=0.02)


def test_a_bound_cuts_the_posterior():
    problem = linear()
    mean, covariance = exact(problem)
    upper = math.exp(mean[0])  # in the middle of it
    cut = replace(problem.free[0], upper=upper)
    found = sample(
        PosteriorMode(
            replace(problem, free=(cut, problem.free[1]), model=DECAY.with_values(a0=9.0)),
            mean[None], covariance,
        ),
        SamplePlan(draws=12, walkers=64),
    )  # fmt: skip
    draws = found.kept[..., 0]
    assert draws.max() <= mean[0]
    # a half normal distribution: its mean lies sqrt(2/pi) sd below the cut
    sd, ess = math.sqrt(covariance[0, 0]), found.convergence[0].ess
    expected = mean[0] - math.sqrt(2 / math.pi) * sd
    assert draws.mean() == pytest.approx(expected, abs=4 * sd / math.sqrt(ess))


# --- the same again -------------------------------------------------------------------------------


def test_same_seed_same_numbers_on_any_number_of_threads():
    one, two = (sample(around(linear()), SHORT, workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.chain, two.chain)
    np.testing.assert_array_equal(one.log_posterior, two.log_posterior)
    np.testing.assert_array_equal(one.counts, two.counts)


def test_another_seed_gives_other_numbers_and_groups_differ():
    one, two = (sample(around(linear()), replace(SHORT, seed=n)) for n in (1, 2))
    assert not np.isin(one.chain, two.chain).any()
    assert not np.isin(one.chain[:, 0], one.chain[:, 1]).any()


def test_a_longer_run_begins_as_a_shorter_one():
    short, long = (sample(around(linear()), replace(SHORT, draws=n)) for n in (5, 9))
    np.testing.assert_array_equal(long.chain[:5], short.chain)


def test_going_on_gives_the_numbers_of_one_run(tmp_path):
    whole = sample(around(linear()), SHORT)
    sample(around(linear()), replace(SHORT, draws=5), folder=tmp_path)
    rest = sample(linear(), SHORT, folder=tmp_path, resume=True)
    np.testing.assert_array_equal(rest.chain, whole.chain)
    np.testing.assert_array_equal(rest.log_posterior, whole.log_posterior)
    np.testing.assert_array_equal(rest.counts, whole.counts)


def test_going_on_with_enough_draws_adds_none(tmp_path):
    first = sample(around(linear()), SHORT, folder=tmp_path)
    again = sample(linear(), replace(SHORT, draws=3), folder=tmp_path, resume=True)
    np.testing.assert_array_equal(again.chain, first.chain)


KILLED = """
# at the fourth draw it waits to be killed
import sys, time
from normal_posterior import SHORT, around, linear
from crs_sim.uncertainty import sampler
sampler.SAVE_EVERY = 0.0
sampler.sample(around(linear()), SHORT, folder=sys.argv[1],
               progress=lambda done, *_: time.sleep(1e4 if done > 3 else 0))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_as_if_it_never_was(tmp_path, how):
    folder = tmp_path / "chain"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stderr=subprocess.DEVNULL,
        env=child_environment(),
    )  # fmt: skip
    wait_until((folder / "part_00003.npz").exists, alive=lambda: child.poll() is None)
    child.send_signal(how)
    assert child.wait(timeout=PATIENCE) != 0
    _, parts = read(folder)
    assert 3 <= sum(len(part.chain) for part in parts[1:]) < SHORT.draws
    found = sample(linear(), SHORT, folder=folder, resume=True)
    whole = sample(around(linear()), SHORT)
    np.testing.assert_array_equal(found.chain, whole.chain)
    np.testing.assert_array_equal(found.log_posterior, whole.log_posterior)


def test_what_ctrl_c_interrupts_is_kept(tmp_path):
    def interrupt(done: int, total: int, height: float) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(around(linear()), SHORT, folder=tmp_path, progress=interrupt)
    assert sum(len(part.chain) for part in read(tmp_path)[1][1:]) == 4


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    sample(around(linear()), SHORT, folder=folder)
    return folder


OTHER = {
    r"seed 1, not 2": (linear(), replace(SHORT, seed=2)),
    r"8 walkers in a group, not 10": (linear(), replace(SHORT, walkers=10)),
    r"2 groups of walkers, not 3": (linear(), replace(SHORT, groups=3)),
    r"a thinning interval of 2 moves, not 4": (linear(), replace(SHORT, thin=4)),
    r"other data, priors, noise or fixed values \(hash": (
        linear(noise=Noise({**NOISE.spreads, "A": Spread(0.3, "a test")})), SHORT),
    r"the model's equations \w+, not \w+": (
        linear(model=replace(DECAY, states=(replace(DECAY.states[0], rate="-k*A*1.1"),))), SHORT),
}  # fmt: skip


@pytest.mark.parametrize("words", OTHER)
def test_another_run_is_not_gone_on_with(stored, words):
    problem, plan = OTHER[words]
    with pytest.raises(StorageError, match=words):
        sample(problem, plan, folder=stored, resume=True)


def test_a_run_is_not_overwritten(stored):
    with pytest.raises(StorageError, match=r"already holds a run of the sampler; add --resume"):
        sample(around(linear()), SHORT, folder=stored)


def test_nothing_to_go_on_with(tmp_path):
    with pytest.raises(StorageError, match=r"holds no run of the sampler"):
        sample(linear(), SHORT, folder=tmp_path, resume=True)
    with pytest.raises(InputError, match=r"resume needs the folder"):
        sample(linear(), SHORT, resume=True)


def test_a_damaged_part_is_named(tmp_path):
    sample(around(linear()), SHORT, folder=tmp_path)
    part = tmp_path / "part_00001.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"part_00001\.npz  is damaged .*delete it"):
        load_posterior(tmp_path, linear())


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (SamplePlan(draws=0), "draws is 0; give 1 or more"),
        (SamplePlan(thin=0), "thin is 0; give 1 or more"),
        (SamplePlan(groups=1), "groups is 1; convergence needs 2 or more"),
        (SamplePlan(walkers=5), "walkers is 5; give an even number, at least 6"),
        (SamplePlan(walkers=4), "walkers is 4; give an even number, at least 6"),
        (SamplePlan(seed=-1), "seed is -1; give 0 or more"),
    ],
)
def test_plans_that_cannot_work(plan, words):
    with pytest.raises(InputError, match=words):
        sample(around(linear()), plan)


def test_nothing_free():
    with pytest.raises(InputError, match="no parameter is free"):
        SamplePlan().of_size(0)


# --- where walkers start --------------------------------------------------------------------------


def test_walkers_start_wider_than_the_posterior():
    problem = linear()
    _, parts_of = exact(problem)
    found = sample(around(problem), SamplePlan(draws=1, thin=1, walkers=64))
    spread = found.chain[0].reshape(-1, 2).std(axis=0) / np.sqrt(np.diag(parts_of))
    assert (spread > 1.15).all()


def test_another_descent_that_ends_as_low_is_another_centre():
    problem = linear()
    best = {"a0": 10.0, "gain": 3.0}
    starts = [(5.0, best), (6.0, {"a0": 20.0, "gain": 1.0}), (5.0, {"a0": 10.01, "gain": 3.0}),
              (90.0, {"a0": 1.0, "gain": 9.0})]  # fmt: skip
    peak = posterior_mode(problem, best, np.eye(2), starts)
    np.testing.assert_allclose(np.exp(peak.centres), [[10.0, 3.0], [20.0, 1.0]])


def test_a_fit_of_other_parameters_is_refused():
    with pytest.raises(InputError, match="of k, but the free parameters are a0, gain; fit again"):
        posterior_mode(linear(), {"k": 1.0}, np.eye(1))


def test_no_start_is_said():
    problem = linear()
    mean, _ = exact(problem)
    with pytest.raises(InputError, match="no starting points for the walkers"):
        sample(PosteriorMode(problem, mean[None], np.eye(2) * 1e6), SHORT)


def test_a_problem_is_fitted_first():
    found = sample(linear(starts=1), SHORT, workers=1)
    assert found.chain.shape == (12, 2, 8, 2)


def test_the_hash_of_a_problem_changes_with_the_question_only():
    problem = linear()
    assert problem_hash(problem) == problem_hash(linear())
    assert problem_hash(problem) == problem_hash(linear(path="elsewhere/problem.toml"))
    for other in (
        asked(*FREES, observations=READINGS[:2]),
        linear(model=DECAY.with_values(k=0.6)),
        asked(FREES[0], free("gain", 3.0, 0.5), observations=READINGS),
    ):
        assert problem_hash(other) != problem_hash(problem)


TOLD = {"changes": (Change("k", 1.0, 2.0, 2.0),), "resets": (1.0,), "values": {"k": 0.7},
        "doses": Schedule((Dose(1.0, "A", 3.0),)), "name": "another name",
        "triggers": (Trigger("low", Condition("A", "<", 2.0), Dose(0.0, "A", 3.0), 1, 24.0),),
        "holds": (Hold("A", Condition("A", "<", 2.0)),)}  # fmt: skip


@pytest.mark.parametrize("part", [f.name for f in fields(Scenario)])
def test_the_hash_of_a_problem_knows_all_of_the_scenario(part):
    problem = linear()
    scenario = replace(problem.patient.scenario, **{part: TOLD[part]})
    other = replace(problem, patient=replace(problem.patient, scenario=scenario))
    assert (problem_hash(other) != problem_hash(problem)) == (part != "name")
